"""The index on disk: `index.json`, and beside it the list of what kwindex wrote there."""

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kwindex.errors import KwindexError
from kwindex.link import link
from kwindex.model import Entry

if TYPE_CHECKING:  # a search starts sooner without it
    from pathlib import Path

INDEX = "index.json"
READY = "search.bin"
"""The tables of the search."""
SOURCES = "sources.json"
"""Where on this machine each file of the index was read; the only file that is not the same everywhere."""
MARKER = ".kwindex.json"
"""Lists the files of a folder that kwindex wrote; they are never read as sources, and only they are replaced."""


def generated_files(folder: "str | Path") -> frozenset[str]:
    """Returns the names of the files in a folder that kwindex wrote.

    Example:
        >>> generated_files("/no/such/folder")
        frozenset()
    """
    try:
        with open(os.path.join(folder, MARKER), encoding="utf-8") as file:
            names = json.load(file)["generated"]
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
    return frozenset([MARKER, *(name for name in names if isinstance(name, str))])


def check_out(out: "Path", sources: "Sequence[str | Path]") -> None:
    """Refuses a place for the output that would mix it with sources or with someone else's files.

    Raises:
        KwindexError: The folder is a source or inside one, is a file, or holds a file of an index's name that
            is not kwindex's.
    """
    from pathlib import Path

    place = out.resolve()
    for source in sources:
        root = Path(source).resolve()
        if place == root or root in place.parents:
            raise KwindexError(
                f"--out {out} is inside the source {source}: the index would become its own input; "
                "choose a folder outside, such as ../kwindex-out"
            )
    if place.exists() and not place.is_dir():
        raise KwindexError(f"--out {out} is a file; give a folder")
    ours = generated_files(place)
    for name in (INDEX, READY, SOURCES):
        if name not in ours and os.path.lexists(place / name):
            raise not_ours(out / name)


def not_ours(path: "Path") -> KwindexError:
    """Returns the error for a file that would be replaced and is someone else's.

    Example:
        >>> from pathlib import Path
        >>> str(not_ours(Path("out/tags")))
        'out/tags was not written by kwindex; choose another --out or remove it'
    """
    return KwindexError(f"{path} was not written by kwindex; choose another --out or remove it")


def head(identity: str) -> bytes:
    r"""Returns what stands in `index.json` before the rows.

    Example:
        >>> head("ab") + tail(True)
        b'{"id": "ab", "entries": []}\n'
    """
    return f'{{"id": "{identity}", "entries": ['.encode()


def tail(empty: bool) -> bytes:
    """Returns what stands in `index.json` after the rows."""
    return b"]}\n" if empty else b"\n]}\n"


def write(out: "Path", files: Iterable[tuple[str, Sequence[bytes | memoryview]]]) -> None:
    """Writes files of an index, each given as parts, and the list of what kwindex wrote there.

    A file is written while the next one is still being made; all replace those before when the last one is there.

    Raises:
        KwindexError: The folder cannot be made or written.
    """
    import threading  # a search needs none

    marker = json.dumps({"generated": [INDEX, READY, SOURCES], "by": "kwindex"}) + "\n"
    paths: list[Path] = []
    writers: list[threading.Thread] = []
    failed: list[OSError] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        replace(out / MARKER, [marker.encode()])
        for name, parts in files:
            paths.append(out / name)
            writers.append(threading.Thread(target=_write_or_note, args=(paths[-1], parts, failed)))
            writers[-1].start()
        for writer in writers:
            writer.join()
        if failed:
            raise failed[0]
        for path in paths:
            os.replace(_partial(path), path)
    except OSError as error:
        raise KwindexError(f"cannot write {error.filename or out}: {error.strerror}") from None
    finally:
        for writer in writers:
            writer.join()
        for path in paths:
            _partial(path).unlink(missing_ok=True)


def _write_or_note(path: "Path", parts: Sequence[bytes | memoryview], failed: list[OSError]) -> None:
    try:
        _write_partial(path, parts)
    except OSError as error:
        failed.append(error)


def replace(path: "Path", parts: Sequence[bytes | memoryview]) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a part."""
    try:
        _write_partial(path, parts)
        os.replace(_partial(path), path)
    finally:
        _partial(path).unlink(missing_ok=True)


def _partial(path: "Path") -> "Path":
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _write_partial(path: "Path", parts: Sequence[bytes | memoryview]) -> None:
    """Writes what is to replace a file beside it.

    Its room is reserved first where that can be done: else ext4 sends a file that replaces another to the disk at once.
    """
    size = sum(map(len, parts))
    with open(_partial(path), "wb") as file:
        if size and hasattr(os, "posix_fallocate"):
            with contextlib.suppress(OSError):  # where there is no room, writing says so
                os.posix_fallocate(file.fileno(), 0, size)
        file.writelines(parts)


def read_index(folder: "str | Path") -> list[Entry]:
    """Returns the entries of the index in a folder, imports with the summaries of what they bring.

    Raises:
        KwindexError: There is none, or it is not an index of kwindex.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, INDEX).write_text('{"entries": []}')
        ...     read_index(folder)
        []
    """
    path = os.path.join(folder, INDEX)
    try:
        with open(path, "rb") as file:
            rows = json.load(file)["entries"]
    except FileNotFoundError:
        raise KwindexError(f"no index at {path}; run `kwindex build SRC... --out {folder}` first") from None
    except OSError as error:
        raise KwindexError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise KwindexError(f"{path} is not an index of kwindex; build it again") from None
    if not isinstance(rows, list):
        raise KwindexError(f"{path} is not an index of kwindex; build it again")
    return link([Entry.from_dict(row) for row in rows])


def paths_of(folder: "str | Path") -> dict[str, str]:
    """Returns where on this machine each file of an index was read, nothing where that is not known.

    Example:
        >>> paths_of("/no/such/folder")
        {}
    """
    try:
        with open(os.path.join(folder, SOURCES), "rb") as file:
            rows = json.load(file)["files"]
        return {file: path for path, file, _ in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
