// The search of kwindex for browsers: rank.py, paths.py, prose.py, pasted.py, signatures.py and grammar.py over one
// list of entries. Every number comes from Python with the payload; tests hold both against each other, query by query. What a
// query needs beyond the names is in parts of the payload; those that are not there yet are named in `missing`.
"use strict";
globalThis.kwindexScorer = (() => {
  const TOKEN = new RegExp(
    "[A-Z]+(?=[A-Z](?:(?![A-Z])[\\p{L}\\p{Nl}\\p{No}]))" +
      "|[A-Z]?(?:(?![A-Z])[\\p{L}\\p{Nl}\\p{No}])+\\p{Nd}*|[A-Z]+\\p{Nd}*|\\p{Nd}+",
    "gu",
  );
  // Nearly all names are ASCII, where the same rules are a much faster expression.
  const ASCII = /^[\0-\x7f]*$/;
  const ASCII_TOKEN = /[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+[0-9]*|[A-Z]+[0-9]*|[0-9]+/g;
  const fold = (text) => text.replace(ASCII.test(text) ? /[^A-Za-z0-9]+/g : /[^\p{L}\p{N}]+/gu, "").toLowerCase();
  const subtokens = (name) =>
    (name.match(ASCII.test(name) ? ASCII_TOKEN : TOKEN) || []).map((token) => token.toLowerCase());
  const segments = (name) => name.replaceAll("::", ".").split(".").filter(Boolean);
  const plain = (text) => text.toLowerCase().split(/\s+/u).filter(Boolean).join(" ");
  const short = (name) => {
    const colons = name.lastIndexOf("::");
    return colons >= 0 ? name.slice(colons + 2) : name.slice(name.lastIndexOf(".") + 1);
  };

  // The letters of a word as bits: each edit changes two of them at most, so that most words need no counting.
  function lettersOf(word) {
    let bits = 0;
    for (let place = 0; place < word.length; place++) bits |= 1 << (word.charCodeAt(place) & 31);
    return bits;
  }

  function mayBeNear(left, right, most) {
    let apart = left ^ right;
    for (let count = 0; apart; count++) {
      if (count >= 2 * most) return false;
      apart &= apart - 1;
    }
    return true;
  }

  const ROWS = [0, 1, 2].map(() => new Int32Array(256));

  function edits(left, right, most) {
    if (Math.abs(left.length - right.length) > most) return most + 1;
    const width = right.length + 1;
    let [earlier, before, row] = width <= ROWS[0].length ? ROWS : ROWS.map(() => new Int32Array(width));
    for (let place = 0; place < width; place++) row[place] = place;
    for (let i = 1; i <= left.length; i++) {
      const first = Math.max(1, i - most);
      const last = Math.min(right.length, i + most);
      [earlier, before, row] = [before, row, earlier];
      row.fill(most + 1, 0, width);
      if (i <= most) row[0] = i;
      let least = row[0];
      for (let j = first; j <= last; j++) {
        const same = left[i - 1] === right[j - 1];
        let cost = same ? before[j - 1] : 1 + Math.min(before[j - 1], before[j], row[j - 1]);
        if (i > 1 && j > 1 && left[i - 1] === right[j - 2] && left[i - 2] === right[j - 1]) {
          cost = Math.min(cost, earlier[j - 2] + 1);
        }
        row[j] = cost;
        if (cost < least) least = cost;
      }
      if (least > most) return most + 1;
    }
    return Math.min(row[right.length], most + 1);
  }

  // The forms of a name that searches compare, made once for each name.
  function formsOf(name) {
    const tokens = subtokens(name);
    const folded = fold(name);
    return { name, folded, letters: lettersOf(folded), tokens, initials: tokens.map((token) => token[0]).join("") };
  }

  const allowedEdits = (letters) => (letters.length < 4 ? 0 : letters.length < 8 ? 1 : 2);

  // Queries: what is asked, besides its filters.

  const FILTER = /(?<!\S)(kind|in|pkg):(?!:)(?:"([^"]*)"|([^\s"]+))(?!\S)/g;

  function request(text, { KINDS: kinds, NOTED: noted, NOTES: notes }) {
    const asked = { kind: [], in: [], pkg: [] };
    for (const found of text.matchAll(FILTER)) asked[found[1]].push(found[2] ?? found[3]);
    text = text.replace(FILTER, " ").split(/\s+/u).filter(Boolean).join(" ");
    const note = new RegExp(noted).exec(text);
    if (note) text = note[1].trim();
    const exact = text.length > 2 && text[0] === '"' && text.at(-1) === '"' && !text.slice(1, -1).includes('"');
    return {
      text: exact ? text.slice(1, -1).trim() : text,
      exact,
      kinds: [...asked.kind.map((word) => kindsNamed(word, kinds)), ...(note ? [new Set(notes)] : [])],
      paths: asked.in.map((path) => path.toLowerCase()),
      packages: asked.pkg,
    };
  }

  function kindsNamed(word, kinds) {
    const asked = fold(word);
    const whole = kinds.filter((kind) => asked === fold(kind.word) || asked === fold(kind.plural));
    const begun = kinds.filter((kind) => asked && fold(kind.word).startsWith(asked));
    if (!whole.length && !begun.length) {
      throw new Error(`kind:${word} names no kind of entry; the kinds are ${kinds.map((kind) => kind.word).join(", ")}`);
    }
    return new Set((whole.length ? whole : begun).map((kind) => kind.word));
  }

  function isIn(name, entry, elsewhere) {
    if (entry.name === name || entry.name.startsWith(`${name}.`)) return true;
    const path = entry.file.replace(/\.py$/, "").replaceAll("/", ".");
    return elsewhere.includes(entry.kind) && `.${path}.`.includes(`.${name}.`);
  }

  function accepts(asked, entry, elsewhere) {
    return (
      asked.kinds.every((kinds) => kinds.has(entry.kind)) &&
      asked.paths.every((path) => entry.file.toLowerCase().includes(path)) &&
      asked.packages.every((name) => isIn(name, entry, elsewhere)) &&
      (!asked.exact || isExact(asked.text, entry))
    );
  }

  function isExact(text, entry) {
    if (entry.unnamed) return (entry.signature ?? "").includes(text);
    const { name } = entry;
    return text === name || text === entry.short || name.endsWith(`.${text}`) || name.endsWith(`::${text}`);
  }

  function meantBy(text, { SYNONYMS: synonyms, LIBRARY: library }) {
    const named = (word) => (Object.hasOwn(synonyms, fold(word)) ? synonyms[fold(word)] : null);
    const rest = (new RegExp(library).exec(text)?.[1] ?? "").toLowerCase();
    return named(text) ?? (rest ? named(rest) ?? [rest] : []);
  }

  function query(text, points) {
    text = text.split(/\s+/u).filter(Boolean).join(" ");
    for (const [form, left] of points.FORMS) text = text.replace(new RegExp(form), left);
    text = text.trim();
    const meant = meantBy(text, points);
    const parts = text.includes(" ") ? [] : segments(text);
    const apart = text.includes(" ") || parts.length > 1;
    let words = subtokens(text);
    const telling = words.filter((word) => !points.FILLERS.includes(word));
    if (words.length > 2 && !parts.length && telling.length) words = telling;
    const ownWords = parts.length > 1 ? subtokens(parts.at(-1)) : [];
    return {
      ...{ text, folded: fold(text), words, ownWords, parts, meant, names: meant.map(fold), apart },
      short: short(text),
      letters: lettersOf(fold(text)),
      folds: parts.map(fold),
      spreads: words.length > 1 && apart && (!ownWords.length || Math.max(...ownWords.map((word) => word.length)) > 1),
    };
  }

  // Names: the layers of rank.py, in the same order.

  function names(P) {
    function matchShort(asked, { name, folded, tokens, initials }) {
      if (name === asked.text) return [P.EXACT, "exact name"];
      if (!asked.folded || !folded) return null;
      if (folded === asked.folded) return [P.FOLDED, "same letters, other spelling"];
      const place = asked.names.indexOf(folded);
      if (place >= 0) return [P.SYNONYM - 2 * place, `synonym: ${asked.text} means ${asked.meant[place]}`];
      const farther = Math.min(folded.length - asked.folded.length, P.FARTHEST);
      if (folded.startsWith(asked.folded)) {
        const same = name.replace(/^_+/, "").startsWith(asked.text) ? P.SAME_LETTERS : 0;
        return [(asked.apart ? P.JOINED_PREFIX : P.PREFIX + same) - farther, "the name starts with it"];
      }
      const match = byWords(asked, tokens, farther) || byInitials(asked.folded, tokens, initials);
      if (match) return match;
      const inside = asked.folded.length > 2 && folded.includes(asked.folded);
      return inside ? [P.SUBSTRING - farther, "inside the name"] : null;
    }

    function byWords(asked, tokens, farther) {
      const { words } = asked;
      if (!words.length || words.length > tokens.length) return null;
      if (!tokens.some((token) => token.startsWith(words[0]))) return null;
      let place = 0;
      for (const token of tokens) if (place < words.length && token.startsWith(words[place])) place++;
      if (place === words.length) return [P.WORDS_IN_ORDER - farther, "words of the name"];
      const left = [...tokens];
      for (const word of [...words].sort((a, b) => b.length - a.length)) {
        const found = left.findIndex((token) => token.startsWith(word));
        if (found < 0) return null;
        left.splice(found, 1);
      }
      return [P.WORDS - farther, "words of the name, other order"];
    }

    function byInitials(letters, tokens, initials) {
      if (letters.length < 2 || tokens.length < 2 || letters[0] !== initials[0]) return null;
      if (letters === initials) return [letters.length > 2 ? P.INITIALS : P.FIRST_INITIALS, "initials"];
      if (letters.length < 3) return null;
      if (initials.startsWith(letters)) {
        return [P.FIRST_INITIALS - (initials.length - letters.length), "first initials"];
      }
      const spelled = letters.length <= P.LONGEST_INITIALS && spelledByBeginnings(letters, tokens);
      return spelled ? [P.MIXED_INITIALS, "initials and word beginnings"] : null;
    }

    function spelledByBeginnings(letters, tokens) {
      let ends = new Set([0]);
      for (const token of tokens) {
        const reached = new Set();
        for (const end of ends) {
          let length = 0;
          while (end + length < letters.length && length < token.length && letters[end + length] === token[length]) {
            length++;
            reached.add(end + length);
          }
        }
        ends = reached;
      }
      return ends.has(letters.length);
    }

    function matchQualified(asked, entry, maySpread, ownerHas) {
      const { name } = entry;
      if (name === asked.text) {
        const points = name.includes(".") || name.includes("::") ? P.EXACT_QUALIFIED : P.EXACT;
        return [points, "exact qualified name"];
      }
      if (asked.parts.length > 1) {
        entry.parts ??= segments(name);
        entry.folds ??= entry.parts.map(fold);
        const match = byParts(asked, entry.parts, entry.folds);
        if (match) return match;
      }
      return maySpread && ownerHas(entry.owner) ? [P.QUALIFIED_WORDS, "words of the qualified name"] : null;
    }

    // Whether the words of a query may be spread over a qualified name that ends in these tokens.
    function mayBeSpread(asked, own) {
      if (!asked.spreads || byWords(asked, own, 0)) return false;
      const begins = own.some((token) => asked.words.some((word) => token.startsWith(word)));
      return begins && asked.ownWords.every((word) => own.some((token) => token.startsWith(word)));
    }

    function byParts(asked, parts, folds) {
      const want = asked.parts;
      const start = parts.length - want.length;
      if (start < 0) return null;
      if (want.every((part, place) => part === parts[start + place])) return [P.SUFFIX + 10, "end of the qualified name"];
      const ends = asked.folds.at(-1);
      const last = folds.at(-1);
      if (!last.startsWith(ends)) return null;
      for (let place = 1; place < want.length - 1; place++) if (folds[start + place] !== asked.folds[place]) return null;
      const begins = asked.folds[0];
      const ownerIs = folds[start] === begins;
      if (!ownerIs) {
        const tokens = subtokens(parts[start]);
        if (!tokens.some((_, place) => tokens.slice(place).join("") === begins)) return null;
      }
      if (last === ends) return [ownerIs ? P.SUFFIX : P.SUFFIX - 20, "end of the qualified name"];
      if (!ends) return null;
      const farther = Math.min(parts.at(-1).length - ends.length, P.FARTHEST);
      return [P.SUFFIX_PREFIX - farther, "beginning of the qualified name's end"];
    }

    function mayEnd(asked, { name, folded, tokens }) {
      if (name === asked.text) return true;
      if (!asked.apart) return false;
      if (tokens.some((token) => asked.words.some((word) => token.startsWith(word)))) return true;
      return Boolean(asked.parts.length && name && folded.startsWith(asked.folds.at(-1)));
    }

    // Tells how the entries of one last part answer, or null where none does; `inside` holds the owners that are named
    // as the query, and `owners` the tokens of all.
    return function judge(asked, inside, owners) {
      const begun = new Map(); // by owner: which words begin one of its tokens
      const wordsOf = (owner) => {
        if (!begun.has(owner)) {
          const { tokens } = owners.get(owner);
          begun.set(owner, asked.words.map((word) => tokens.some((token) => token.startsWith(word))));
        }
        return begun.get(owner);
      };
      return (forms, entries) => {
        const own = matchShort(asked, forms);
        const ends = mayEnd(asked, forms);
        if (!own && !ends && !(inside.size && entries.some((entry) => inside.has(entry.owner)))) return null;
        const maySpread = ends && mayBeSpread(asked, forms.tokens);
        const has = maySpread && asked.words.map((word) => forms.tokens.some((token) => token.startsWith(word)));
        const ownerHas = (owner) => wordsOf(owner).every((found, place) => found || has[place]);
        return (entry, asOneOfMany) => {
          const whole = ends && matchQualified(asked, entry, maySpread, ownerHas);
          if (asOneOfMany && !whole && !inside.has(entry.owner)) return null;
          const match = whole || own;
          const isInside = (!match || match[0] < P.PART) && inside.has(entry.owner);
          return isInside ? [P.PART, "inside what is named so"] : match;
        };
      };
    };
  }

  function nearWord(word) {
    const allowed = allowedEdits(word);
    const letters = lettersOf(word);
    const near = new Map();
    const isNear = (token) =>
      allowed > 0 &&
      Math.abs(word.length - token.length) <= allowed &&
      mayBeNear(letters, lettersOf(token), allowed) &&
      edits(word, token, allowed) <= allowed;
    return (token) => {
      let known = near.get(token);
      if (known === undefined) near.set(token, (known = token.startsWith(word) || isNear(token)));
      return known;
    };
  }

  function matchTypo(P, asked, { folded, letters, tokens }, near) {
    const allowed = allowedEdits(asked.folded);
    const may = allowed && mayBeNear(asked.letters, letters, allowed);
    const differing = may ? edits(asked.folded, folded, allowed) : allowed + 1;
    if (differing <= allowed) {
      const letters = differing === 1 ? "one letter differs" : `${differing} letters differ`;
      return [P.TYPO - 20 * differing, `near spelling: ${letters}`];
    }
    const allNear = near.length && near.every((isNear) => tokens.some(isNear));
    return allNear ? [P.TYPO - 50, "near spelling of words of the name"] : null;
  }

  // Types of signatures.

  const GAP = "\x1f";

  function normal(text) {
    text = text.replace(/[\s'"]+/gu, "").replace(/(?<![\p{L}\p{N}_])(?:[\p{L}\p{N}_]+\.)+(?=[\p{L}\p{N}_])/gu, "");
    text = text.toLowerCase();
    const edge = "(?<![\\p{L}\\p{N}_])";
    const deep = "([^\\[\\]]*(?:\\[[^\\[\\]]*(?:\\[[^\\[\\]]*\\][^\\[\\]]*)*\\][^\\[\\]]*)*)";
    if (text.includes("optional[")) text = text.replace(new RegExp(`${edge}optional\\[${deep}\\]`, "gu"), "$1|none");
    const flat = "([^\\[\\]]*(?:\\[[^\\[\\]]*\\][^\\[\\]]*)*)";
    if (text.includes("union[")) {
      text = text.replace(new RegExp(`${edge}union\\[${flat}\\]`, "gu"), (_, inner) => parted(inner).join("|"));
    }
    return text;
  }

  function parted(text, comma = ",") {
    if (!/[([{']/.test(text)) return text ? text.split(comma) : [];
    const parts = [];
    let [start, depth, quoted] = [0, 0, ""];
    for (let place = 0; place < text.length; place++) {
      const letter = text[place];
      if (quoted) quoted = letter === quoted ? "" : quoted;
      else if (letter === "'" || letter === '"') quoted = letter;
      else if ("([{".includes(letter)) depth++;
      else if (")]}".includes(letter)) depth--;
      else if (letter === comma && depth === 0) {
        parts.push(text.slice(start, place));
        start = place + 1;
      }
    }
    parts.push(text.slice(start));
    return parts.filter(Boolean);
  }

  const before = (text, mark) => (text.includes(mark) ? text.slice(0, text.indexOf(mark)) : text);

  function askedTypes(text) {
    const arrow = text.indexOf("->");
    if (arrow < 0) return null;
    let wanted = text.slice(0, arrow).trim();
    const after = text.slice(arrow + 2);
    if (wanted.startsWith("(") && wanted.endsWith(")")) wanted = wanted.slice(1, -1);
    const parameters = parted(wanted).map(normal).filter(Boolean);
    return parameters.length || after.trim() ? { parameters, result: normal(after) } : null;
  }

  function apart(wanted, have) {
    if (wanted === have) return 0;
    if (have.split("|").includes(wanted) || wanted.split("|").includes(have)) return 1;
    return !wanted.includes("[") && before(have, "[") === wanted ? 2 : null;
  }

  function distance(asked, types) {
    const [result, ...left] = types.split(GAP);
    let far = asked.result ? apart(asked.result, result) : 0;
    if (far === null) return null;
    const inOrder = asked.parameters.every((wanted, place) => wanted === left[place]);
    for (const wanted of asked.parameters) {
      let best = null;
      left.forEach((have, place) => {
        const away = apart(wanted, have);
        if (away !== null && (best === null || away < best[0])) best = [away, place];
      });
      if (best === null) return null;
      far += best[0];
      left.splice(best[1], 1);
    }
    return far + left.length + (inOrder ? 0 : 1);
  }

  // Messages and prose.

  const SAID = /^(?:[eE] )?(?:\[[\p{L}\p{N}_]+\]:? )?/u;
  const NAMED = /^([A-Za-z_][\p{L}\p{N}_.]*): /u;
  const LEAST_LETTERS = 12;
  const TELLING = 40;
  const TRACEBACK = "Traceback (most recent call last)";
  const TOLD = /(?:^| )[A-Za-z_][\p{L}\p{N}_.]*(?:Error|Exception|Warning)[\p{L}\p{N}_]*: /gu;

  function message(template) {
    const colon = template.indexOf(": ");
    const text = colon < 0 ? "" : template.slice(colon + 2);
    const pieces = plain(text).split(/\{[^{}]*\}|…$/u).map((piece) => piece.trim()).filter(Boolean);
    const longest = pieces.reduce((best, piece) => (piece.length > best.length ? piece : best), "");
    return { pieces, longest, letters: pieces.reduce((sum, piece) => sum + piece.length, 0) };
  }

  // Whether so many letters in common make a text a message: a quarter of it, or many, or its beginning.
  function isEnough([first], letters, pasted) {
    if (letters < LEAST_LETTERS) return false;
    const begins = first.length >= LEAST_LETTERS && pasted.startsWith(first);
    return begins || letters >= TELLING || 4 * letters >= pasted.length;
  }

  function answers({ pieces, letters }, pasted) {
    if (!isEnough(pieces, letters, pasted)) return false;
    let place = 0;
    for (const piece of pieces) {
      place = pasted.indexOf(piece, place);
      if (place < 0) return false;
      place += piece.length;
    }
    return true;
  }

  function begun({ pieces, letters }, pasted) {
    let [place, got] = [0, 0];
    for (const piece of pieces) {
      const found = pasted.indexOf(piece, place);
      if (found < 0) {
        const cut = pasted.indexOf(piece.slice(0, LEAST_LETTERS), place);
        if (cut >= 0 && piece.startsWith(pasted.slice(cut))) return got + pasted.length - cut;
        break;
      }
      place = found + piece.length;
      got += piece.length;
    }
    return isEnough(pieces, got, pasted) && 5 * got >= 2 * Math.min(letters, 80) ? got : 0;
  }

  function stem(word, P) {
    for (const ending of P.ENDINGS) {
      if (word.endsWith(ending) && word.length - ending.length >= 4) return word.slice(0, -ending.length);
    }
    return word;
  }

  function roundHalfEven(value) {
    const floor = Math.floor(value);
    const rest = value - floor;
    if (rest !== 0.5) return Math.round(value);
    return floor % 2 ? floor + 1 : floor;
  }

  function countOf(text, word) {
    let count = 0;
    for (let place = text.indexOf(word); place >= 0; place = text.indexOf(word, place + word.length)) count++;
    return count;
  }

  // Paths: what imports lead to, as paths.py has it.

  class Paths {
    constructor(entries, P, taken) {
      Object.assign(this, { P, taken, whole: new Map(), inner: new Map(), lasts: new Map(), named: new Map() });
      const put = (map, key, entry) => map.get(key)?.push(entry) ?? map.set(key, [entry]);
      for (const entry of entries) {
        put(this.whole, entry.name, entry);
        if (entry.unnamed) continue;
        put(this.inner, entry.owner, entry);
        if (entry.kind === "import") put(this.lasts, entry.short, entry);
        if (entry.kind === "class") put(this.named, entry.short, entry.name);
      }
    }

    exactly(full) {
      return (this.whole.get(full) || []).filter((entry) => !entry.unnamed);
    }

    stars(owner) {
      return this.exactly(`${owner}.*`).map((entry) => entry.target);
    }

    isModule(name) {
      return this.exactly(name).some((entry) => entry.kind === "module");
    }

    // What imports bind a name to, with how many files do, the most usual first.
    meanings(name) {
      const files = new Map();
      for (const { target, file } of (!this.isModule(name) && this.lasts.get(name)) || []) {
        if (target) files.set(target, (files.get(target) || new Set()).add(file));
      }
      const counts = [...files].map(([target, some]) => [target, some.size]);
      return counts.sort((a, b) => b[1] - a[1] || compare(a[0], b[0]));
    }

    // Calls `offer` with each entry that a query leads to.
    look(asked, offer) {
      this.found = new Map();
      this.inherited = new Set(); // what was found in a base of what was looked for, or in its metaclass
      const { parts, text } = asked;
      if (parts.length === 1 && parts[0] === text) this.alias(text, offer);
      if (parts.length > 1 && parts.length <= this.P.LONGEST_PATH && parts.join(".") === text) this.path(asked, offer);
      if (parts.length === 3) {
        const [space, word, overload] = parts;
        const named = this.exactly(`${space}::${word}`);
        for (const entry of named) offer(entry, this.P.OVERLOAD, `overload ${overload} of ${space}::${word}`);
      }
    }

    // What a name alone is that imports bind to something of another name.
    alias(name, offer) {
      let place = 0;
      for (const [target, files] of this.meanings(name)) {
        const leads = short(target) === name ? [] : this.find(target).filter((lead) => short(lead) !== name);
        const entries = leads.map((lead) => this.defined(lead)).filter((some) => some.length);
        for (const entry of entries.flat()) offer(entry, this.P.ALIAS - 2 * place, isBound(name, target, files));
        if (entries.length && ++place === this.P.MOST_TARGETS) return;
      }
    }

    // The entries of a name, imports only where there is nothing else.
    defined(name) {
      const some = this.exactly(name);
      const defined = some.filter((entry) => entry.kind !== "import");
      return defined.length ? defined : some;
    }

    path(asked, offer) {
      const { P } = this;
      const { parts } = asked;
      const [owner, last] = [parts.slice(0, -1).join("."), parts.at(-1)];
      const letters = fold(last);
      const reached = (name, leads, points, why) => {
        const from = leads.filter((lead) => !`.${lead}`.endsWith(`.${owner}.${name}`));
        const entries = from.flatMap((lead) => this.defined(lead));
        for (const entry of entries) offer(entry, points, this.said(why, entry.name));
        return entries.length > 0;
      };
      reached(last, this.find(asked.text), P.PATH, `imported as ${asked.text}`);
      const whole = (path, points, why) => {
        const leads = this.find(`${path}.${last}`);
        return reached(last, leads.length ? leads : [`${path}.${last}`], points, why);
      };
      this.bound(parts, P.BOUND, whole);
      this.ofClasses(parts, P.OF_CLASS, whole);
      if (!letters) return;
      const less = (folded) => this.beginning(letters, folded);
      for (const [name, leads, counts] of this.inside(owner, less)) {
        reached(name, leads, P.BOUND - counts, `imported as ${owner}.${name}`);
      }
      const begun = (path, points, why) => {
        const all = this.inside(path, less).map(([name, leads, counts]) => reached(name, leads, points - counts, why));
        return all.some(Boolean);
      };
      this.bound(parts, P.BOUND, begun);
      this.ofClasses(parts, P.OF_CLASS, begun);
    }

    // Calls `inPath` with what a path is where its first part means what imports bind it to.
    bound(parts, most, inPath) {
      let place = 0;
      for (const [target, files] of this.meanings(parts[0])) {
        const path = [target, ...parts.slice(1, -1)].join(".");
        const found = inPath(path, most - 2 * place, isBound(parts[0], target, files));
        if (found && ++place === this.P.MOST_TARGETS) return;
      }
    }

    // Calls `inPath` with each class that the first of two parts is the name of: what it inherits.
    ofClasses(parts, points, inPath) {
      const classes = parts.length === 2 ? [...new Set(this.named.get(parts[0]))].sort(compare) : [];
      for (const name of classes.slice(0, this.P.MOST_TARGETS)) inPath(name, points, `of ${name}`);
    }

    // Calls `offer` with what stands where a path leads and is spelled nearly as its last part.
    near(asked, offer) {
      const { P } = this;
      const { parts } = asked;
      const [owner, last] = [parts.slice(0, -1).join("."), parts.at(-1)];
      const letters = fold(last);
      const allowed = allowedEdits(letters);
      if (parts.length > P.LONGEST_PATH || parts.join(".") !== asked.text || !allowed) return;
      this.found = new Map();
      const less = (folded) => {
        const differing = mayBeNear(lettersOf(letters), lettersOf(folded), allowed) ? edits(letters, folded, allowed) : 9;
        return differing <= allowed ? P.SLIP * differing : null;
      };
      const look = (path, points, bound) => {
        let any = false;
        for (const [, leads, counts] of this.inside(path, less)) {
          const differ = counts === P.SLIP ? `one letter of ${last} differs` : `${counts / P.SLIP} letters of ${last} differ`;
          const said = `near spelling: ${differ}`;
          const from = leads.filter((lead) => !`.${lead}`.endsWith(`.${owner}.${last}`));
          const entries = from.flatMap((lead) => this.defined(lead));
          const why = bound ? `${said}; ${bound}` : said;
          for (const entry of entries) offer(entry, points - counts, this.said(why, entry.name));
          any ||= entries.length > 0;
        }
        return any;
      };
      look(owner, P.TYPO, "");
      this.bound(parts, P.TYPO, look);
      this.ofClasses(parts, P.TYPO, look);
    }

    // How much less than the best a name that begins with letters counts, null for one that does not.
    beginning(letters, folded) {
      const farther = Math.min(folded.length - letters.length, this.P.FARTHEST);
      return folded.startsWith(letters) ? (farther ? this.P.BEGUN_LESS + farther : this.P.FOLDED_LESS) : null;
    }

    said(why, name) {
      return this.inherited.has(name) ? `${why}; inherited` : why;
    }

    // Names that answer where a path leads: what each leads to, and how much less that counts.
    inside(path, less) {
      const found = [];
      const first = new Map();
      for (const [owner, how] of this.handing(path)) {
        for (const entry of this.inner.get(`${owner}.`) || []) {
          const counts = less(fold(entry.short));
          if (counts === null) continue;
          if (how === this.P.STAR && !this.handsOn(owner, entry.short)) continue;
          if (how === this.P.BASE && (first.get(entry.short) ?? owner) !== owner) continue; // the class has its own
          if (!first.has(entry.short)) first.set(entry.short, owner);
          const leads = entry.kind === "import" ? this.find(entry.name) : [entry.name];
          if (how === this.P.BASE) for (const lead of leads) this.inherited.add(lead);
          found.push([entry.short, leads, counts]);
        }
      }
      return found;
    }

    // What a path leads to, the modules whose public names it has by a star, and its bases; which is which.
    handing(path) {
      const { OWN, STAR, BASE } = this.P;
      const owners = new Map(this.find(path).map((name) => [name, OWN]));
      const left = [...owners.keys()];
      while (left.length) {
        const owner = left.pop();
        const handing = new Map(this.stars(owner).map((star) => [star, STAR]));
        for (const base of this.bases(owner, 0)) handing.set(base, BASE);
        for (const [one, how] of handing) {
          if (owners.has(one)) continue;
          owners.set(one, how);
          left.push(one);
        }
      }
      return owners;
    }

    // Whether a star takes a name of a module: what its `__all__` has, else what is public and no module below it.
    handsOn(module, name) {
      const names = this.taken[module]?.split(" ");
      if (names?.includes(name)) return true;
      return (!names || names.at(-1) === "*") && !name.startsWith("_") && !this.isModule(`${module}.${name}`);
    }

    // What a class's bases are, and its metaclass, where the index has them.
    bases(owner, depth) {
      const classes = this.exactly(owner).filter((entry) => entry.kind === "class");
      return classes.flatMap((entry) => entry.bases.flatMap((base) => {
        let place = ownerOf(owner);
        let found = this.find(`${place}.${base}`, depth + 1);
        while (!found.length && place && !this.isModule(place)) {
          place = ownerOf(place);
          found = this.find(`${place}.${base}`, depth + 1);
        }
        return found;
      }));
    }

    // The names of what a class has from the first of its bases that has it.
    fromBases(full, depth) {
      const owner = ownerOf(full);
      for (const base of this.bases(owner, depth)) {
        const found = base === owner ? [] : this.find(`${base}.${full.slice(full.lastIndexOf(".") + 1)}`, depth + 1);
        for (const name of found) this.inherited.add(name);
        if (found.length) return found;
      }
      return [];
    }

    find(full, depth = 0) {
      if (this.found.has(full) || depth === this.P.LONGEST_CHAIN) return this.found.get(full) || [];
      this.found.set(full, []); // what leads to itself leads nowhere
      const entries = this.exactly(full);
      const imports = entries.filter((entry) => entry.kind === "import");
      let found = [full];
      if (!entries.some((entry) => entry.defines)) {
        const nexts = imports.length ? imports.map((entry) => entry.target) : this.handed(full, depth);
        found = [...new Set(nexts.flatMap((path) => this.find(path, depth + 1)))];
        if (!found.length) found = imports.length ? [full] : this.fromBases(full, depth);
      }
      this.found.set(full, found);
      return found;
    }

    handed(full, depth) {
      const [owner, last] = [ownerOf(full), full.slice(full.lastIndexOf(".") + 1)];
      const handed = this.stars(owner).filter((star) => this.handsOn(star, last)).map((star) => `${star}.${last}`);
      const owners = owner ? this.find(owner, depth + 1) : [];
      return [...handed, ...owners.filter((one) => one !== owner).map((one) => `${one}.${last}`)];
    }
  }

  const isBound = (name, target, files) => `${name} is ${target} in ${files} file${files > 1 ? "s" : ""}`;
  const ownerOf = (name) => name.slice(0, Math.max(name.lastIndexOf("."), 0));

  class Searcher {
    constructor(data) {
      this.P = data.settings;
      this.entries = data.entries;
      this.judge = names(this.P);
      this.weights = Object.fromEntries(this.P.KINDS.map((kind) => [kind.word, kind]));
      this.groups = new Map(); // by last part: its forms, and the entries that have it
      this.owners = new Map(); // by what stands before the last part: its tokens
      this.inside = new Map(); // by a folded part: the owners that have it
      for (const entry of this.entries) {
        entry.short = short(entry.name);
        entry.unnamed = !this.weights[entry.kind].named;
        entry.defines = !entry.unnamed && entry.kind !== "import" && !this.P.ELSEWHERE.includes(entry.kind);
        entry.place = this.placeOf(entry);
        entry.owner = entry.name.slice(0, entry.name.length - entry.short.length);
        if (!this.owners.has(entry.owner)) this.addOwner(entry.owner);
        if (entry.unnamed) continue;
        if (!this.groups.has(entry.short)) this.groups.set(entry.short, { forms: formsOf(entry.short), entries: [] });
        this.groups.get(entry.short).entries.push(entry);
      }
      this.docs = this.entries.filter((entry) => entry.brevity >= 0);
      this.parts = new Map(data.none.map((name) => [name, []])); // what is there of the payload besides the names
      this.missing = new Set(); // what the last search would have needed, too
    }

    addOwner(owner) {
      this.owners.set(owner, { tokens: subtokens(owner) });
      for (const part of segments(owner).map(fold)) {
        if (!this.inside.has(part)) this.inside.set(part, new Set());
        this.inside.get(part).add(owner);
      }
    }

    placeOf(entry) {
      const test = /^(?:test_|tests\/|test\/)/.test(entry.file) || entry.file.includes("/test");
      const depth = Math.min(countOf(entry.name, "."), 9) + (entry.name.includes("::") ? 1 : 0);
      return this.weights[entry.kind].weight + (test ? this.P.TEST : 0) - depth;
    }

    // Takes a part of the payload.
    add(name, value) {
      const [what, which] = name.split("-");
      const laid = { messages: messagesOf, holes: filled, types: typesOf, bound: boundOf }[what];
      const told = laid ?? { words: wordsOf, rows: rowsOf, spans: spansOf }[what];
      this.parts.set(name, told(value, this.entries, (what === "rows" ? this.P.ROWS : this.P.SPANS) * which));
    }

    // A part, or null where it is not there yet.
    part(name) {
      if (!this.parts.has(name)) this.missing.add(name);
      return this.parts.get(name) ?? null;
    }

    // Returns the parts that say what rows of these entries show, as far as they are not there yet.
    lacking(entries) {
      const names = entries.map((entry) => `rows-${Math.floor(entry.number / this.P.ROWS)}`);
      return [...new Set(names)].filter((name) => !this.parts.has(name));
    }

    search(text, limit = 10) {
      this.missing.clear();
      const asked = request(text, this.P);
      if (asked.exact && this.part("messages")) this.part("holes"); // so messages are there as they are written
      const hits = new Map();
      const offer = (entry, points, why) => {
        if (!accepts(asked, entry, this.P.ELSEWHERE)) return;
        const key = entry.kind === "import" ? `import ${entry.short}` : entry.defines ? alike(entry) : entry;
        const hit = { entry, score: points + entry.place, why };
        const known = hits.get(key);
        if (!known || isPreferred(hit, known)) hits.set(key, hit);
      };
      const types = askedTypes(asked.text);
      if (!asked.text) for (const entry of this.entries) offer(entry, 0, "passes the filters");
      else if (types) this.byType(types, offer);
      else this.byText(asked, offer, hits);
      const best = [...hits.values()].sort(inOrder).slice(0, limit);
      return best.map((hit) => this.counted(hit));
    }

    byText(asked, offer, hits) {
      const wanted = query(asked.text, this.P);
      this.byMessage(asked.text, offer);
      this.byFile(asked.text, offer);
      const few = wanted.words.length <= this.P.MOST_NAME_WORDS || wanted.parts.length > 1;
      const mayBeName = few || [...this.groups.values()].some(({ forms }) => forms.folded === wanted.folded);
      if (mayBeName) this.byPath(wanted, offer);
      if (mayBeName) this.byName(asked, wanted, offer);
      const steps = [() => this.byProse(asked.text, offer)];
      if (mayBeName) steps.unshift(() => this.byTypo(wanted, offer));
      if (wanted.words.length === 2) steps.unshift(() => this.byProse(asked.text, offer, true)); // both, not misspelled
      if (wanted.words.length >= this.P.WORDY) steps.reverse();
      for (const step of [...steps, () => this.byError(asked.text, offer)]) {
        if (!hits.size && !this.missing.size) step();
      }
    }

    manner(wanted, name) {
      const asked = wanted.short;
      const hidden = name.startsWith("_") !== asked.startsWith("_") ? this.P.PRIVATE : 0;
      return hidden + (name.endsWith("_") && !asked.endsWith("_") ? this.P.IN_PLACE : 0);
    }

    byPath(wanted, offer) {
      const mayBe = wanted.parts.length > 1 || this.groups.get(wanted.text)?.entries.some(isImport);
      if (!mayBe || !this.part("bound")) return;
      this.paths ??= new Paths(this.entries, this.P, this.part("bound"));
      this.paths.look(wanted, (entry, points, why) => offer(entry, points + this.manner(wanted, entry.short), why));
    }

    byName(asked, wanted, offer) {
      const inside = (wanted.folded && this.inside.get(wanted.folded)) || new Set();
      const judge = this.judge(wanted, inside, this.owners);
      const narrowed = asked.paths.length || asked.packages.length || asked.exact;
      const look = (forms, entries) => {
        const match = judge(forms, entries);
        if (!match) return;
        const manner = this.manner(wanted, forms.name);
        const only = narrowed || entries.length <= this.P.MANY ? null : firstImport(entries);
        for (const entry of entries) {
          const found = match(entry, only && entry.kind === "import" && entry !== only);
          if (found) offer(entry, found[0] + manner, found[1]);
        }
      };
      for (const { forms, entries } of this.groups.values()) look(forms, entries);
      const unnamed = asked.kinds.some((kinds) => [...kinds].some((word) => !this.weights[word].named));
      if (unnamed) for (const entry of this.entries) if (entry.unnamed) look(formsOf(entry.short), [entry]);
    }

    byTypo(wanted, offer) {
      const offered = (entry, points, why) => offer(entry, points + this.manner(wanted, entry.short), why);
      if (wanted.parts.length > 1 && this.paths) this.paths.near(wanted, offered);
      const near = wanted.words.length > 1 ? wanted.words.map(nearWord) : [];
      for (const { forms, entries } of this.groups.values()) {
        const match = matchTypo(this.P, wanted, forms, near);
        if (match) for (const entry of entries) offer(entry, match[0] + this.manner(wanted, forms.name), match[1]);
      }
    }

    byType(asked, offer) {
      const heads = [...asked.parameters, asked.result].map((kind) => before(before(kind, "["), "|"));
      for (const [entry, types] of this.part("types") || []) {
        if (!heads.every((head) => types.includes(head))) continue;
        const far = distance(asked, types);
        if (far === null || far > this.P.FARTHEST_TYPES) continue;
        offer(entry, this.P.TYPES - 10 * far, far === 0 ? "these types" : "these types, and others");
      }
    }

    byMessage(text, offer) {
      const P = this.P;
      const [error, said] = this.split(text);
      const pasted = plain(said);
      const start = error ? `${error.slice(error.lastIndexOf(".") + 1)}: ` : "";
      const isOf = (entry) => (start && entry.kind === "error" && entry.template.startsWith(start) ? P.SAME_ERROR : 0);
      if (pasted.length < P.LEAST_PASTED || !pasted.includes(" ")) return;
      for (const [entry, told] of this.part("messages") || []) {
        const { longest } = told;
        const head = told.pieces[0].slice(0, P.HEAD);
        if (pasted.includes(longest) || pasted.includes(head)) {
          if (pasted.includes(longest) && answers(told, pasted)) {
            offer(entry, P.MESSAGE + Math.min(told.letters, 100) + isOf(entry), "raises this message");
          } else {
            const letters = begun(told, pasted);
            const points = P.MESSAGE_BEGUN + Math.min(Math.floor(letters / 2), 100) + isOf(entry);
            if (letters) offer(entry, points, "raises a message that begins so");
          }
        } else if (longest.includes(pasted)) {
          offer(entry, P.MESSAGE_PART, "part of the message");
        }
      }
    }

    // The name of the error that a pasted text begins with, and the rest; of a traceback its end is taken.
    split(text) {
      let said = text.split(/\s+/u).filter(Boolean).join(" ");
      const ends = said.includes(TRACEBACK) ? [...said.matchAll(TOLD)] : [];
      if (ends.length) said = said.slice(ends.at(-1).index).trim();
      said = said.replace(SAID, "");
      let error = "";
      for (let named = NAMED.exec(said); named; named = NAMED.exec(said)) {
        const [whole, name] = named;
        if (!/error|exception|warning/i.test(name) && !this.classes(name).length) break;
        error ||= name;
        said = said.slice(whole.length);
      }
      return [error, said];
    }

    // The classes of a name's last part, where it is written as classes are.
    classes(name) {
      const last = name.slice(name.lastIndexOf(".") + 1);
      const named = (/^[A-Z]/.test(last) && this.groups.get(last)?.entries) || [];
      return named.filter((entry) => entry.kind === "class");
    }

    byFile(text, offer) {
      const named = text.includes(".py") ? new RegExp(this.P.FILE_NAMED).exec(text) : null;
      if (!named) return;
      const path = `/${named[1]}`;
      const said = text.slice(named.index + named[0].length);
      const [, called] = new RegExp(this.P.FUNCTION_NAMED).exec(said) ?? ["", ""];
      const line = Number(new RegExp(this.P.LINE_NAMED).exec(said)?.[1] ?? 0);
      const here = this.entries.filter((entry) => path.endsWith(`/${entry.file}`) || `/${entry.file}`.endsWith(path));
      const modules = here.filter((entry) => entry.kind === "module");
      for (const entry of modules) offer(entry, this.P.FILE, "the file");
      for (const entry of here) if (called && entry.defines && entry.short === called) offer(entry, this.P.IN_FILE, "in the file");
      for (const { file } of line && modules.length <= this.P.MOST_FILES ? modules : []) {
        const inFile = here.filter((entry) => entry.file === file && entry.kind !== "module" && entry.defines);
        for (const entry of this.around(inFile, line)) {
          offer(entry, this.P.AT_LINE, entry.short === called ? "in the file" : `at line ${line} of the file`);
        }
      }
    }

    // The innermost of these that span a line: several where they begin and end alike.
    around(entries, line) {
      const parts = [...new Set(entries.map((entry) => `spans-${Math.floor(entry.number / this.P.SPANS)}`))];
      if (!parts.map((part) => this.part(part)).every(Boolean)) return [];
      const spanning = entries.filter(({ first, end }) => first <= line && line <= end);
      const inner = spanning.reduce((best, one) => (best && isWithin(best, one) ? best : one), null);
      return spanning.filter(({ first, end }) => first === inner.first && end === inner.end);
    }

    byError(text, offer) {
      const [error] = text.includes(" ") ? this.split(text) : [""];
      for (const entry of error ? this.classes(error) : []) offer(entry, this.P.ERROR_CLASS, this.P.UNKNOWN);
    }

    byProse(text, offer, wholly = false) {
      const P = this.P;
      const { docs } = this;
      const asked = (plain(text).match(/[a-z0-9_]+/g) || []).filter((word) => !P.STOP.includes(word));
      const stems = [...new Set(asked.map((word) => ` ${stem(word, P)}`))];
      const all = stems.map((word) => ({ word, numbers: this.docsWith(word.slice(1)) }));
      if (this.missing.size) return;
      const holding = all.sort((a, b) => a.numbers.length - b.numbers.length).slice(0, P.MOST_PROSE_WORDS);
      if (!holding.length) return;
      const words = holding.map(({ word }) => word);
      const weight = new Map();
      for (const { word, numbers } of holding) weight.set(word, Math.log(1 + docs.length / (1 + numbers.length)));
      const whole = words.reduce((sum, word) => sum + weight.get(word), 0);
      const covered = new Map();
      for (const { word, numbers } of holding) {
        for (const number of numbers) covered.set(number, (covered.get(number) || 0) + weight.get(word));
      }
      for (const [number, part] of covered) {
        if (part < P.LEAST_COVERED * whole) continue;
        const entry = docs[number];
        const name = this.nameWords(entry);
        const inName = words.reduce((sum, word) => (name.includes(word) ? sum + weight.get(word) : sum), 0);
        const points = (70 * part) / whole + (40 * inName) / whole + entry.brevity;
        const why = part >= 0.99 * whole ? "in the summary" : "in the summary: most words";
        if (!wholly || part >= 0.99 * whole) offer(entry, P.SUMMARY + roundHalfEven(points), why);
      }
    }

    // The numbers of the docs that hold a word that begins so.
    docsWith(beginning) {
      const lines = this.part(`words-${/[a-z]/.test(beginning[0]) ? beginning[0] : "0"}`) || [];
      const numbers = new Set();
      for (const line of lines) {
        if (!line.startsWith(beginning)) continue;
        let number = 0;
        for (const step of line.slice(line.indexOf(" ") + 1).split(",")) numbers.add((number += parseInt(step, 36)));
      }
      return [...numbers];
    }

    // The words of a name that count as the entry's, each after a space.
    nameWords(entry) {
      if (entry.unnamed) return "";
      return ["", ...subtokens(entry.name.slice(-this.P.NAME_LETTERS)).slice(-this.P.NAME_WORDS)].join(" ");
    }

    counted(hit) {
      const { entry } = hit;
      const isImport = entry.kind === "import";
      if (!isImport && !entry.defines) return hit;
      const { entries } = this.groups.get(entry.short);
      const same = entries.filter((one) => (isImport ? one.kind === "import" : alike(one) === alike(entry))).length;
      const many = isImport ? "imports of that name" : "definitions of it";
      return same > 1 ? { ...hit, why: `${hit.why}; one of ${same} ${many}` } : hit;
    }
  }

  // What the definitions of one thing in one file share: its overloads, or one of each branch.
  const alike = ({ kind, name, file }) => `${kind} ${name} ${file}`;

  // Of them one is shown, which says what it does, or the last; of imports of one name the best.
  function isPreferred(hit, known) {
    if (hit.score !== known.score || !hit.entry.defines) return inOrder(hit, known) < 0;
    const [says, said] = [hit, known].map(({ entry }) => entry.brevity >= 0);
    return says === said ? hit.entry.number > known.entry.number : says;
  }

  // Whether one of two spans that share a line is the inner one, or both are the same.
  const isWithin = (a, b) => a.first > b.first || (a.first === b.first && a.end <= b.end);

  const isImport = (entry) => entry.kind === "import";

  // Of many imports that bind one name, the first among those that stand best.
  function firstImport(entries) {
    const imports = entries.filter((entry) => entry.kind === "import");
    return imports.reduce((best, entry) => (best && best.place >= entry.place ? best : entry), null);
  }

  function inOrder(a, b) {
    return (
      b.score - a.score ||
      a.entry.name.length - b.entry.name.length ||
      compare(a.entry.name, b.entry.name) ||
      compare(a.entry.kind, b.entry.kind) ||
      compare(a.entry.file, b.entry.file) ||
      a.entry.number - b.entry.number // as payload.py orders them
    );
  }

  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

  // The payload: columns of names, and parts.

  function unpack(names) {
    const kinds = names.settings.KINDS.map((kind) => kind.word);
    const shorts = names.shorts.split(names.between);
    const owners = spread(names.owner);
    const files = spread(names.file);
    const [whole, led] = [[], []]; // all names, and all owners, so far
    const told = new Set(names.told);
    let docs = 0; // so many of its column, which has those of the kinds that have any
    const entries = shorts.map((short, number) => {
      const [file, page] = names.files[files[number]];
      if (owners[number] === led.length) led.push(ownerAt(names.owners[led.length], number, whole));
      const name = led[owners[number]] + short;
      whole.push(name);
      const kind = kinds[parseInt(names.kinds[number], 36)];
      const doc = told.has(kind) ? names.docs[docs++] : "-";
      const brevity = doc === "-" ? -1 : parseInt(doc, 36);
      return { name, kind, file, page, number, brevity, anchor: names.anchors[number] };
    });
    const modules = new Map(entries.filter((entry) => entry.kind === "module").map((entry) => [entry.file, entry.name]));
    for (const entry of entries) entry.module = modules.get(entry.file) || "";
    return { settings: names.settings, none: names.none, entries };
  }

  // An owner whole, or after the name of an entry before, so many entries back.
  function ownerAt(text, number, names) {
    const [back, rest] = [before(text, ":"), text.slice(text.indexOf(":") + 1)];
    return back ? `${names[number - parseInt(back, 36)]}.${rest}` : rest;
  }

  function messagesOf(column, entries) {
    const messages = [];
    column.split("\n").forEach((text, number) => {
      const entry = entries[number];
      if (!entry.unnamed) return;
      entry.template = text;
      const told = message(entry.kind === "error" ? text : `: ${text}`);
      if (told.pieces.length) messages.push([entry, told]);
    });
    return messages;
  }

  function filled(column, entries) {
    column.split("\n").forEach((holes, number) => {
      const [entry, texts] = [entries[number], holes.split(GAP)];
      if (entry.unnamed) entry.signature = entry.template.replace(/\{\}/g, () => `{${texts.shift()}}`);
    });
  }

  function typesOf(column, entries) {
    return column.split("\n").flatMap((types, number) => (types ? [[entries[number], types]] : []));
  }

  function boundOf({ owners, owner, lasts, bases, stars }, entries) {
    const named = bases.split("\n");
    const classes = entries.filter((entry) => entry.kind === "class");
    classes.forEach((entry, place) => (entry.bases = named[place].split(" ").filter(Boolean)));
    const [numbers, last] = [spread(owner), lasts.split("\n")];
    const imports = entries.filter((entry) => entry.kind === "import");
    imports.forEach((entry, place) => {
      const part = last[place] || entry.short;
      const inside = owners[numbers[place]];
      entry.target = part === "-" ? "" : inside ? `${inside}.${part}` : part;
    });
    return Object.assign(Object.create(null), stars);
  }

  function wordsOf(lines) {
    return lines.split("\n");
  }

  function rowsOf({ lines, signatures, summaries }, entries, first) {
    const [told, said] = [signatures.split("\n"), summaries.split("\n")];
    return lines.split(",").forEach((line, place) => {
      Object.assign(entries[first + place], { line: parseInt(line, 36), signature: told[place], summary: said[place] });
    });
  }

  function spansOf(column, entries, first) {
    let line = 0;
    column.split(" ").forEach((step, place) => {
      const [after, more] = step.split(",");
      line += Number(after);
      Object.assign(entries[first + place], { first: line, end: line + Number(more ?? 0) });
    });
    return column;
  }

  // Runs of how far back from the next new number one stands, as `back*times`, to one number each.
  function spread(runs) {
    let next = 0;
    return runs.split(",").flatMap((run) => {
      const [back, times] = run.split("*");
      const number = next - parseInt(back, 36);
      if (number === next) next++;
      return Array(times ? parseInt(times, 36) : 1).fill(number);
    });
  }

  return { Searcher, unpack };
})();
