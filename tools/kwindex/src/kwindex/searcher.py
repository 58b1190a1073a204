"""Search over a whole index: each query looks only at entries that can be among its best hits."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING

from kwindex.best import Best, Judged, always
from kwindex.grammar import Request, words
from kwindex.kinds import KINDS, TABLE, UNNAMED
from kwindex.link import LONGEST_CHAIN, is_definition, target_of
from kwindex.model import Entry
from kwindex.names import Bounded, Names
from kwindex.owners import Owners, owner_line
from kwindex.paths import BOUND, FOLDED_LESS, Path, Paths
from kwindex.places import Place
from kwindex.rank import (
    EXACT_QUALIFIED,
    PART,
    QUALIFIED_WORDS,
    SUFFIX,
    SUFFIX_PREFIX,
    UNKNOWN,
    WHOLE,
    Hit,
    Judge,
    Match,
    NearWord,
    Query,
    manner,
    match_typo,
)
from kwindex.spelling import fold, short
from kwindex.tables import Entries, Tables

if TYPE_CHECKING:
    from kwindex.prose import Prose

_BEST_STANDING = max(kind.weight for kind in KINDS.values())
_MOST_WORDS = 8
"""Words up to which a query may be a name; one of more is a message or prose."""
_NAMES_OF_OWNER = 20
"""Names that are looked up in the time in which all that is in one owner is looked at."""
_MANY = 64
"""Entries of one name from which on only one import among them is looked at."""
IMPORT, CLASS, MODULE = ([kind.word for kind in TABLE].index(word) for word in ("import", "class", "module"))
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
    def paths(self) -> Paths:
        """The imports, followed."""
        return Paths(self)

    @cached_property
    def _prose(self) -> "Prose":
        from kwindex.prose import Prose  # most queries are names

        return Prose(self.tables, self._is_class)

    def _is_class(self, last: str) -> bool:
        return any(self.tables.kinds[number] == CLASS for number in self.named(last))

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

        return near_names(words(text), self.tables, self._names, limit)

    def linked(self, entry: Entry) -> Entry:
        """Returns an import with the summary of what it brings, every other entry as it is."""
        if entry.kind != "import" or entry.summary:
            return entry
        target = target_of(entry.signature)
        for _ in range(LONGEST_CHAIN):
            known = [self.entries[number] for number in self.exactly(target)]
            defined = next((other for other in known if other.name == target and is_definition(other)), None)
            if defined is not None:
                return entry._replace(summary=defined.summary)
            taken = next((other for other in known if other.name == target and other.kind == "import"), None)
            if taken is None:
                break
            target = target_of(taken.signature)
        return entry

    def exactly(self, full: str) -> list[int]:
        """Returns the entries that can have a qualified name: their last parts are the same, and the letters before."""
        last = short(full)
        named = self.named(last)
        line = owner_line(full[: -len(last)]) if named else b""
        tables, owners = self.tables, self._owners
        return [number for number in named if owners.is_at(tables.owner(number), line)]

    def named(self, last: str) -> list[int]:
        """Returns the entries whose names have this last part."""
        name = self._names.number(last) if last else -1
        return self.tables.named(name) if name >= 0 else []

    def inside(self, owner: str, files: Iterable[int]) -> Iterator[tuple[int, str]]:
        """Yields the entries in an owner of a name's letters that are in some files, each with its last part."""
        tables, line = self.tables, owner_line(f"{owner}.")
        for file in files:
            owners = b"".join((b"\n", *tables.span("owners", file, file + 1)))
            place = owners.find(b"\n" + line)
            if place >= 0:
                yield from tables.owned(tables.owner_base[file] + place)

    def definitions(self, entry: Entry) -> int:
        """Returns how many definitions of a kind and name a file has: overloads, or those of branches."""
        alike = [other[:3] for other in map(self.entries.__getitem__, self.exactly(entry.name))]
        return alike.count(entry[:3])

    def imports(self, entry: Entry) -> int:
        """Returns how many imports bind the name that an import binds."""
        return sum(self.tables.kinds[number] == IMPORT for number in self.named(short(entry.name)))


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
        if not self._request.text:
            self._offer(range(len(self._tables)), always(Match(0, "passes the filters")))
        elif not self._by_type():
            self._by_message()
            self._by_file()
            may_be_name = self._may_be_name()
            if may_be_name:
                self._by_path()
                self._by_name()
            steps: list[Callable[[], None]] = [self._by_typo, self._by_prose] if may_be_name else [self._by_prose]
            if len(self._query.words) == 2:
                steps.insert(0, self._by_whole_prose)
            for step in reversed(steps) if len(self._query.words) >= _WORDY else steps:
                if not self._best.found:
                    step()
            if not self._best.found:
                self._by_error()
        searcher = self._searcher
        return [_counted(hit, searcher) for hit in self._best.hits()]

    def _may_be_name(self) -> bool:
        query = self._query
        if len(query.words) <= _MOST_WORDS or len(query.parts) > 1:
            return True
        return next(self._names.folded(query.folded), None) is not None

    def _offer(self, numbers: Iterable[int], judged: Judged, bound: int = EXACT_QUALIFIED, own: int = 0) -> None:
        """Offers entries that can get at most so many points; `own` is what the name itself adds to them."""
        best, tables, places, kinds = self._best, self._tables, self._tables.places, self._tables.kinds
        for number in numbers:
            standing = places[number] + own
            if bound + standing >= best.floor and kinds[number] in self._kinds:
                best.offer(tables.entry(number), standing, judged, bound)

    # by names

    def _by_path(self) -> None:
        """Offers what a dotted query leads to through imports."""
        path = Path(self._searcher.paths, self._query)
        for look, most in ((path.whole, EXACT_QUALIFIED), (path.begun, BOUND - FOLDED_LESS)):
            for numbers, name, match in look() if most + _BEST_STANDING >= self._best.floor else ():
                self._offer(numbers, always(match), match.points, manner(self._query, short(name)))

    def _by_name(self) -> None:
        query, names = self._query, self._names
        judge = Judge(query)
        seen: set[int] = set()
        layers = [(top, self._named(layer, judge)) for top, layer in names.layers(query)] + self._qualified()
        if self._request.unnamed:
            unnamed = (number for number, kind in enumerate(self._tables.kinds) if TABLE[kind].word in UNNAMED)
            layers.append((EXACT_QUALIFIED, iter([(EXACT_QUALIFIED, EXACT_QUALIFIED, unnamed)])))
        for top, layer in sorted(layers, key=lambda row: -row[0]):
            if top + _BEST_STANDING < self._best.floor:
                return
            for bound, most, numbers in layer:
                if bound + _BEST_STANDING < self._best.floor:
                    break
                fresh = [number for number in numbers if number not in seen]
                seen.update(fresh)
                self._judge(fresh, judge, bound, most)

    def _named(self, layer: "Callable[[], Bounded]", judge: Judge) -> "Groups":
        for bound, number in layer():
            name, numbers = self._names.name(number), self._tables.named(number)
            most = judge.most(name, bound) + manner(self._query, name)
            yield bound, most, numbers if len(numbers) <= _MANY else self._one_import(numbers)

    def _one_import(self, numbers: list[int]) -> list[int]:
        """Returns entries without the imports among them but the first: one is shown, and of many any will do."""
        if self._request.paths or self._request.packages or self._request.exact:
            return numbers
        imports = [number for number in numbers if self._tables.kinds[number] == IMPORT]
        left = self._likely(imports)[:1]
        return sorted([*(set(numbers) - set(imports)), *left])

    def _judge(self, numbers: list[int], judge: Judge, bound: int, most: int) -> None:
        """Offers entries whose names can get at most `bound` points, `most` with what their underscores make."""
        places, kinds, best = self._tables.places, self._tables.kinds, self._best
        for number in numbers:
            if most + places[number] >= best.floor and kinds[number] in self._kinds:
                entry = self._tables.entry(number)
                own = places[number] + manner(self._query, short(entry.name))
                best.offer(entry, own, lambda entry: judge.match(entry.name), bound)

    def _qualified(self) -> "list[tuple[int, Groups]]":
        """Returns the layers in which whole qualified names can answer the query."""
        query = self._query
        layers: list[tuple[int, Groups]] = []
        if len(query.parts) > 1:
            exactly = self._searcher.exactly(query.text)
            layers.append((EXACT_QUALIFIED, iter([(EXACT_QUALIFIED, EXACT_QUALIFIED, exactly)])))
            layers.append((SUFFIX + 10, self._by_ends(True)))
            layers.append((SUFFIX_PREFIX, self._by_ends(False)))
        if len(query.words) > 1 and query.apart:
            layers.append((QUALIFIED_WORDS, self._by_words()))
        if query.folded:
            layers.append((PART, self._inside()))
        return layers

    def _by_ends(self, whole: bool) -> "Groups":
        """Yields entries whose names are, or begin, a query's last part, in owners that end in the part before."""
        tables, names = self._tables, self._names
        good = set(self._owners.holding(f"{fold(self._query.parts[-2])}.\n"))
        letters = fold(self._query.parts[-1])
        bound = SUFFIX + 10 if whole else SUFFIX_PREFIX
        for name in names.overloads(letters) if whole else ():
            yield bound, bound, tables.named(name)
        begun = [*(names.folded(letters) if whole else names.beginning(letters) if letters else ())]
        if whole or len(begun) < _NAMES_OF_OWNER * len(good):
            for name in begun if good else ():
                yield bound, bound, tables.named_in(name, good)
        else:
            for place in good:
                yield bound, bound, [n for n, own in tables.owned(place) if fold(own).startswith(letters)]

    def _by_words(self) -> "Groups":
        """Yields entries whose owner's and own words begin with all of a query's, one at least in their own."""
        query, tables = self._query, self._tables
        if query.own_words and max(map(len, query.own_words)) < 2:
            return
        numbers: dict[int, list[int]] = {}
        having = cache(self._owners.having)
        for names, missing in self._names.covering(query.words, query.own_words):
            owners = set.intersection(*map(having, missing)) if missing else set()
            for name in names if owners or not missing else ():
                found = tables.named_in(name, owners) if missing else tables.named(name)
                if found:
                    numbers.setdefault(manner(query, self._names.name(name)), []).extend(found)
        for own in sorted(numbers, reverse=True):
            yield QUALIFIED_WORDS, QUALIFIED_WORDS + own, self._likely(numbers[own])

    def _likely(self, numbers: Iterable[int]) -> list[int]:
        """Returns entries, those first that stand best: then most of the others need no look."""
        return sorted(numbers, key=self._tables.places.__getitem__, reverse=True)

    def _inside(self) -> "Groups":
        places = self._owners.holding(f".{self._query.folded}.")
        yield PART, PART, self._likely(number for place in places for number, _ in self._tables.owned(place))

    def _by_typo(self) -> None:
        query = self._query
        for numbers, name, found in Path(self._searcher.paths, query).near():
            self._offer(numbers, always(found), found.points, manner(query, short(name)))
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
        if " " not in self._request.text:  # no message is one word
            return
        for number, match in self._searcher._prose.messages(self._request.text):
            self._offer((number,), always(match))

    def _by_file(self) -> None:
        """Offers the file that a text names, as a traceback does, with the function there and what is at the line."""
        place = Place.of(self._request.text) if ".py" in self._request.text else None
        for numbers, match in place.look(self._searcher) if place is not None else ():
            self._offer(numbers, always(match))

    def _by_error(self) -> None:
        """Offers the class of the error that a pasted text begins with: what it says may be said elsewhere."""
        from kwindex.prose import ERROR_CLASS

        error = self._searcher._prose.error(self._request.text)
        numbers = self._searcher.named(error) if error and " " in self._request.text else []
        classes = [number for number in numbers if self._tables.kinds[number] == CLASS]
        self._offer(classes, always(Match(ERROR_CLASS, UNKNOWN)), ERROR_CLASS)

    def _by_type(self) -> bool:
        """Offers what has the types that a query with an arrow asks for; says whether it is one."""
        if "->" not in self._request.text:
            return False
        from kwindex.signatures import Asked

        asked = Asked.of(self._request.text)
        for numbers, match in self._searcher._prose.typed(asked) if asked is not None else ():
            self._offer(numbers, always(match), match.points)
        return asked is not None

    def _by_prose(self, whole: bool = False) -> None:
        for number, match in self._searcher._prose.described(self._request.text):
            if not whole or match.why == WHOLE:
                self._offer((number,), always(match), match.points)

    def _by_whole_prose(self) -> None:
        """Two words may be misspelled, but not where one summary has both."""
        self._by_prose(whole=True)


Groups = Iterator[tuple[int, int, Iterable[int]]]


def _counted(hit: Hit, searcher: Searcher) -> Hit:
    """Returns a hit with how many others it stands for."""
    entry = hit.entry
    if entry.kind == "import":
        many = searcher.imports(entry)
        why = f"{hit.why}; one of {many} imports of that name"
    else:
        many = searcher.definitions(entry) if is_definition(entry) else 1
        why = f"{hit.why}; one of {many} definitions of it"
    return hit._replace(entry=searcher.linked(entry), why=why if many > 1 else hit.why)
