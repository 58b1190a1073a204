"""The best hits of a search so far, and the score below which no other can be among them."""

import heapq
from collections.abc import Callable

from kwindex.link import is_definition
from kwindex.model import Entry
from kwindex.rank import EXACT_QUALIFIED, Hit, Match
from kwindex.spelling import short

Accept = Callable[[Entry], bool]
Judged = Callable[[Entry], Match | None]


class Best:
    """Takes entries that may match and keeps the best.

    Of imports that bind one name it keeps the best alone, and of what one file defines several times: overloads, or a
    function in each branch of a condition.
    """

    def __init__(self, limit: int, accept: Accept) -> None:
        self.floor = -(10**9)
        self.found: dict[tuple[str, ...], Hit] = {}
        self._limit = limit
        self._accept = accept
        self._scores: list[int] = []

    def offer(self, entry: Entry, own: int, judged: Judged, bound: int = EXACT_QUALIFIED) -> None:
        """Takes an entry where it matches and passes the filters."""
        if bound + own < self.floor or not self._accept(entry):
            return
        match = judged(entry)
        if match is None:
            return
        hit = Hit(entry, match.points + own, match.why)
        key = _key(entry)
        known = self.found.get(key)
        if known is None or _preferred(hit, known):
            self.found[key] = hit
        if known is None:
            heapq.heappush(self._scores, hit.score)
            if len(self._scores) > self._limit:
                heapq.heappop(self._scores)
            if len(self._scores) == self._limit:
                self.floor = self._scores[0]

    def hits(self) -> list[Hit]:
        """Returns the best hits, the best first."""
        return heapq.nsmallest(self._limit, self.found.values(), key=_order)


def always(match: Match) -> Judged:
    """Returns a judge that gives every entry the same match."""
    return lambda entry: match


def _key(entry: Entry) -> tuple[str, ...]:
    if entry.kind == "import":
        return "import", short(entry.name)
    return (entry.name, entry.kind, entry.file) if is_definition(entry) else tuple(map(str, entry))


def _preferred(hit: Hit, known: Hit) -> bool:
    """Says whether a hit is shown instead of another of the same key: of definitions the one that says what it does.

    Where none does, it is the last: an implementation stands below its overloads.
    """
    if hit.score != known.score or not is_definition(hit.entry):
        return _order(hit) < _order(known)
    return (hit.entry.summary != "", hit.entry) > (known.entry.summary != "", known.entry)


def _order(hit: Hit) -> tuple[int, int, Entry]:
    return -hit.score, len(hit.entry.name), hit.entry
