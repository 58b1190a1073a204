"""How well an entry answers a query: a pure function of the query's text and the entry, in ordered layers.

The first layer that an entry meets gives its points and the reason; what the entry is then adds or takes a little.
Nothing here reads files or keeps state, so that another language can hold the same table and give the same order.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from kwindex.code import name_in
from kwindex.kinds import KINDS
from kwindex.model import Entry
from kwindex.spelling import edits, fold, segments, short, subtokens
from kwindex.synonyms import meant_by

EXACT_QUALIFIED = 1000
EXACT = 900
SUFFIX = 850
FOLDED = 800
SYNONYM = 750
PREFIX = 700
SUFFIX_PREFIX = 650
JOINED_PREFIX = 630
"""For a name that begins with the letters of a query of several words or segments."""
WORDS_IN_ORDER = 600
WORDS = 550
INITIALS = 500
MIXED_INITIALS = 480
FIRST_INITIALS = 440
QUALIFIED_WORDS = 400
PART = 350
SUBSTRING = 300
TYPO = 200
SUMMARY = 100
WHOLE = "in the summary"
"""Why an entry is found whose name and summary have all words of the query."""
UNKNOWN = "the error's class: no message is like this"

_FILLERS = frozenset(("the", "a", "an", "of", "is", "for", "and"))
"""Words that a query of several words can do without."""

PRIVATE = -40
"""For a private name, unless the query is one; then for a public name."""
TEST = -25
IN_PLACE = -5
SAME_LETTERS = 3
"""For a name that begins with the query as it is written, capitals and all."""
LONGEST_INITIALS = 12
"""The most letters that may stand for initials and beginnings of words mixed."""
FARTHEST = 60
"""The most that letters beyond the query's own cost, within a layer."""


class Query(NamedTuple):
    """A query, prepared once for all entries."""

    text: str
    folded: str
    words: tuple[str, ...]
    parts: tuple[str, ...]
    """Its segments, where it is a qualified name."""
    folded_parts: tuple[str, ...]
    names: tuple[str, ...]
    """The names that it means as a synonym, folded."""
    own_words: tuple[str, ...]
    """The words that have to stand in an entry's own name: those of a qualified name's last part."""
    apart: bool
    """Whether it is written as several words or segments."""

    @classmethod
    def of(cls, text: str) -> "Query":
        """Returns the query that a text asks, of a line of code that for the name in it.

        Example:
            >>> Query.of(" Tensor.wait(x) ").parts
            ('Tensor', 'wait')
        """
        text = name_in(text)
        names = tuple(fold(name) for name in meant_by(text))
        parts = tuple(segments(text)) if " " not in text else ()
        words = subtokens(text)
        if len(words) > 2 and not parts:
            words = [word for word in words if word not in _FILLERS] or words
        qualified = len(parts) > 1
        own_words = tuple(subtokens(parts[-1])) if qualified else ()
        folded_parts = tuple(map(fold, parts))
        return cls(text, fold(text), tuple(words), parts, folded_parts, names, own_words, qualified or " " in text)


class Match(NamedTuple):
    """Points, and the reason in words."""

    points: int
    why: str


class Hit(NamedTuple):
    """An entry that answers a query."""

    entry: Entry
    score: int
    why: str

    @property
    def sure(self) -> bool:
        """Whether names or messages answer the query as it is written, not a near spelling or words of a summary.

        Example:
            >>> entry = Entry("m.f", "function", "m.py", 1, 1, "f()", "")
            >>> Hit(entry, 900, "exact name").sure, Hit(entry, 180, "near spelling: one letter differs").sure
            (True, False)
        """
        return not self.why.startswith(("near spelling", "in the summary", UNKNOWN))

    def as_dict(self) -> dict[str, Any]:
        """Returns the hit as `kwindex search --json` prints it, but for where its file is on this machine.

        Example:
            >>> entry = Entry("m.f", "function", "m.py", 1, 1, "f()", "")
            >>> list(Hit(entry, 900, "exact name").as_dict())[-2:]
            ['why', 'score']
        """
        return {**self.entry.as_dict(), "why": self.why, "score": self.score}


