"""Reading source files: what a file's contents are known by, and its piece of the index; one file, or many at once."""

import gc
import hashlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
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
_CHUNK_BYTES = 150_000
_VERSION = f"kwindex 11, Python {sys.version_info[0]}.{sys.version_info[1]}"
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


def readings(files: Sequence[SourceFile], jobs: int, progress: Progress) -> list[Reading]:
    """Returns what each file gives, in order; `progress` hears of bytes read and bytes in all."""
    total = sum(source.size for source in files)
    done = 0

    def note(several: Sequence[SourceFile]) -> None:
        nonlocal done
        done += sum(source.size for source in several)
        progress(done, total)

    if jobs > 1 and total >= PARALLEL_BYTES:
        return _spread(files, jobs, note)
    made = []
    for source in files:
        made.append(read(source))
        note([source])
    return made


def _spread(files: Sequence[SourceFile], jobs: int, note: Callable[[Sequence[SourceFile]], None]) -> list[Reading]:
    """Reads files in several processes; this one reads too, from the last chunk on, the others from the first."""
    from concurrent.futures import ProcessPoolExecutor  # a search never needs these
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    chunks = _chunks([source.size for source in files])
    pool = ProcessPoolExecutor(jobs - 1, mp_context=get_context("spawn"), initializer=_be_a_reader)
    made: dict[int, Reading] = {}

    def take(chunk: list[int], several: list[Reading]) -> None:
        made.update(zip(chunk, several, strict=True))
        note([files[number] for number in chunk])

    try:
        tasks = [(chunk, pool.submit(read_all, [files[number] for number in chunk])) for chunk in chunks]
        theirs = deque(tasks)
        while tasks:
            chunk, future = tasks.pop()
            if not future.cancel():  # another process has begun it, and so all before it
                break
            theirs.pop()
            take(chunk, read_all([files[number] for number in chunk]))
            while theirs and theirs[0][1].done():
                chunk, future = theirs.popleft()
                take(chunk, future.result())
        for chunk, future in theirs:
            take(chunk, future.result())
    except BrokenProcessPool:
        raise KwindexError("a process that read sources ended early; --jobs 1 reads in this one") from None
    finally:
        pool.shutdown(cancel_futures=True)
    return [made[number] for number in range(len(files))]


def _be_a_reader() -> None:
    """Leaves Ctrl-C to the process that started this one, which then ends both without a trace on the screen."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # it makes no cycles, and ends soon


def _chunks(sizes: Sequence[int]) -> list[list[int]]:
    """Returns the numbers of files in chunks: the largest files at both ends, where reading begins.

    So all processes end with small chunks, at nearly the same time.

    Example:
        >>> _chunks([_CHUNK_BYTES, 1, _CHUNK_BYTES + 1, 2, 3 * _CHUNK_BYTES])
        [[4], [0], [3, 1], [2]]
    """
    chunks: list[list[int]] = []
    size = _CHUNK_BYTES
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        if size >= _CHUNK_BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(number)
        size += sizes[number]
    return chunks[::2] + chunks[1::2][::-1]


def processors() -> int:
    """Returns how many processors this process may use.

    Example:
        >>> processors() >= 1
        True
    """
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1
