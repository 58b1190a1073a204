"""The best hits of a search so far, and the score below which no other can be among them."""

import heapq
from collections.abc import Callable

from kwindex.model import Entry
from kwindex.rank import EXACT_QUALIFIED, Hit, Match
from kwindex.spelling import short

Accept = Callable[[Entry], bool]
Judged = Callable[[Entry], Match | None]


class Best:
    """Takes entries that may match and keeps the best; of imports that bind one name, the best alone."""

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

    def hits(self) -> list[Hit]:
        """Returns the best hits, the best first."""
        return heapq.nsmallest(self._limit, self.found.values(), key=_order)


def always(match: Match) -> Judged:
    """Returns a judge that gives every entry the same match."""
    return lambda entry: match


def _order(hit: Hit) -> tuple[int, int, Entry]:
    return -hit.score, len(hit.entry.name), hit.entry
