"""The searcher's tables kept beside the index, so that a command need not make them anew.

The file is only a saving of time: it counts only where it was made from the very bytes of the index that is there,
by this Python and this form of the tables; else it is left aside.
"""

import gc
import hashlib
import json
import marshal
import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

from kwindex.model import Entry
from kwindex.searcher import Searcher
from kwindex.store import INDEX, READY, read_index, replace

_FORM = f"kwindex tables 1 of Python {sys.version_info[0]}.{sys.version_info[1]}\n".encode()
_DIGEST = 32


class Lines(Sequence[Entry]):
    """The entries of an index file, each read only when it is asked for, all at once where all are."""

    def __init__(self, data: "bytes | mmap.mmap", starts: list[int]) -> None:
        self._data = data
        self._starts = starts
        self._all: list[Entry] = []

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> list[Entry]: ...
    def __getitem__(self, place: int | slice) -> Entry | list[Entry]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        line = self._data[self._starts[place] : self._starts[place + 1]]
        return Entry.from_dict(json.loads(line.rstrip(b",\n")))

    def __iter__(self) -> Iterator[Entry]:
        if not self._all:
            self._all = [Entry.from_dict(row) for row in json.loads(self._data[:])["entries"]]
        return iter(self._all)


def write_ready(folder: Path, entries: Sequence[Entry]) -> None:
    """Writes the tables of an index that was just written with these entries, one a line."""
    data = (folder / INDEX).read_bytes()
    starts = [data.find(b"\n") + 1]
    for _ in entries:
        starts.append(data.find(b"\n", starts[-1]) + 1)
    payload = marshal.dumps((starts, Searcher(entries).tables()), 2)  # 2: no references, which vary by run
    replace(folder / READY, _FORM + _digest(data, payload) + payload)


def open_searcher(folder: str | Path) -> Searcher:
    """Returns the searcher of the index in a folder, from its tables where they fit it.

    Raises:
        KwindexError: There is no index, or it is not one of kwindex.
    """
    try:
        data = _bytes(Path(folder) / INDEX)
        kept = (Path(folder) / READY).read_bytes()
    except (OSError, ValueError):
        return Searcher(read_index(folder))
    start = len(_FORM) + _DIGEST
    payload = memoryview(kept)[start:]
    if kept[:start] != _FORM + _digest(data, payload):
        return Searcher(read_index(folder))
    enabled = gc.isenabled()
    gc.disable()
    try:
        starts, tables = marshal.loads(payload)
    finally:
        if enabled:
            gc.enable()
    return Searcher.of(Lines(data, starts), tables)


def _bytes(path: Path) -> "bytes | mmap.mmap":
    with open(path, "rb") as file:
        if os.name != "posix":
            return file.read()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _digest(*parts: "bytes | memoryview | mmap.mmap") -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for part in parts:
        digest.update(part)
    return digest.digest()
