"""What entries stand in: modules, classes, functions, namespaces; found by their words, their ends and their parts."""

from collections.abc import Iterator

from kwindex.tables import Tables


class Owners:
    """The owners of an index, a line each; a line is known by the place where it begins."""

    def __init__(self, tables: Tables) -> None:
        self._text = tables.owners

    def holding(self, text: str) -> Iterator[int]:
        r"""Yields the owners whose lines hold a text: " word", ".part." or ".end.\n".

        Example:
            >>> from kwindex.model import Entry
            >>> entries = [Entry(name, "method", "m.py", 1, 1, "", "") for name in ("m.Mesh.size", "n.f")]
            >>> tables = Tables.of(entries)
            >>> [list(Owners(tables).holding(text)) for text in (" me", ".m.", "n.\n")]
            [[0], [0], [17]]
        """
        sought = text.encode()
        place = self._text.find(sought)
        while place >= 0:
            yield self._text.rfind(b"\n", 0, place) + 1
            after = self._text.find(b"\n", place)
            place = self._text.find(sought, after + 1)

    def is_at(self, place: int, line: bytes) -> bool:
        """Says whether an owner's line is this one."""
        return place >= 0 and self._text.startswith(line, place)
