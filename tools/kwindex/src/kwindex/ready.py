"""`search.bin`: the tables of an index in one file, mapped and not read, so that a search can begin at once.

It begins with a line that names its form, the length of its contents list in ten digits, and that list as JSON: the id
of the index, where the rows of `index.json` stand, and each section's place. It counts only beside the `index.json` of
the same id; else it is left aside.
"""

import json
import mmap
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kwindex.store import INDEX, READY, head, read_index, tail
from kwindex.tables import Data, Rows, Tables

if TYPE_CHECKING:  # a search starts sooner without it
    from pathlib import Path

    from kwindex.searcher import Searcher

FORM = b"kwindex tables 4\n"
_DIGITS = 10


class Ready(NamedTuple):
    """The tables of an index on disk, and its id."""

    id: str
    tables: Tables


def contents(identity: str, rows: int, sections: Mapping[str, Sequence[bytes | memoryview]]) -> bytes:
    r"""Returns what stands in `search.bin` before the sections.

    Example:
        >>> contents("ab", 0, {"kinds": [b"xyz"]}).partition(b"{")[0]
        b'kwindex tables 4\n0000000084'
    """
    places = {}
    place = 0
    for name, parts in sections.items():
        length = sum(map(len, parts))
        places[name] = [place, length]
        place += length
    start = len(head(identity)) + (rows > 0)
    size = start + max(0, rows - 2) + len(tail(rows == 0))
    listed = {"id": identity, "rows": [start, rows], "size": size, "total": place, "sections": places}
    text = json.dumps(listed).encode()
    return FORM + f"{len(text):0{_DIGITS}}".encode() + text


def open_ready(folder: "str | Path", whole: bool = False) -> Ready | None:
    """Returns the tables of the index in a folder, None where there are none that fit it.

    Args:
        folder: The folder.
        whole: Whether all of the files will be read: then they are mapped at once and not page by page.
    """
    try:
        data, index = (_mapped(os.path.join(folder, name), whole) for name in (READY, INDEX))
        if data[: len(FORM)] != FORM:
            return None
        start = len(FORM) + _DIGITS
        end = start + int(data[len(FORM) : start])
        listed = json.loads(data[start:end])
        first = head(listed["id"])
        if len(data) != end + listed["total"] or len(index) != listed["size"] or index[: len(first)] != first:
            return None
        view = memoryview(data)
        sections: dict[str, Data] = {
            name: view[end + place : end + place + length] for name, (place, length) in listed["sections"].items()
        }
        return Ready(listed["id"], Tables(sections, Rows(index, *listed["rows"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def open_searcher(folder: "str | Path") -> "Searcher":
    """Returns the searcher of the index in a folder, from its tables where they fit it.

    Raises:
        KwindexError: There is no index, or it is not one of kwindex.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from kwindex.pipeline import build
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source = Path(folder, "m.py")
        ...     _ = source.write_text("def all_reduce(): ...")
        ...     _ = build([source], Path(folder, "out"))
        ...     open_searcher(Path(folder, "out")).search("allreduce")[0].entry.name
        'm.all_reduce'
    """
    from kwindex.searcher import Searcher  # a build needs none

    ready = open_ready(folder)
    return Searcher.of(ready.tables) if ready is not None else Searcher(read_index(folder))


def _mapped(path: str, whole: bool) -> "bytes | mmap.mmap":
    with open(path, "rb") as file:
        if os.name != "posix":
            return file.read()
        flags = mmap.MAP_SHARED | (getattr(mmap, "MAP_POPULATE", 0) if whole else 0)
        return mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ)
