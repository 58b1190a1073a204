"""The index on disk: `index.json`, and beside it the list of what kwindex wrote there."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from kwindex.errors import KwindexError
from kwindex.model import Entry

INDEX = "index.json"
READY = "search.bin"
"""The tables of the search, made from the index."""
MARKER = ".kwindex.json"
"""Lists the files of a folder that kwindex wrote; they are never read as sources, and only they are replaced."""


def generated_files(folder: str | Path) -> frozenset[str]:
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


def check_out(out: Path, sources: Sequence[str | Path]) -> None:
    """Refuses a place for the output that would mix it with sources or with someone else's files.

    Raises:
        KwindexError: The folder is a source or inside one, is a file, or holds an index of another tool.
    """
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
    if (place / INDEX).exists() and INDEX not in generated_files(place):
        raise KwindexError(f"{out / INDEX} was not written by kwindex; choose another --out or remove it")


def write_index(out: Path, entries: Iterable[Entry]) -> Path:
    """Writes the entries in the order given, one a line, and returns the path of the file.

    Raises:
        KwindexError: The folder cannot be made or written.
    """
    encode = json.JSONEncoder(ensure_ascii=False).encode
    lines = ",\n".join(encode(entry.as_dict()) for entry in entries)
    try:
        out.mkdir(parents=True, exist_ok=True)
        replace(out / MARKER, (encode({"generated": [INDEX, READY], "by": "kwindex"}) + "\n").encode())
        text = f'{{"entries": [\n{lines}\n]}}\n' if lines else '{"entries": []}\n'
        replace(out / INDEX, text.encode())
    except OSError as error:
        raise KwindexError(f"cannot write {error.filename or out}: {error.strerror}") from None
    return out / INDEX


def replace(path: Path, data: bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_index(folder: str | Path) -> list[Entry]:
    """Returns the entries of the index in a folder.

    Raises:
        KwindexError: There is none, or it is not an index of kwindex.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, INDEX).write_text('{"entries": []}')
        ...     read_index(folder)
        []
    """
    path = Path(folder) / INDEX
    try:
        rows = json.loads(path.read_bytes())["entries"]
    except FileNotFoundError:
        raise KwindexError(f"no index at {path}; run `kwindex build SRC... --out {folder}` first") from None
    except OSError as error:
        raise KwindexError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise KwindexError(f"{path} is not an index of kwindex; build it again") from None
    if not isinstance(rows, list):
        raise KwindexError(f"{path} is not an index of kwindex; build it again")
    return [Entry.from_dict(row) for row in rows]