class Judge:
    """One query over many entries: what it answers by name, each last part and each owner looked at once."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self._seen: dict[str, tuple[Match | None, bool]] = {}
        self._owners: dict[str, bool] = {}

    def match(self, full: str) -> Match | None:
        """Returns how a qualified name answers the query.

        Example:
            >>> Judge(Query.of("mesh")).match("lib.mesh.f").why
            'inside what is named so'
        """
        name = short(full)
        match, may_end = self._short(name)
        if may_end:
            match = match_qualified(self.query, full) or match
        if match is None or match.points < PART:
            owner = full[: -len(name)]
            if owner not in self._owners:
                self._owners[owner] = self.query.folded != "" and any(
                    self.query.folded == fold(part) for part in segments(owner)
                )
            match = Match(PART, "inside what is named so") if self._owners[owner] else match
        return match

    def most(self, name: str, bound: int) -> int:
        """Returns the most points, and at most a bound, that an entry can get whose name's last part this is.

        Example:
            >>> judge = Judge(Query.of("mesh"))
            >>> judge.most("mesh_size", 1000), judge.most("other", 1000)
            (699, 350)
        """
        match, may_end = self._short(name)
        return bound if may_end else min(bound, max(match.points, PART) if match is not None else PART)

    def _short(self, name: str) -> tuple[Match | None, bool]:
        if name not in self._seen:
            self._seen[name] = match_short(self.query, name), _may_end(self.query, name)
        return self._seen[name]


def _may_end(query: Query, name: str) -> bool:
    """Says whether qualified names that end in this name can answer the query as a whole: most cannot."""
    if name == query.text:
        return True
    if not query.apart:
        return False
    if any(token.startswith(word) for token in subtokens(name) for word in query.words):
        return True
    last = segments(name)[-1:]
    return bool(query.parts and last) and fold(last[0]).startswith(query.folded_parts[-1])


def match_typo(query: Query, name: str, near: "list[NearWord]") -> Match | None:
    """Returns how near the last part of a name is to a query that nothing answers as it is written.

    Example:
        >>> match_typo(Query.of("allredcue"), "all_reduce", []).why
        'near spelling: one letter differs'
    """
    allowed = allowed_edits(query.folded)
    differing = edits(query.folded, fold(name), allowed) if allowed else 1
    if differing <= allowed:
        letters = "one letter differs" if differing == 1 else f"{differing} letters differ"
        return Match(TYPO - 20 * differing, f"near spelling: {letters}")
    if near and all(map(among(subtokens(name)), near)):
        return Match(TYPO - 50, "near spelling of words of the name")
    return None


def allowed_edits(letters: str) -> int:
    """Returns how many slips a word of this length may hold and still be meant."""
    return 0 if len(letters) < 4 else 1 if len(letters) < 8 else 2


class NearWord:
    """A word of a query, and which words of names are spelled nearly so; each is compared once."""

    def __init__(self, word: str) -> None:
        self._word = word
        self._allowed = allowed_edits(word)
        self._near: dict[str, bool] = {}

    def is_near(self, token: str) -> bool:
        """Says whether a name's word begins with this one or differs by a slip."""
        if token not in self._near:
            near = token.startswith(self._word)
            self._near[token] = near or (self._allowed > 0 and edits(self._word, token, self._allowed) <= self._allowed)
        return self._near[token]


def among(tokens: list[str]) -> Callable[[NearWord], bool]:
    """Returns what says whether a word is near one of some tokens."""
    return lambda word: any(word.is_near(token) for token in tokens)


def standing(query: Query, entry: Entry) -> int:
    """Returns what the entry itself adds: its kind, whether it is private, in a test, how deep it is.

    Example:
        >>> inner = Entry("m.C._f", "method", "tests/test_m.py", 1, 1, "_f()", "")
        >>> standing(Query.of("f"), inner), standing(Query.of("_f"), inner)
        (-60, -20)
    """
    return place(entry) + manner(query, short(entry.name))


def place(entry: Entry) -> int:
    """Returns the part of the standing that no query changes."""
    name = entry.name
    return _base(entry.kind, entry.file) - min(name.count("."), 9) - ("::" in name)


def manner(query: Query, name: str) -> int:
    """Returns the part of the standing that the name's underscores make."""
    asked = short(query.text)
    points = PRIVATE if name.startswith("_") != asked.startswith("_") else 0
    return points + (IN_PLACE if name.endswith("_") and not asked.endswith("_") else 0)


@lru_cache(maxsize=64)  # neighbours are of one file
def _base(kind: str, file: str) -> int:
    in_test = file.startswith(("test_", "tests/", "test/")) or "/test" in file
    return (KINDS[kind].weight if kind in KINDS else 0) + (TEST if in_test else 0)


def match_short(query: Query, name: str) -> Match | None:
    """Returns how the last part of a name answers a query, in the best layer that it meets.

    Example:
        >>> [match_short(Query.of(q), "all_gather_into_tensor").why for q in ("agit", "gather", "tens gath")]
        ['initials', 'words of the name', 'words of the name, other order']
    """
    if name == query.text:
        return Match(EXACT, "exact name")
    folded = fold(name)
    if not query.folded or not folded:
        return None
    if folded == query.folded:
        return Match(FOLDED, "same letters, other spelling")
    if folded in query.names:
        place = query.names.index(folded)
        return Match(SYNONYM - 2 * place, f"synonym: {query.text} means {meant_by(query.text)[place]}")
    farther = min(len(folded) - len(query.folded), FARTHEST)
    if folded.startswith(query.folded):
        points = JOINED_PREFIX if query.apart else PREFIX + SAME_LETTERS * name.lstrip("_").startswith(query.text)
        return Match(points - farther, "the name starts with it")
    tokens = subtokens(name)
    match = _by_words(query, tokens, farther) or _by_initials(query.folded, tokens)
    if match is None and len(query.folded) > 2 and query.folded in folded:
        match = Match(SUBSTRING - farther, "inside the name")
    return match


