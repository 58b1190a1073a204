"""Search over a whole index: each query looks only at entries that can be among its best hits."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

from kwindex.best import Best, Judged, always
from kwindex.grammar import Request
from kwindex.kinds import KINDS, TABLE, UNNAMED
from kwindex.link import LONGEST_CHAIN, target_of
from kwindex.model import Entry
from kwindex.names import Bounded, Names
from kwindex.owners import Owners
from kwindex.pieces import owner_line
from kwindex.prose import Prose
from kwindex.rank import (
    EXACT_QUALIFIED,
    PART,
    QUALIFIED_WORDS,
    SUFFIX,
    SUFFIX_PREFIX,
    Hit,
    Judge,
    Match,
    NearWord,
    Query,
    manner,
    match_typo,
)
from kwindex.signatures import Asked
from kwindex.spelling import fold, short
from kwindex.tables import Entries, Tables

_BEST_STANDING = max(kind.weight for kind in KINDS.values())
_WORDY = 3
"""Words from which on a query that no name answers is read as prose before it is read as misspelled."""


def search(text: str, entries: Iterable[Entry], limit: int = 10) -> list[Hit]:
    """Returns the entries that answer a query, best first; for many queries, build a `Searcher` once.

    Example:
        >>> entry = Entry("m.all_reduce", "function", "m.py", 1, 1, "all_reduce()", "Adds up.")
        >>> [(hit.entry.name, hit.why) for hit in search("psum", [entry])]
        [('m.all_reduce', 'synonym: psum means all_reduce')]
    """
    return Searcher(entries).search(text, limit)


class Searcher:
    """An index made ready for many queries.

    Misspellings and words of the summaries are looked at only where names and messages give nothing. Of imports
    that bind the same name one is shown, with how many there are.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._open(Tables.of(list(entries)))

    @classmethod
    def of(cls, tables: Tables) -> "Searcher":
        """Returns the searcher of tables that were made before."""
        made = cls.__new__(cls)
        made._open(tables)
        return made

    def _open(self, tables: Tables) -> None:
        self.tables = tables
        self.entries: Sequence[Entry] = Entries(tables)

    @cached_property
    def _names(self) -> Names:
        return Names(self.tables)

    @cached_property
    def _owners(self) -> Owners:
        return Owners(self.tables)

    @cached_property
    def _prose(self) -> Prose:
        return Prose(self.tables)

    def search(self, text: str, limit: int = 10) -> list[Hit]:
        """Returns the entries that answer a query, best first.

        Raises:
            KwindexError: A filter of the query names no kind of entry.

        Example:
            >>> entry = Entry("m.f", "error", "m.py", 3, 3, "ValueError: need {n} ranks, got {m}", "")
            >>> Searcher([entry]).search("ValueError: need 2 ranks, got 3")[0].why
            'raises this message'
        """
        request = Request.of(text)
        return _Search(self, request, limit).run()

    def suggest(self, text: str, limit: int = 5) -> list[str]:
        """Returns names that may be meant by a query that found nothing."""
        from kwindex.suggestions import near_names  # seldom needed, and not before there is nothing else to say

        return near_names(text, self.tables, self._names, limit)

    def linked(self, entry: Entry) -> Entry:
        """Returns an import with the summary of what it brings, every other entry as it is."""
        if entry.kind != "import" or entry.summary:
            return entry
        target = target_of(entry.signature)
        for _ in range(LONGEST_CHAIN):
            known = [self.entries[number] for number in self.exactly(target)]
            defined = next((other for other in known if other.name == target and other.kind != "import"), None)
            if defined is not None:
                return entry._replace(summary=defined.summary)
            taken = next((other for other in known if other.name == target), None)
            if taken is None:
                break
            target = target_of(taken.signature)
        return entry

    def exactly(self, full: str) -> list[int]:
        """Returns the entries that can have a qualified name: their last parts are the same, and the letters before."""
        last = short(full)
        name = self._names.number(last) if last else -1
        if name < 0:
            return []
        line = owner_line(full[: -len(last)])
        tables, owners = self.tables, self._owners
        return [number for number in tables.named(name) if owners.is_at(tables.owner(number), line)]

    def imports(self, entry: Entry) -> int:
        """Returns how many imports bind the name that an import binds."""
        code = next(number for number, kind in enumerate(TABLE) if kind.word == "import")
        name = self._names.number(short(entry.name))
        return sum(self.tables.kinds[number] == code for number in self.tables.named(name))


