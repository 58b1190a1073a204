"""What entries stand in: modules, classes, functions, namespaces; found by their words, their ends and their parts."""

from collections.abc import Iterable, Iterator

from kwindex.column import Column
from kwindex.spelling import known_fold, segments, words_of
from kwindex.tables import Tables


class Owners:
    """The owners of an index, a line each; an owner is known by the place where its line begins, in bytes."""

    def __init__(self, tables: Tables) -> None:
        self._data = tables.owners
        self.column = Column(self._data, before=b"\n")

    def _places(self, numbers: Iterable[int]) -> Iterator[int]:
        starts = self.column.starts
        return (starts[number] - 1 for number in numbers)

    def holding(self, text: str) -> Iterator[int]:
        r"""Yields the owners whose lines hold a text: ".part." or ".end.\n".

        Example:
            >>> from kwindex.model import Entry
            >>> entries = [Entry(name, "method", "m.py", 1, 1, "", "") for name in ("m.Mesh.size", "n.f")]
            >>> owners = Owners(Tables.of(entries))
            >>> [list(owners.holding(text)) for text in (".m.", "n.\n")], owners.having("me")
            ([[0], [17]], {0})
        """
        return self._places(self.column.holding(text))

    def having(self, word: str) -> set[int]:
        """Returns the owners that hold a word that begins so."""
        return set(self._places(self.column.having((word,))))

    def is_at(self, place: int, line: bytes) -> bool:
        """Says whether an owner's line is this one."""
        return place >= 0 and self._data[place : place + len(line)] == line


def owner_line(owner: str) -> bytes:
    r"""Returns the line of an owner: its words, a tab, and its parts, folded, between dots.

    Example:
        >>> owner_line("torch.DeviceMesh.")
        b' torch device mesh\t.torch.devicemesh.\n'
    """
    parts = ".".join(map(known_fold, segments(owner)))
    return f" {' '.join(words_of(owner))}\t.{parts}.\n".encode()
