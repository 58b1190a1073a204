"""From the pieces of all files to the tables of an index, what did not change taken over from the index before."""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from kwindex.nametable import NameTable
from kwindex.ready import contents
from kwindex.store import INDEX, READY, head, tail
from kwindex.tables import ROW_END, SECTIONS, WIDTH, Piece, Tables

MOST_PATCHED = 12
"""Changed files up to which the table of names is mended; with more, making it anew is no slower."""
_SHORTS = SECTIONS.index("shorts")

Buffer = bytes | memoryview
Source = Piece | int
"""A file's piece, or its number in the index before."""


class Run(NamedTuple):
    """Neighbours in the index before: the number of the first, and of the one after the last."""

    first: int
    end: int


class Part(NamedTuple):
    """A file of the index to be: the path its entries carry, what its bytes and names are known by, its piece."""

    file: str
    digest: bytes
    source: Source


def identity(parts: Sequence[Part]) -> str:
    """Returns what an index is known by: the same for the same files with the same contents.

    Example:
        >>> identity([Part("m.py", b"x", 0)]) == identity([Part("m.py", b"x", 7)])
        True
    """
    return hashlib.blake2b(b"".join(part.digest for part in parts), digest_size=16).hexdigest()


def assembled(parts: Sequence[Part], before: Tables | None) -> Iterator[tuple[str, list[Buffer]]]:
    """Yields the bytes of `index.json` and then of `search.bin`, each as a list of parts.

    Args:
        parts: The files, in the order of their paths.
        before: The index before, where a part's source is its number in it.
    """
    runs = _runs(parts)
    known_as = identity(parts)
    rows = _section("rows", runs, before)
    yield INDEX, _index(known_as, rows)
    sections: dict[str, list[Buffer]] = {}
    for name in SECTIONS[1:]:
        sections[name] = _section(name, runs, before)
    sections["extents"] = [_extents(runs, before)]
    sections["files"] = ["".join(f"{part.file}\n" for part in parts).encode()]
    sections["digests"] = [part.digest for part in parts]
    sections.update((name, [value]) for name, value in _names(parts, before)._asdict().items())
    yield READY, [contents(known_as, sum(map(len, rows)), sections), *chain(*sections.values())]


def _section(name: str, runs: Sequence[Piece | Run], before: Tables | None) -> list[Buffer]:
    number = SECTIONS.index(name)
    taken = (_taken(before, name, run) if isinstance(run, Run) else [run[number]] for run in runs)
    return list(chain.from_iterable(taken))


def _index(known_as: str, rows: list[Buffer]) -> list[Buffer]:
    rows = [row for row in rows if len(row)]
    if not rows:
        return [head(known_as), tail(True)]
    return [head(known_as), b"\n", *rows[:-1], memoryview(rows[-1])[: -len(ROW_END)], tail(False)]


def _runs(parts: Sequence[Part]) -> list[Piece | Run]:
    """Returns the pieces in order, neighbours in the index before as one run."""
    runs: list[Piece | Run] = []
    first = end = -1
    for part in parts:
        source = part.source
        if source == end:
            end += 1
            continue
        if first < end:
            runs.append(Run(first, end))
        if isinstance(source, int):
            first, end = source, source + 1
        else:
            runs.append(source)
            first = end = -1
    return [*runs, Run(first, end)] if first < end else runs


def _taken(before: Tables | None, name: str, run: Run) -> list[Buffer]:
    assert before is not None, "a part that is taken over is of an index"
    return before.span(name, run.first, run.end)


def _extents(runs: Sequence[Piece | Run], before: Tables | None) -> bytes:
    """Returns the length of each file's part of each section."""
    known = before.extents if before is not None else array("I")
    extents = array("I")
    for run in runs:
        extents.extend(known[run.first * WIDTH : run.end * WIDTH] if isinstance(run, Run) else map(len, run))
    return extents.tobytes()


def _names(parts: Sequence[Part], before: Tables | None) -> NameTable:
    """Returns the table of all names: mended where the same files are there and few of them changed."""
    changed = [(number, part.source) for number, part in enumerate(parts) if not isinstance(part.source, int)]
    same_files = before is not None and before.files == [part.file for part in parts]
    if before is not None and same_files and len(changed) <= MOST_PATCHED:
        table = before.names
        for number, piece in changed:
            shorts = b"".join(before.span("shorts", number, number + 1))
            table = table.patched(number, shorts, piece[_SHORTS])
        return table
    return NameTable.build(
        b"".join(_taken(before, "shorts", Run(part.source, part.source + 1)))
        if isinstance(part.source, int)
        else part.source[_SHORTS]
        for part in parts
    )
