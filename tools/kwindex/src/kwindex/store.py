"""The index on disk: `index.json`, and beside it the list of what kwindex wrote there."""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
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


def write(out: "Path", files: Mapping[str, Iterable[bytes | memoryview] | None]) -> None:
    """Writes files of an index, each given as parts, None for one that stays; and the list of what kwindex wrote there.

    Raises:
        KwindexError: The folder cannot be made or written.
    """
    import threading  # a search needs none

    marker = json.dumps({"generated": list(files), "by": "kwindex"}) + "\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        replace(out / MARKER, [marker.encode()])
    except OSError as error:
        raise KwindexError(f"cannot write {error.filename or out}: {error.strerror}") from None
    failed: list[OSError] = []
    writers = [
        threading.Thread(target=_replace_or_note, args=(out / name, parts, failed))
        for name, parts in files.items()
        if parts is not None
    ]
    for writer in writers:  # at once: half of the time of an update is writing
        writer.start()
    for writer in writers:
        writer.join()
    if failed:
        raise KwindexError(f"cannot write {failed[0].filename or out}: {failed[0].strerror}")


def _replace_or_note(path: "Path", parts: Iterable[bytes | memoryview], failed: list[OSError]) -> None:
    try:
        replace(path, parts)
    except OSError as error:
        failed.append(error)


def replace(path: "Path", parts: Iterable[bytes | memoryview]) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a part.

    Its room is reserved first where that can be done: else ext4 sends a file that replaces another to the disk at once.
    """
    parts = list(parts)
    size = sum(map(len, parts))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            if size and hasattr(os, "posix_fallocate"):
                with contextlib.suppress(OSError):  # where there is no room, writing says so
                    os.posix_fallocate(file.fileno(), 0, size)
            file.writelines(parts)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
