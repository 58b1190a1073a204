"""Search over a whole index: built once, then each query looks only at entries that can be among its best hits."""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from kwindex.grammar import Request
from kwindex.kinds import KINDS, UNNAMED
from kwindex.messages import Message, plain
from kwindex.model import Entry
from kwindex.names import Names, Vocabulary
from kwindex.rank import (
    EXACT_QUALIFIED,
    PART,
    QUALIFIED_WORDS,
    SUFFIX,
    SUFFIX_PREFIX,
    SUMMARY,
    Hit,
    Judge,
    Match,
    NearWord,
    Query,
    manner,
    match_typo,
    place,
    standing,
)
from kwindex.spelling import fold, segments, short

MESSAGE = 880
MESSAGE_PART = 560
_LEAST_PASTED = 12
_BEST_STANDING = max(kind.weight for kind in KINDS.values())

_OBJECTS = {"entries", "_names", "_owner_words", "_messages", "_summaries"}

Accept = Callable[[Entry], bool]
Judged = Callable[[Entry], Match | None]


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
        self.entries: Sequence[Entry] = list(entries)
        numbers: dict[str, int] = {}
        owners: dict[str, int] = {}
        self._of_short: list[list[int]] = []
        self._of_owner: list[list[int]] = []
        self._owner = [-1] * len(self.entries)
        self._place = [place(entry) for entry in self.entries]
        for number, entry in enumerate(self.entries):
            if entry.kind in UNNAMED:
                continue
            name = short(entry.name)
            _append(self._of_short, numbers.setdefault(name, len(numbers)), number)
            owner = owners.setdefault(entry.name[: -len(name)], len(owners))
            _append(self._of_owner, owner, number)
            self._owner[number] = owner
        self._names = Names(list(numbers))
        self._owners = owners
        self._owner_words = Vocabulary(owners)
        self._owner_ends = [fold("".join(segments(owner)[-1:])) for owner in owners]
        self._owner_parts: dict[str, list[int]] = {}
        for place_of_owner, prefix in enumerate(owners):
            for part in {fold(part) for part in segments(prefix)}:
                self._owner_parts.setdefault(part, []).append(place_of_owner)
        self._messages = [
            (Message.of(entry.signature if entry.kind == "error" else f": {entry.signature}"), number)
            for number, entry in enumerate(self.entries)
            if entry.kind in UNNAMED
        ]
        self._longest = [max(message.pieces, key=len, default="\0") for message, _ in self._messages]
        self._summaries: dict[str, list[int]] = {}

    def tables(self) -> dict[str, Any]:
        """Returns all that was made of the entries, in plain values."""
        own = {name: value for name, value in vars(self).items() if name not in _OBJECTS}
        own["_summaries"] = {}
        own["_messages"] = [(tuple(message), number) for message, number in self._messages]
        names = {name: value for name, value in vars(self._names).items() if name != "vocabulary"}
        return {"own": own, "names": names, "words": vars(self._names.vocabulary), "owners": vars(self._owner_words)}

    @classmethod
    def of(cls, entries: Sequence[Entry], tables: dict[str, Any]) -> "Searcher":
        """Returns the searcher of entries whose tables were made before."""
        made = cls.__new__(cls)
        vars(made).update(tables["own"], entries=entries, _names=Names.__new__(Names))
        made._messages = [(Message(*message), number) for message, number in made._messages]
        made._owner_words, words = Vocabulary.__new__(Vocabulary), Vocabulary.__new__(Vocabulary)
        vars(made._owner_words).update(tables["owners"])
        vars(words).update(tables["words"])
        vars(made._names).update(tables["names"], vocabulary=words)
        return made

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
        best = _Best(limit, request.accept)
        if not request.text:
            self._all(best)
        else:
            query = Query.of(request.text)
            self._by_message(request.text, best)
            self._by_name(query, best, request.unnamed)
            if not best.found:
                self._by_typo(query, best)
            if not best.found:
                self._by_summary(query, best)
        return best.hits(self._imports)

    def _imports(self, entry: Entry) -> int:
        """Returns how many imports bind this import's name."""
        number = self._names.number(short(entry.name))
        return sum(self.entries[place].kind == "import" for place in self._of_short[number])

    def _all(self, best: "_Best") -> None:
        passes = _always(Match(0, "passes the filters"))
        for number, entry in enumerate(self.entries):
            best.offer(entry, self._place[number], passes)

    def _by_message(self, text: str, best: "_Best") -> None:
        pasted = plain(text)
        if len(pasted) < _LEAST_PASTED or " " not in pasted:
            return
        for longest, (message, number) in zip(self._longest, self._messages, strict=True):
            if longest in pasted and message.answers(pasted):
                points, why = MESSAGE + min(message.letters // 8, 60), "raises this message"
            elif pasted in longest:
                points, why = MESSAGE_PART, "part of the message"
            else:
                continue
            best.offer(self.entries[number], self._place[number], _always(Match(points, why)))

    def _by_name(self, query: Query, best: "_Best", unnamed: bool) -> None:
        judge = Judge(query)
        groups: dict[int, list[Iterable[int]]] = {}
        bounds = self._names.bounds(query)
        for name, bound in bounds.items():
            groups.setdefault(bound, []).append(self._of_short[name])
        for bound, numbers in self._qualified(query):
            groups.setdefault(bound, []).append(numbers)
        groups.setdefault(PART, []).extend(self._of_owner[owner] for owner in self._owner_parts.get(query.folded, ()))
        if unnamed:
            groups.setdefault(EXACT_QUALIFIED, []).append([number for _, number in self._messages])
        seen: set[int] = set()
        for bound in sorted(groups, reverse=True):
            if bound + _BEST_STANDING < best.floor:
                return
            for numbers in groups[bound]:
                fresh = [number for number in numbers if number not in seen]
                seen.update(fresh)
                self._offer(query, fresh, lambda entry: judge.match(entry.name), best, bound)

    def _offer(self, query: Query, numbers: list[int], judged: Judged, best: "_Best", bound: int) -> None:
        own: dict[str, int] = {}
        for number in numbers:
            if bound + self._place[number] < best.floor:
                continue
            entry = self.entries[number]
            name = short(entry.name)
            if name not in own:
                own[name] = manner(query, name)
            best.offer(entry, self._place[number] + own[name], judged, bound)

    def _qualified(self, query: Query) -> Iterator[tuple[int, Iterable[int]]]:
        """Yields entries whose qualified names can answer a query of several parts or words, and at most how well."""
        if len(query.parts) > 1:
            last = short(query.text)
            owner = self._owners.get(query.text[: -len(last)] if last else "", -1)
            if owner >= 0:
                yield EXACT_QUALIFIED, [n for n in self._of_owner[owner] if self.entries[n].name == query.text]
            begins = fold(query.parts[-2])
            good = {number for number, end in enumerate(self._owner_ends) if end.endswith(begins)}
            for name, whole in self._names.ending(fold(query.parts[-1])):
                overload = "." in self._names.shorts[name]
                numbers = [n for n in self._of_short[name] if overload or self._owner[n] in good]
                yield SUFFIX + 10 if whole or overload else SUFFIX_PREFIX, numbers
        if len(query.words) > 1 and (len(query.parts) > 1 or " " in query.text):
            yield QUALIFIED_WORDS, self._by_words(query)

    def _by_words(self, query: Query) -> Iterator[int]:
        """Yields the entries whose owner's and own words begin with all of a query's, one at least in their own."""
        own: dict[int, int] = {}
        around: dict[int, int] = {}
        for bit, word in enumerate(query.words):
            for name in self._names.vocabulary.starting(word):
                own[name] = own.get(name, 0) | 1 << bit
            for owner in self._owner_words.starting(word):
                around[owner] = around.get(owner, 0) | 1 << bit
        wanted = (1 << len(query.words)) - 1
        for name, bits in own.items():
            for number in self._of_short[name]:
                if bits | around.get(self._owner[number], 0) == wanted:
                    yield number

    def _by_typo(self, query: Query, best: "_Best") -> None:
        near = [NearWord(word) for word in query.words] if len(query.words) > 1 else []
        for number in self._names.near(query):
            name = self._names.shorts[number]
            match = match_typo(query, name, near)
            if match is not None:
                self._offer(query, self._of_short[number], _always(match), best, match.points)

    def _by_summary(self, query: Query, best: "_Best") -> None:
        words = [word for word in query.text.lower().split() if fold(word)]
        if words and not self._summaries:
            for number, entry in enumerate(self.entries):
                self._summaries.setdefault(entry.summary.lower(), []).append(number)
        for summary, numbers in self._summaries.items() if words else ():
            if all(word in summary for word in words):
                for number in numbers:
                    entry = self.entries[number]
                    best.offer(entry, standing(query, entry), _always(Match(SUMMARY, "in the summary")))


class _Best:
    """The best hits so far, and the score below which no other can be among them."""

    def __init__(self, limit: int, accept: Accept | None) -> None:
        self.floor = -(10**9)
        self.found: dict[tuple[str, ...], Hit] = {}
        self._limit = limit
        self._accept = accept
        self._scores: list[int] = []

    def offer(self, entry: Entry, own: int, judged: Judged, bound: int = EXACT_QUALIFIED) -> None:
        """Takes an entry that matches and passes the filters; an import only where it is the best of its name."""
        if bound + own < self.floor or (self._accept is not None and not self._accept(entry)):
            return
        match = judged(entry)
        if match is None:
            return
        hit = Hit(entry, match.points + own, match.why)
        key = ("import", short(entry.name)) if entry.kind == "import" else ("", *map(str, entry))
        known = self.found.get(key)
        if known is None or _order(hit) < _order(known):
            self.found[key] = hit
        if known is None:
            heapq.heappush(self._scores, hit.score)
            if len(self._scores) > self._limit:
                heapq.heappop(self._scores)
            if len(self._scores) == self._limit:
                self.floor = self._scores[0]

    def hits(self, imports: Callable[[Entry], int]) -> list[Hit]:
        """Returns the best hits, an import saying how many bind its name."""
        best = heapq.nsmallest(self._limit, self.found.values(), key=_order)
        return [_counted(hit, imports(hit.entry)) if hit.entry.kind == "import" else hit for hit in best]


def _counted(hit: Hit, imports: int) -> Hit:
    return hit._replace(why=f"{hit.why}; one of {imports} imports of that name") if imports > 1 else hit


def _order(hit: Hit) -> tuple[int, int, Entry]:
    return -hit.score, len(hit.entry.name), hit.entry


def _always(match: Match) -> Judged:
    return lambda entry: match


def _append(lists: list[list[int]], place: int, number: int) -> None:
    if place == len(lists):
        lists.append([])
    lists[place].append(number)
