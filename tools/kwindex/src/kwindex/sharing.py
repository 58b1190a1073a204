"""Reading many source files: the work is shared with other processes where there is much of it.

Files are read in chunks. The numbers of all chunks stand in one pipe, from which each process takes the next whenever
it is done with one, so all are done at nearly the same time. What another process made goes to a file, which is read in
the end: into a pipe it could write only while this process, busy with its own chunks, listens.
"""

import gc
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from kwindex.discover import SourceFile
from kwindex.errors import KwindexError
from kwindex.reading import Reading, read

PARALLEL_BYTES = 3_000_000
"""Sources below this size are read in one process: starting more would take longer."""
_LEAST_CHUNK = 30_000
_NUMBER_BYTES = 4
_ROOM_KEPT = 31 << 20
_START = "import sys; sys.path.append(sys.argv[1]); from kwindex.sharing import work; work(*sys.argv[2:])"

Progress = Callable[[int, int], None]


def readings(files: Sequence[SourceFile], jobs: int, progress: Progress) -> list[Reading]:
    """Returns what each file gives, in order; `progress` hears of bytes read and bytes in all."""
    total = sum(source.size for source in files)
    shared = jobs > 1 and total >= PARALLEL_BYTES
    chunks = _chunks([source.size for source in files], jobs) if shared else [[n] for n in range(len(files))]
    tasks = [[files[number] for number in chunk] for chunk in chunks]
    done = 0
    made: dict[int, Reading] = {}
    for task, several in _shared(tasks, jobs) if shared else enumerate(map(_read, tasks)):
        made.update(zip(chunks[task], several, strict=True))
        done += sum(source.size for source in tasks[task])
        progress(done, total)
    return [made[number] for number in range(len(files))]


def _read(chunk: Sequence[SourceFile]) -> list[Reading]:
    return [read(source) for source in chunk]


def _shared(chunks: Sequence[Sequence[SourceFile]], jobs: int) -> Iterator[tuple[int, list[Reading]]]:
    """Yields what chunks gave, with their numbers: what this process reads, and then what the others did."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kwindex-")))
        task, results = folder / "chunks", [folder / str(number) for number in range(1, jobs)]
        task.write_bytes(pickle.dumps(chunks))
        numbers, end = os.pipe()
        stack.callback(os.close, numbers)
        pipe = stack.enter_context(open(end, "wb"))
        # the standard library and kwindex alone, and nothing from the folder at hand: it may be a source
        python = [sys.executable, "-ISB", f"-Xutf8={sys.flags.utf8_mode}", "-c", _START, str(Path(__file__).parents[1])]
        workers = []
        for result in results:
            worker = subprocess.Popen([*python, str(task), str(result)], stdin=numbers, stdout=subprocess.DEVNULL)
            stack.callback(worker.wait)
            stack.callback(worker.kill)  # before it is waited for; one that is done does not mind
            workers.append(worker)
        with pipe:  # which then ends
            pipe.writelines(number.to_bytes(_NUMBER_BYTES, "little") for number in range(len(chunks)))
        _keep_memory()
        yield from ((number, _read(chunks[number])) for number in _taken(numbers))
        for worker, result in zip(workers, results, strict=True):
            if worker.wait():
                raise KwindexError("a process that read sources ended early; --jobs 1 reads in this one")
            yield from _results(result)


def work(task: str, result: str) -> None:
    """Reads chunks of a task, whose numbers come from stdin, in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends both, without a trace
    gc.disable()  # it makes no cycles, and ends soon
    _keep_memory()
    with open(task, "rb") as file:
        chunks = pickle.load(file)
    with open(result, "wb", buffering=1 << 20) as file:
        for number in _taken(0):
            pickle.dump((number, _read(chunks[number])), file, pickle.HIGHEST_PROTOCOL)


def _taken(pipe: int) -> Iterator[int]:
    """Yields the numbers that this process takes from a pipe."""
    while number := os.read(pipe, _NUMBER_BYTES):
        yield int.from_bytes(number, "little")


def _results(path: Path) -> Iterator[tuple[int, list[Reading]]]:
    with path.open("rb") as file:
        while True:
            try:
                yield pickle.load(file)
            except EOFError:
                return


def _keep_memory() -> None:
    """Has the C library keep the memory that one file's tree gives back for the next: cleared pages cost time.

    glibc keeps up to twice the largest block that was ever given back; others do not mind.
    """
    bytes(_ROOM_KEPT)


def _chunks(sizes: Sequence[int], jobs: int) -> list[list[int]]:
    """Returns the numbers of files in chunks, the largest files first; the chunks become smaller towards the end.

    Example:
        >>> _chunks([50_000, 1, 60_000, 2, 300_000], 2)
        [[4], [2], [0], [3, 1]]
    """
    chunks: list[list[int]] = []
    left, size, most = sum(sizes), 0, 0
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        if size >= most:
            chunks.append([])
            size, most = 0, max(_LEAST_CHUNK, left // (4 * jobs))
        chunks[-1].append(number)
        size += sizes[number]
        left -= sizes[number]
    return chunks


def processors() -> int:
    """Returns how many processors this process may use.

    Example:
        >>> processors() >= 1
        True
    """
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1