def _by_words(query: Query, tokens: list[str], farther: int) -> Match | None:
    """Matches queries whose every word begins a word of the name."""
    if not query.words or len(query.words) > len(tokens):
        return None
    place = 0
    for token in tokens:
        if place < len(query.words) and token.startswith(query.words[place]):
            place += 1
    if place == len(query.words):
        return Match(WORDS_IN_ORDER - farther, "words of the name")
    left = list(tokens)
    for word in sorted(query.words, key=len, reverse=True):
        found = next((token for token in left if token.startswith(word)), None)
        if found is None:
            return None
        left.remove(found)
    return Match(WORDS - farther, "words of the name, other order")


def _by_initials(letters: str, tokens: list[str]) -> Match | None:
    """Matches `agit`, `agi` and `allgit` with all_gather_into_tensor."""
    if len(letters) < 2 or len(tokens) < 2 or letters[0] != tokens[0][0]:
        return None
    initials = "".join(token[0] for token in tokens)
    if letters == initials:
        return Match(INITIALS if len(letters) > 2 else FIRST_INITIALS, "initials")
    if len(letters) < 3:
        return None
    if initials.startswith(letters):
        return Match(FIRST_INITIALS - (len(initials) - len(letters)), "first initials")
    if len(letters) <= LONGEST_INITIALS and _spelled_by_beginnings(letters, tokens):
        return Match(MIXED_INITIALS, "initials and word beginnings")
    return None


def _spelled_by_beginnings(letters: str, tokens: list[str]) -> bool:
    """Says whether the letters are beginnings of all the words, one after the other."""
    ends = {0}
    for token in tokens:
        reached = set()
        for end in ends:
            length = 0
            while end + length < len(letters) and length < len(token) and letters[end + length] == token[length]:
                length += 1
                reached.add(end + length)
        ends = reached
    return len(letters) in ends


def match_qualified(query: Query, name: str) -> Match | None:
    """Returns how a whole qualified name answers a query of several parts or words.

    Example:
        >>> name = "torch.distributed.AsyncCollectiveTensor.wait"
        >>> match_qualified(Query.of("Tensor.wait"), name).why
        'end of the qualified name'
        >>> match_qualified(Query.of("async wait"), name).why
        'words of the qualified name'
    """
    if name == query.text:
        return Match(EXACT_QUALIFIED if "." in name or "::" in name else EXACT, "exact qualified name")
    if len(query.parts) > 1:
        match = _by_parts(query, segments(name))
        if match is not None:
            return match
    if len(query.words) < 2 or not query.apart:
        return None
    return _by_qualified_words(query, name)


def _by_qualified_words(query: Query, name: str) -> Match | None:
    """Matches words that stand anywhere in a qualified name, at least one of them in its last part."""
    if query.own_words and max(map(len, query.own_words)) < 2:  # a letter says too little
        return None
    own = subtokens(short(name))
    if _by_words(query, own, 0) is not None or not any(t.startswith(w) for t in own for w in query.words):
        return None
    if not all(any(token.startswith(word) for token in own) for word in query.own_words):
        return None
    tokens = subtokens(name)
    if all(any(token.startswith(word) for token in tokens) for word in query.words):
        return Match(QUALIFIED_WORDS, "words of the qualified name")
    return None


def _by_parts(query: Query, parts: list[str]) -> Match | None:
    """Matches the last parts of a qualified name with a query's parts."""
    asked = query.folded_parts
    tail = parts[-len(asked) :]
    if len(tail) < len(asked):
        return None
    if tuple(tail) == query.parts:
        return Match(SUFFIX + 10, "end of the qualified name")
    first, last = tail[0], tail[-1]
    if tuple(map(fold, tail[1:-1])) != asked[1:-1]:
        return None
    begins, ends = asked[0], asked[-1]
    owner_is = fold(first) == begins
    if not owner_is and not _ends_in_words(subtokens(first), begins):
        return None
    if fold(last) == ends:
        return Match(SUFFIX if owner_is else SUFFIX - 20, "end of the qualified name")
    if ends and fold(last).startswith(ends):
        farther = min(len(last) - len(ends), FARTHEST)
        return Match(SUFFIX_PREFIX - farther, "beginning of the qualified name's end")
    return None


def _ends_in_words(tokens: list[str], letters: str) -> bool:
    return any("".join(tokens[place:]) == letters for place in range(len(tokens)))