class _Search:
    """One query over an index."""

    def __init__(self, searcher: Searcher, request: Request, limit: int) -> None:
        self._searcher, self._request = searcher, request
        self._tables, self._names, self._owners = searcher.tables, searcher._names, searcher._owners
        self._best = Best(limit, request.accept)
        self._query = Query.of(request.text)
        self._kinds = frozenset(
            number for number, kind in enumerate(TABLE) if all(kind.word in kinds for kinds in request.kinds)
        )

    def run(self) -> list[Hit]:
        """Looks at one layer after the other and returns the best hits."""
        asked = Asked.of(self._request.text)
        if not self._request.text:
            self._offer(range(len(self._tables)), always(Match(0, "passes the filters")))
        elif asked is not None:
            self._by_type(asked)
        else:
            self._by_message()
            self._by_name()
            steps = [self._by_typo, self._by_prose]
            for step in reversed(steps) if len(self._query.words) >= _WORDY else steps:
                if not self._best.found:
                    step()
        searcher = self._searcher
        return [_counted(hit, searcher) if hit.entry.kind == "import" else hit for hit in self._best.hits()]

    def _offer(self, numbers: Iterable[int], judged: Judged, bound: int = EXACT_QUALIFIED, own: int = 0) -> None:
        """Offers entries that can get at most so many points; `own` is what the name itself adds to them."""
        best, tables, places, kinds = self._best, self._tables, self._tables.places, self._tables.kinds
        for number in numbers:
            standing = places[number] + own
            if bound + standing >= best.floor and kinds[number] in self._kinds:
                best.offer(tables.entry(number), standing, judged, bound)

    # by names

    def _by_name(self) -> None:
        query, names = self._query, self._names
        judge = Judge(query)
        seen: set[int] = set()
        layers = [(top, self._named(layer)) for top, layer in names.layers(query)] + self._qualified()
        if self._request.unnamed:
            unnamed = (number for number, kind in enumerate(self._tables.kinds) if TABLE[kind].word in UNNAMED)
            layers.append((EXACT_QUALIFIED, iter([(EXACT_QUALIFIED, unnamed)])))
        for top, layer in sorted(layers, key=lambda row: -row[0]):
            if top + _BEST_STANDING < self._best.floor:
                return
            for bound, numbers in layer:
                if bound + _BEST_STANDING < self._best.floor:
                    break
                fresh = [number for number in numbers if number not in seen]
                seen.update(fresh)
                self._judge(fresh, judge, bound)

    def _named(self, layer: "Callable[[], Bounded]") -> "Groups":
        for bound, name in layer():
            yield bound, self._tables.named(name)

    def _judge(self, numbers: list[int], judge: Judge, bound: int) -> None:
        places, kinds, best = self._tables.places, self._tables.kinds, self._best
        for number in numbers:
            if bound + places[number] >= best.floor and kinds[number] in self._kinds:
                entry = self._tables.entry(number)
                own = places[number] + manner(self._query, short(entry.name))
                best.offer(entry, own, lambda entry: judge.match(entry.name), bound)

    def _qualified(self) -> "list[tuple[int, Groups]]":
        """Returns the layers in which whole qualified names can answer the query."""
        query = self._query
        layers: list[tuple[int, Groups]] = []
        if len(query.parts) > 1:
            layers.append((EXACT_QUALIFIED, iter([(EXACT_QUALIFIED, self._searcher.exactly(query.text))])))
            layers.append((SUFFIX + 10, self._by_ends(True)))
            layers.append((SUFFIX_PREFIX, self._by_ends(False)))
        if len(query.words) > 1 and (len(query.parts) > 1 or " " in query.text):
            layers.append((QUALIFIED_WORDS, self._by_words()))
        if query.folded:
            layers.append((PART, self._inside()))
        return layers

    def _by_ends(self, whole: bool) -> "Groups":
        """Yields entries whose names are, or begin, a query's last part, in owners that end in the part before."""
        tables = self._tables
        good = set(self._owners.holding(f"{fold(self._query.parts[-2])}.\n"))
        for name, is_whole in self._names.ending(fold(self._query.parts[-1])):
            overload = "." in self._names.name(name)
            if whole == (is_whole or overload) and (good or overload):
                numbers = [number for number in tables.named(name) if overload or tables.owner(number) in good]
                yield SUFFIX + 10 if whole else SUFFIX_PREFIX, numbers

    def _by_words(self) -> "Groups":
        """Yields entries whose owner's and own words begin with all of a query's, one at least in their own."""
        words = self._query.words
        own: dict[int, int] = {}
        for bit, word in enumerate(words):
            for name in self._names.having((word,)):
                own[name] = own.get(name, 0) | 1 << bit
        around = [set(self._owners.holding(f" {word}")) for word in words]
        good: dict[int, set[int] | None] = {(1 << len(words)) - 1: None}
        for name, bits in own.items():
            if bits not in good:
                good[bits] = set.intersection(*(held for bit, held in enumerate(around) if not bits >> bit & 1))
            owners = good[bits]
            numbers = self._tables.named(name) if owners is None or owners else []
            yield QUALIFIED_WORDS, [n for n in numbers if owners is None or self._tables.owner(n) in owners]

    def _inside(self) -> "Groups":
        for place in self._owners.holding(f".{self._query.folded}."):
            yield PART, self._tables.owned(place)

    def _by_typo(self) -> None:
        query = self._query
        near = [NearWord(word) for word in query.words] if len(query.words) > 1 else []
        for number in self._names.near(query):
            name = self._names.name(number)
            match = match_typo(query, name, near)
            if match is not None:
                self._offer(self._tables.named(number), always(match), match.points, manner(query, name))

    # by messages, types and words

    def _by_message(self) -> None:
        for number, match in self._searcher._prose.messages(self._request.text):
            self._offer((number,), always(match))

    def _by_type(self, asked: Asked) -> None:
        for numbers, match in self._searcher._prose.typed(asked):
            self._offer(numbers, always(match), match.points)

    def _by_prose(self) -> None:
        for number, match in self._searcher._prose.described(self._request.text):
            self._offer((number,), always(match), match.points)


Groups = Iterator[tuple[int, Iterable[int]]]


def _counted(hit: Hit, searcher: Searcher) -> Hit:
    imports = searcher.imports(hit.entry)
    why = f"{hit.why}; one of {imports} imports of that name" if imports > 1 else hit.why
    return hit._replace(entry=searcher.linked(hit.entry), why=why)
