// The palette: press / or k, type, and go. Everything is on the page's own site; it works from files, too.
"use strict";
(() => {
  const own = document.currentScript.src;
  const folder = own.slice(0, own.lastIndexOf("/") + 1);
  const root = new URL(document.currentScript.dataset.root || "../../", folder);
  const LIMIT = 10;
  const PAUSE_MS = 120;
  let searcher = null;
  let failed = "";
  let chosen = 0;
  let hits = [];
  let pause = 0;

  // The index comes when the palette is first opened: the names, and then what a query needs besides. Rows say more
  // of their symbols once one pauses.
  const loading = new Map(); // by name

  function load(name) {
    if (!loading.has(name)) {
      const arrived = new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = new URL(`${name}.js`, folder);
        script.onload = resolve;
        script.onerror = () => reject(new Error(`${name}.js cannot be loaded`));
        document.head.append(script);
      });
      loading.set(name, arrived);
    }
    return loading.get(name);
  }

  globalThis.kwindexNames = (names) => {
    searcher = new kwindexScorer.Searcher(kwindexScorer.unpack(names));
  };
  globalThis.kwindexPart = (name, value) => searcher.add(name, value);

  async function fetchIndex() {
    try {
      await load("scorer");
      await load("names");
    } catch (error) {
      failed = error.message;
    }
    update();
  }

  // Loads parts and answers anew, unless the query is another one by then.
  async function fetchParts(names) {
    const asked = input.value;
    try {
      await Promise.all(names.map(load));
    } catch (error) {
      failed = error.message;
    }
    if (input.value === asked) update(chosen);
  }

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  const input = element("input", {
    type: "search",
    placeholder: "all_reduce, agit, psum, a message, Tensor -> str ...",
    role: "combobox",
    autocomplete: "off",
    spellcheck: "false",
    "aria-label": "Search symbols",
    "aria-expanded": "true",
    "aria-controls": "kwindex-hits",
    "aria-autocomplete": "list",
  });
  const list = element("div", { id: "kwindex-hits", role: "listbox", "aria-label": "Symbols" });
  const state = element("p", { class: "kwindex-state", role: "status", "aria-live": "polite" });
  const keys = element("p", { class: "kwindex-keys", "aria-hidden": "true" }, "↑ ↓ choose · Enter opens · Esc closes");
  const dialog = element("dialog", { class: "kwindex", "aria-label": "Search symbols" }, input, list, state, keys);

  function addressOf(entry) {
    if (!entry.page) return "";
    const inFile = entry.name.slice(entry.name.startsWith(`${entry.module}.`) ? entry.module.length + 1 : 0);
    const withLine = entry.line ? `${inFile}-${entry.line}` : "";
    const anchor = { 0: "", 1: entry.name, 2: inFile, 3: withLine }[entry.anchor];
    const page = location.protocol === "file:" && entry.page.endsWith("/") ? `${entry.page}index.html` : entry.page;
    return new URL(page, root).href + (anchor ? `#${encodeURIComponent(anchor)}` : "");
  }

  function row(hit, number) {
    const { entry } = hit;
    const address = addressOf(entry);
    const title = element("span", { class: "kwindex-name" }, entry.name);
    const facts = element("span", { class: "kwindex-facts" }, `${entry.kind} · ${hit.why}`);
    const where = entry.line ? `${entry.file}:${entry.line}` : entry.file;
    const place = element("span", { class: "kwindex-place" }, where);
    const link = element("a", { role: "option", id: `kwindex-${number}`, "aria-selected": "false" }, title, facts, place);
    if (address) link.href = address;
    link.tabIndex = -1; // the field keeps the focus and says which one is chosen
    const texts = entry.line ? [entry.signature, entry.summary] : ["…", "…"]; // rows keep their height, nearly
    for (const text of texts) {
      if (text && text !== entry.name) link.append(element("span", { class: "kwindex-text" }, text));
    }
    return link;
  }

  function choose(number) {
    const options = [...list.children];
    chosen = options.length ? (number + options.length) % options.length : 0;
    options.forEach((option, place) => option.setAttribute("aria-selected", String(place === chosen)));
    if (options.length) {
      input.setAttribute("aria-activedescendant", options[chosen].id);
      options[chosen].scrollIntoView({ block: "nearest" });
    } else input.removeAttribute("aria-activedescendant");
  }

  function update(choice = 0) {
    const text = input.value.trim();
    clearTimeout(pause);
    hits = [];
    let [said, settled] = [failed, true];
    if (!searcher) [said, settled] = [failed || "Loading the index ...", Boolean(failed)];
    else if (!text) said ||= `${searcher.entries.length.toLocaleString("en")} symbols`;
    else {
      try {
        hits = searcher.search(text, LIMIT);
        const [needed, told] = [[...searcher.missing], searcher.lacking(hits.map((hit) => hit.entry))];
        settled = Boolean(failed) || !(needed.length || told.length);
        said ||= hits.length ? `${hits.length} shown` : needed.length ? "Searching ..." : "Nothing found";
        if (!settled && needed.length) fetchParts(needed);
        else if (!settled) pause = setTimeout(fetchParts, PAUSE_MS, told);
      } catch (error) {
        said = error.message;
      }
    }
    list.replaceChildren(...hits.map(row));
    state.textContent = said;
    choose(choice);
    dialog.dataset.settled = settled;
  }

  function open() {
    if (dialog.open) return;
    if (!dialog.isConnected) document.body.append(dialog);
    dialog.showModal();
    input.select();
    fetchIndex();
    update();
  }

  function go() {
    const link = list.children[chosen];
    if (!link?.href) return;
    dialog.close();
    location.href = link.href;
  }

  const isTyping = (target) =>
    target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

  // In the capturing phase, so that the theme's own search does not take the same key.
  window.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "/" && event.key !== "k") return;
      if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || dialog.open) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      open();
    },
    true,
  );
  dialog.addEventListener("keydown", (event) => {
    event.stopPropagation(); // keys of the palette are not keys of the page
    if (event.isComposing) return; // they choose a letter, as of Chinese
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps) choose(chosen + steps[event.key]);
    else if (event.key === "Enter") go();
    else if (event.key === "Escape") dialog.close(); // of itself it would only empty a field that is not empty
    else return;
    event.preventDefault();
  });
  input.addEventListener("input", () => update());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
    else if (event.target.closest("a[href]")) dialog.close();
  });

  function addButton() {
    const button = element("button", { class: "kwindex-open", type: "button", title: "Search symbols (press / or k)" });
    button.setAttribute("aria-label", "Symbols");
    button.append(element("span", {}, "Symbols "), element("kbd", {}, "/"));
    button.addEventListener("click", open);
    const header = document.querySelector(".md-header__inner") || document.body;
    header.append(button);
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", addButton);
  else addButton();
})();
