"""Building an index: discover, extract each file on its own, link, write."""

import contextlib
import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from kwindex.discover import SourceFile, discover
from kwindex.errors import KwindexError, SourceError
from kwindex.extract import extract
from kwindex.link import link
from kwindex.model import FileRecord, Problem
from kwindex.ready import write_ready
from kwindex.store import check_out, write_index

PARALLEL_BYTES = 4_000_000
"""Sources below this size are read in one process: starting more would take longer."""
_CHUNK_BYTES = 500_000

Progress = Callable[[int, int], None]


class Built(NamedTuple):
    """What a build made: the index, how much is in it, and what could not be read."""

    path: Path
    files: int
    entries: int
    problems: list[Problem]


def build(sources: Sequence[str | Path], out: str | Path, *, jobs: int = 1, progress: Progress | None = None) -> Built:
    """Writes the index of all Python files at or under the sources.

    Args:
        sources: Files and folders.
        out: The folder for the index; it may not be inside a source.
        jobs: How many processes may read files; more than one only where there is much to read.
        progress: Called with bytes read so far and bytes in all.

    Returns:
        What was made; files that could not be read are in `problems`, all others are indexed.

    Raises:
        KwindexError: A source does not exist or none holds a Python file, or the output has no good place.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source = Path(folder, "m.py")
        ...     _ = source.write_text("def f(): ...")
        ...     built = build([source], Path(folder, "out"))
        >>> built.files, built.entries
        (1, 2)
    """
    check_out(Path(out), sources)
    found = discover(sources)
    if not found.files and not found.problems:
        raise KwindexError(f"no Python file in {', '.join(map(str, sources))}")
    records: list[FileRecord] = []
    problems = list(found.problems)
    with _collector_paused():
        for outcome in _outcomes(found.files, jobs, progress or (lambda done, total: None)):
            if isinstance(outcome, Problem):
                problems.append(outcome)
            else:
                records.append(outcome)
        entries = link(records)
        path = write_index(Path(out), entries)
        write_ready(Path(out), entries)
    return Built(path, len(records), len(entries), sorted(problems))


def read(source: SourceFile) -> FileRecord | Problem:
    """Returns the record of one file, or why there is none; depends on nothing but that file."""
    try:
        data = Path(source.path).read_bytes()
    except OSError as error:
        return Problem(source.file, 0, error.strerror or "cannot be read")
    try:
        return extract(data, source.file, source.module)
    except SourceError as error:
        return Problem(source.file, error.line, error.why)


def read_all(sources: list[SourceFile]) -> list[FileRecord | Problem]:
    """Reads several files, the collector of reference cycles paused: trees hold none, and it costs most."""
    with _collector_paused():
        return [read(source) for source in sources]


def _outcomes(files: list[SourceFile], jobs: int, progress: Progress) -> Iterator[FileRecord | Problem]:
    total = sum(source.size for source in files)
    done = 0
    if jobs < 2 or total < PARALLEL_BYTES:
        for source in files:
            yield read(source)
            done += source.size
            progress(done, total)
        return
    chunks = _chunks(files)
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_leave_interrupts)
    try:
        for chunk, outcomes in zip(chunks, pool.map(read_all, chunks), strict=True):
            yield from outcomes
            done += sum(source.size for source in chunk)
            progress(done, total)
    except BrokenProcessPool:
        raise KwindexError("a process that read sources ended early; --jobs 1 reads in this one") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts() -> None:
    """Leaves Ctrl-C to the process that started this one, which then ends both without a trace on the screen."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _chunks(files: list[SourceFile]) -> list[list[SourceFile]]:
    chunks: list[list[SourceFile]] = [[]]
    size = 0
    for source in files:
        if size > _CHUNK_BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(source)
        size += source.size
    return chunks


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def processors() -> int:
    """Returns how many processors this process may use.

    Example:
        >>> processors() >= 1
        True
    """
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1
