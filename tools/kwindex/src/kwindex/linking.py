"""Bringing together what files give each other: a piece in which another file has its say is made anew."""

import json
from array import array
from collections.abc import Sequence

from kwindex.assemble import Part
from kwindex.given import changed_with, gives_of, settled, wants_of
from kwindex.model import Entry
from kwindex.pieces import make
from kwindex.tables import SECTIONS, WIDTH, Tables

_ROWS, _GIVES, _WANTS = map(SECTIONS.index, ("rows", "gives", "wants"))


def linked(parts: Sequence[Part], before: Tables | None) -> list[Part]:
    """Returns the parts of an index with what their files give each other.

    Args:
        parts: The files, in the order of their paths.
        before: The index before, where a part's source is its number in it: that is linked as its files were then.
    """
    files = _Files(before)
    told = before.section("gives") if before is not None else b""
    tells = b"".join(files.section(part, _GIVES) for part in parts)
    wanting = [bool(files.section(part, _WANTS)) for part in parts]
    if tells == told and not any(
        wants and not isinstance(part.source, int) for part, wants in zip(parts, wanting, strict=True)
    ):
        return [*parts]  # as after most edits: then nothing of it need be read
    gives, known = gives_of(tells), gives_of(told)
    changed = {name for name in gives.keys() | known.keys() if gives.get(name) != known.get(name)}
    changed = changed_with(changed, gives)
    return [files.linked(part, gives, changed) if wants else part for part, wants in zip(parts, wanting, strict=True)]


class _Files:
    """The pieces of files, of an index before or fresh ones."""

    def __init__(self, before: Tables | None) -> None:
        self._before = before
        self._extents = before.extents if before is not None else array("I")

    def section(self, part: Part, number: int) -> bytes:
        """Returns what a file has in a section."""
        if not isinstance(part.source, int):
            return part.source[number]
        if self._before is None or not self._extents[part.source * WIDTH + number]:
            return b""
        return b"".join(self._before.span(SECTIONS[number], part.source, part.source + 1))

    def linked(self, part: Part, gives: dict[str, str], changed: set[str]) -> Part:
        """Returns a part that wants something of others with that, or as it is where nothing of that has changed."""
        data = self.section(part, _WANTS)
        wants = wants_of(data)
        if isinstance(part.source, int) and changed.isdisjoint(want.target for want in wants):
            return part
        rows = json.loads(b"".join([b"[", self.section(part, _ROWS).rstrip()[:-1], b"]"]))
        before = [Entry(*row.values()) for row in rows]  # which are written by `pieces`, their keys in this order
        entries = settled(before, wants, gives)
        if entries == before:
            return part
        return part._replace(source=make(entries, gives=self.section(part, _GIVES), wants=data))
