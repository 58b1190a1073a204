"""Building an index: discover, read each file on its own, put the pieces together, write.

What did not change since the index that is there is taken over; the bytes are the same as of a build from nothing.
"""

import json
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from kwindex.assemble import Part, Source, assembled, identity
from kwindex.discover import Found, SourceFile, discover
from kwindex.errors import KwindexError
from kwindex.linking import linked
from kwindex.model import Problem
from kwindex.reading import digest_of, read
from kwindex.ready import Ready, open_ready
from kwindex.sharing import Progress, readings
from kwindex.store import INDEX, SOURCES, check_out, write
from kwindex.syntax import collector_paused
from kwindex.tables import Tables

DIGEST = 16


class Built(NamedTuple):
    """What a build made: the index, how much is in it, how many files were read anew, and what could not be read."""

    path: Path
    files: int
    entries: int
    read: int
    problems: list[Problem]


def build(sources: Sequence[str | Path], out: str | Path, *, jobs: int = 1, progress: Progress | None = None) -> Built:
    """Writes the index of all Python files at or under the sources.

    Files whose contents the index that is there knows are not read again.

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
        ...     again = build([source], Path(folder, "out"))
        >>> built.files, built.entries, built.read, again.read
        (1, 2, 1, 0)
    """
    check_out(Path(out), sources)
    found = discover(sources)
    if not found.files and not found.problems:
        raise KwindexError(f"no Python file in {', '.join(map(str, sources))}")
    with collector_paused():
        before = open_ready(out)
        parts = _parts(found.files, before, jobs, progress or (lambda done, total: None))
        parts = linked(parts, before.tables if before is not None else None)
        same_places = before is not None and _sources(Path(out)) == _placed(found)
        return _written(Path(out), found, parts, before, same_places)


def update(out: str | Path, files: Sequence[str | Path]) -> Built:
    r"""Reads some files of an index anew and writes the index: the same bytes as `build` gives, sooner.

    Args:
        out: The folder of the index.
        files: Files of the index that have changed.

    Raises:
        KwindexError: There is no index, or a file is not one of its files.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source, out = Path(folder, "m.py"), Path(folder, "out")
        ...     _ = source.write_text("def f(): ...")
        ...     before = build([source], out).entries
        ...     _ = source.write_text("def f(): ...\ndef g(): ...")
        ...     update(out, [source]).entries - before
        1
    """
    before = open_ready(out, whole=True)
    found = _sources(Path(out))
    if before is None or len(before.tables.files) != len(found.files):
        raise KwindexError(f"no index at {out} that can be updated; run `kwindex build SRC... --out {out}` first")
    known = {source.path: number for number, source in enumerate(found.files)}
    numbers = set()
    for file in files:
        path = os.path.abspath(file)
        if path not in known or not os.path.lexists(path):
            what = "is gone" if path in known else "is not in the index"
            raise KwindexError(f"{file} {what}; run `kwindex build SRC... --out {out}`")
        numbers.add(known[path])
    with collector_paused():
        digests = _digests(before)
        parts = [Part(source.file, digests[n], n) for n, source in enumerate(found.files)]
        for number in numbers:
            source = found.files[number]
            if digest_of(source) != digests[number]:
                reading = read(source)
                parts[number] = Part(source.file, reading.digest, reading.piece)
        return _written(Path(out), found, linked(parts, before.tables), before, True)


def _parts(files: list[SourceFile], before: Ready | None, jobs: int, progress: Progress) -> list[Part]:
    """Returns the parts of the index to be: of the index before where the contents are known, else read."""
    if before is None:
        return [
            Part(source.file, *reading) for source, reading in zip(files, readings(files, jobs, progress), strict=True)
        ]
    known = {digest: number for number, digest in enumerate(_digests(before))}
    digests = [digest_of(source) for source in files]
    sources: list[Source | None] = [known.get(digest) for digest in digests]
    fresh = [number for number, source in enumerate(sources) if source is None]
    for number, reading in zip(fresh, readings([files[n] for n in fresh], jobs, progress), strict=True):
        digests[number], sources[number] = reading
    return [
        Part(file.file, digest, source)
        for file, digest, source in zip(files, digests, sources, strict=True)
        if source is not None
    ]


def _digests(ready: Ready) -> list[bytes]:
    data = ready.tables.section("digests")
    return [data[start : start + DIGEST] for start in range(0, len(data), DIGEST)]


def _written(out: Path, found: Found, parts: list[Part], before: Ready | None, same_places: bool) -> Built:
    """Writes the index where it is another than before; `same_places` says that its files are where they were."""
    fresh = sum(not isinstance(part.source, int) for part in parts)
    if before is None or before.id != identity(parts) or not same_places:
        files = assembled(parts, before.tables if before is not None else None)
        write(out, files if same_places else chain([(SOURCES, [_listed(found)])], files))
        before = open_ready(out)
    if before is None:
        raise KwindexError(f"the index in {out} was written by another process at the same time; build it again")
    tables = before.tables
    problems = sorted([*found.problems, *_problems(tables)])
    return Built(out / INDEX, len(parts) - len(problems) + len(found.problems), len(tables), fresh, problems)


def _listed(found: Found) -> bytes:
    """Returns what is written of where the files were found, as `_sources` reads it."""
    rows = [source[:3] for source in found.files]
    return json.dumps({"files": rows, "problems": [problem._asdict() for problem in found.problems]}).encode()


def _placed(found: Found) -> Found:
    """Returns what was found, without the sizes."""
    return Found([source._replace(size=0) for source in found.files], found.problems)


def _problems(tables: Tables) -> list[Problem]:
    lines = tables.section("problems").decode().splitlines()
    return [Problem(**json.loads(line)) for line in lines]


def _sources(out: Path) -> Found:
    """Returns the files that an index was made from, none where that is not known."""
    try:
        listed = json.loads((out / SOURCES).read_bytes())
        problems = [Problem(**problem) for problem in listed["problems"]]
        return Found([SourceFile(path, file, module, 0) for path, file, module in listed["files"]], problems)
    except (OSError, ValueError, KeyError, TypeError):
        return Found([], [])
