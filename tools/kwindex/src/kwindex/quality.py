"""How good a search is: golden queries with the entries they should find, and what the search makes of them."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kwindex.errors import KwindexError
from kwindex.rank import Hit

DEPTH = 10
"""Hits that are looked at: what stands further down is not found."""
NOTHING = "-"
"""Expected of a query that no entry answers."""


class Golden(NamedTuple):
    """A query of some stratum, and the entries of which it should find one: qualified names, or `kind@name`."""

    stratum: str
    half: str
    """"tuned" where the search may be fitted to it, "held" where it may not."""
    query: str
    expected: tuple[str, ...]

    def place(self, hits: Sequence[Hit]) -> int:
        """Returns the place of the first expected hit, from 1; 0 where there is none.

        A query that nothing answers is right, with place 1, where no hit is sure: at most near spellings.
        """
        if self.expected == (NOTHING,):
            return int(not any(hit.sure for hit in hits))
        for number, hit in enumerate(hits[:DEPTH], 1):
            if {hit.entry.name, f"{hit.entry.kind}@{hit.entry.name}"} & set(self.expected):
                return number
        return 0


class Result(NamedTuple):
    """A golden query, the place where the first expected hit stood (0: nowhere), and the names that stood there."""

    golden: Golden
    place: int
    found: tuple[str, ...]


class Figures(NamedTuple):
    """What is said of some results: how many, the mean of 1 / place, and the part whose first hit is right."""

    queries: int
    mrr: float
    success: float

    @classmethod
    def of(cls, results: Sequence[Result]) -> "Figures":
        """Returns the figures of results, of which there is at least one.

        Example:
            >>> golden = Golden("exact", "held", "f", ("m.f",))
            >>> Figures.of([Result(golden, 1, ()), Result(golden, 2, ()), Result(golden, 0, ())])
            Figures(queries=3, mrr=0.5, success=0.3333333333333333)
        """
        count = len(results)
        mrr = sum(1 / result.place for result in results if result.place) / count
        return cls(count, mrr, sum(result.place == 1 for result in results) / count)


def read_golden(path: str | Path) -> list[Golden]:
    """Returns the golden queries of a file: stratum, half, query and expected entries, tabs between them.

    Raises:
        KwindexError: There is no such file, or a line of it has another form.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except OSError as error:
        raise KwindexError(f"cannot read {path}: {error.strerror}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#") or not line.strip():
            continue
        parts = line.split("\t")
        if len(parts) != 4 or parts[1] not in ("tuned", "held"):
            raise KwindexError(f"{path}:{number}: not `stratum, tuned or held, query, expected` with tabs between")
        rows.append(Golden(parts[0], parts[1], parts[2], tuple(parts[3].split(" | "))))
    return rows


def digest(golden: Iterable[Golden]) -> str:
    """Returns what tells whether golden queries, or what they should find, were changed since.

    Example:
        >>> row = Golden("exact", "held", "f", ("m.f",))
        >>> digest([row]) == digest([row._replace(query="g")])
        False
    """
    return hashlib.sha256("\n".join(map(repr, golden)).encode()).hexdigest()


def evaluate(search: Callable[[str], Sequence[Hit]], golden: Iterable[Golden]) -> list[Result]:
    """Asks every query and says where what it should find stands."""
    results = []
    for row in golden:
        hits = search(row.query)
        results.append(Result(row, row.place(hits), tuple(hit.entry.name for hit in hits[:3])))
    return results


def strata(results: Iterable[Result]) -> dict[str, dict[str, Figures]]:
    """Returns the figures of each stratum and of all of them but `nothing`, each for both halves and for all."""
    groups: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        names = [result.golden.stratum] + ["all"] * (result.golden.expected != (NOTHING,))
        for name in names:
            for half in (result.golden.half, "both"):
                groups.setdefault(name, {}).setdefault(half, []).append(result)
    order = sorted(groups, key=lambda name: (name == "all", list(groups).index(name)))
    return {name: {half: Figures.of(some) for half, some in groups[name].items()} for name in order}


def as_dict(results: Sequence[Result]) -> dict[str, Any]:
    """Returns the figures and the failed queries as plain values, for JSON and for pages."""
    failed = [
        {**result.golden._asdict(), "place": result.place, "found": list(result.found)}
        for result in results
        if result.place != 1
    ]
    table = {
        name: {half: figures._asdict() for half, figures in halves.items()} for name, halves in strata(results).items()
    }
    return {"strata": table, "failed": failed}


def table(results: Sequence[Result]) -> str:
    """Returns the figures and the failed queries as text."""
    lines = [f"{'stratum':16} {'queries':>7}   {'tuned half':>18}   {'held-out half':>18}"]
    lines += [f"{'':24}   {'MRR@10':>9} {'first':>8}   {'MRR@10':>9} {'first':>8}"]
    for name, halves in strata(results).items():
        cells = [
            f"{halves[half].mrr:9.3f} {halves[half].success:8.3f}" if half in halves else " " * 18
            for half in ("tuned", "held")
        ]
        lines.append(f"{name:16} {halves['both'].queries:7}   {'   '.join(cells)}")
    for result in results:
        if result.place != 1:
            row = result.golden
            stands = f"place {result.place}" if result.place else "not found"
            lines.append(f"{row.stratum} ({row.half}): {row.query!r}: {stands}; first {', '.join(result.found) or '-'}")
    return "\n".join(lines)
