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
from kwindex.spelling import fold, short, subtokens
from kwindex.tables import Entries, Tables

_BEST_STANDING = max(kind.weight for kind in KINDS.values())
_MOST_WORDS = 8
"""Words up to which a query may be a name; one of more is a message or prose."""
_FEW = 300
"""Owners so few that all that is in them is looked at sooner than all names that begin right."""
_MANY = 64
"""Entries of one name from which on only one import among them is looked at."""
IMPORT = next(number for number, kind in enumerate(TABLE) if kind.word == "import")
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
        self._owners.column.ask()
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
        name = self._names.number(short(entry.name))
        return sum(self.tables.kinds[number] == IMPORT for number in self.tables.named(name))


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
            may_be_name = len(self._query.words) <= _MOST_WORDS or len(self._query.parts) > 1
            if may_be_name:
                self._by_name()
            steps = [self._by_typo, self._by_prose] if may_be_name else [self._by_prose]
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
            numbers = self._tables.named(name)
            yield bound, numbers if len(numbers) <= _MANY else self._one_import(numbers)

    def _one_import(self, numbers: list[int]) -> list[int]:
        """Returns entries without the imports among them but the first: one is shown, and of many any will do."""
        if self._request.paths or self._request.packages or self._request.exact:
            return numbers
        imports = [number for number in numbers if self._tables.kinds[number] == IMPORT]
        left = self._likely(imports)[:1]
        return sorted([*(set(numbers) - set(imports)), *left])

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
        letters = fold(self._query.parts[-1])
        if not whole and len(good) < _FEW:
            for place in good:
                yield SUFFIX_PREFIX, [n for n, name in tables.owned(place) if fold(name).startswith(letters)]
            return
        for name, is_whole in self._names.ending(letters):
            overload = "." in self._names.name(name)
            if whole == (is_whole or overload) and (good or overload):
                numbers = [number for number in tables.named(name) if overload or tables.owner(number) in good]
                yield SUFFIX + 10 if whole else SUFFIX_PREFIX, numbers

    def _by_words(self) -> "Groups":
        """Yields entries whose owner's and own words begin with all of a query's, one at least in their own."""
        query = self._query
        rarest, *_ = sorted(query.own_words or query.words, key=self._frequency)
        if query.own_words and max(map(len, query.own_words)) < 2:
            return
        numbers = set(self._within_names(rarest))
        if not query.own_words:
            numbers.update(self._within_owners(rarest))
        yield QUALIFIED_WORDS, self._likely(sorted(numbers))

    def _frequency(self, word: str) -> int:
        return self._names.words.count(word) + self._owners.column.count(word)

    def _within_names(self, rarest: str) -> Iterator[int]:
        """Yields the entries whose names hold the rarest word, and all others they or their owners."""
        marked, needed = self._marked()
        for name in self._names.having((rarest,)):
            line = self._names.words.line(name)
            if all(word in line for word in needed):
                missing = [word for word in marked if word not in line]
                for number in self._tables.named(name):
                    if not missing or self._owners.has_all(self._tables.owner(number), missing):
                        yield number

    def _within_owners(self, rarest: str) -> Iterator[int]:
        """Yields the entries whose owners hold the rarest word, and all others they or their owners."""
        marked, _ = self._marked()
        for place in self._owners.having(rarest):
            missing = [word for word in marked if not self._owners.has_all(place, [word])]
            for number, name in self._tables.owned(place):
                letters = name.lower()
                if any(word[1:] in letters for word in missing or marked):  # most names are out of question at once
                    line = "".join(f" {token}" for token in subtokens(name))
                    if all(word in line for word in missing) and any(word in line for word in marked):
                        yield number

    def _marked(self) -> tuple[list[str], list[str]]:
        return [f" {word}" for word in self._query.words], [f" {word}" for word in self._query.own_words]

    def _likely(self, numbers: Iterable[int]) -> list[int]:
        """Returns entries, those first that stand best: then most of the others need no look."""
        return sorted(numbers, key=self._tables.places.__getitem__, reverse=True)

    def _inside(self) -> "Groups":
        places = self._owners.holding(f".{self._query.folded}.")
        yield PART, self._likely(number for place in places for number, _ in self._tables.owned(place))

    def _by_typo(self) -> None:
        query = self._query
        near = [NearWord(word) for word in query.words] if len(query.words) > 1 else []
        matches: dict[int, Match] = {}
        for number in self._names.near(query):
            match = match_typo(query, self._names.name(number), near)
            if match is not None:
                matches[number] = match
        for number in sorted(matches, key=lambda number: -matches[number].points):
            own = manner(query, self._names.name(number))
            self._offer(self._tables.named(number), always(matches[number]), matches[number].points, own)

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
