"""Reading source files: what a file's contents are known by, and its piece of the index; one file, or many at once."""

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from kwindex.discover import SourceFile
from kwindex.errors import KwindexError, SourceError
from kwindex.extract import extract
from kwindex.model import Problem
from kwindex.pieces import make
from kwindex.syntax import collector_paused
from kwindex.tables import Piece

PARALLEL_BYTES = 3_000_000
"""Sources below this size are read in one process: starting more would take longer."""
_CHUNK_BYTES = 400_000
_VERSION = f"kwindex 4, Python {sys.version_info[0]}.{sys.version_info[1]}"
"""What a piece depends on besides its source; change the number with every change of what is extracted."""

Progress = Callable[[int, int], None]


class Reading(NamedTuple):
    """What reading a file gave: what its contents are known by, and its piece."""

    digest: bytes
    piece: Piece


def read(source: SourceFile) -> Reading:
    """Returns what one file gives; depends on nothing but that file."""
    try:
        with open(source.path, "rb", buffering=0) as file:
            data = file.read()
    except OSError as error:
        why = error.strerror or "cannot be read"
        return Reading(digest(source, why.encode()), make([], Problem(source.file, 0, why)))
    try:
        return Reading(digest(source, data), make(extract(data, source.file, source.module)))
    except SourceError as error:
        return Reading(digest(source, data), make([], Problem(source.file, error.line, error.why)))


def digest(source: SourceFile, data: bytes) -> bytes:
    """Returns what a file with these bytes is known by: all that its piece depends on."""
    made = hashlib.blake2b(f"{_VERSION}\0{source.file}\0{source.module}\0".encode(), digest_size=16)
    made.update(data)
    return made.digest()


def digest_of(source: SourceFile) -> bytes:
    """Returns what a file is known by, b"" for one that cannot be read."""
    try:
        with open(source.path, "rb", buffering=0) as file:
            return digest(source, file.read())
    except OSError:
        return b""


def read_all(sources: Sequence[SourceFile]) -> list[Reading]:
    """Reads several files, the collector of reference cycles paused: trees hold none, and it costs most."""
    with collector_paused():
        return [read(source) for source in sources]


def readings(files: Sequence[SourceFile], jobs: int, progress: Progress) -> Iterator[Reading]:
    """Yields what each file gives, in order; `progress` hears of bytes read and bytes in all."""
    total = sum(source.size for source in files)
    done = 0
    if jobs < 2 or total < PARALLEL_BYTES:
        for source in files:
            yield read(source)
            done += source.size
            progress(done, total)
        return
    chunks = _chunks(files)
    for chunk, several in zip(chunks, _spread(chunks, jobs), strict=True):
        yield from several
        done += sum(source.size for source in chunk)
        progress(done, total)


def _spread(chunks: list[list[SourceFile]], jobs: int) -> Iterator[list[Reading]]:
    """Reads chunks in several processes."""
    from concurrent.futures import ProcessPoolExecutor  # a search never needs these
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_leave_interrupts)
    try:
        yield from pool.map(read_all, chunks)
    except BrokenProcessPool:
        raise KwindexError("a process that read sources ended early; --jobs 1 reads in this one") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts() -> None:
    """Leaves Ctrl-C to the process that started this one, which then ends both without a trace on the screen."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _chunks(files: Sequence[SourceFile]) -> list[list[SourceFile]]:
    chunks: list[list[SourceFile]] = [[]]
    size = 0
    for source in files:
        if size > _CHUNK_BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(source)
        size += source.size
    return chunks


def processors() -> int:
    """Returns how many processors this process may use.

    Example:
        >>> processors() >= 1
        True
    """
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1
