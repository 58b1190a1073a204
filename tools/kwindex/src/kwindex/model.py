"""The values that pass between the stages: an entry, a file's record, a problem."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from kwindex.errors import KwindexError


class Entry(NamedTuple):
    """One line of the index: a thing with a qualified name and the lines where it stands."""

    name: str
    kind: str
    file: str
    line: int
    end_line: int
    signature: str
    summary: str

    def as_dict(self) -> dict[str, Any]:
        """Returns the entry as it stands in `index.json`.

        Example:
            >>> Entry("m.f", "function", "m.py", 1, 2, "f()", "Does it.").as_dict()["end_line"]
            2
        """
        return self._asdict()

    @classmethod
    def from_dict(cls, row: Any) -> "Entry":
        """Returns the entry that `as_dict` wrote.

        Raises:
            KwindexError: The row does not have exactly an entry's keys.

        Example:
            >>> entry = Entry("m.f", "function", "m.py", 1, 2, "f()", "Does it.")
            >>> Entry.from_dict(entry.as_dict()) == entry
            True
        """
        if not isinstance(row, dict) or row.keys() != set(cls._fields):
            raise KwindexError(f"not an entry of a kwindex index: {str(row)[:80]}")
        return cls(**row)


class Want(NamedTuple):
    """An entry in which another file has its say."""

    target: str
    """What that file may give: the qualified name of a constant, of a function with `()`, of an operator with `(=)`."""
    key: str
    """The parameter that the function is told, by its name or its place from 0; '' for a constant."""
    entry: Entry
    """The entry, which is there if the function reads what it is told; or which takes the text of the constant; or
    which is an error, its text alone, and there if the function raises what it is told; or which lacks the operator."""


class FileRecord(NamedTuple):
    """What one file says on its own; nothing in it depends on any other file."""

    file: str
    module: str
    entries: list[Entry]
    targets: list[tuple[int, str]]
    """For each import: its position in `entries` and the qualified name that it takes."""
    gives: dict[str, str]
    """What other files may want of it, as `kwindex.given` tells it."""
    wants: list[Want]

    @classmethod
    def of(cls, file: str, module: str) -> "FileRecord":
        """Returns the record of a file of which nothing is read yet."""
        return cls(file, module, [], [], {}, [])

    def keep(self, found: "Entry | Want") -> None:
        """Adds an entry, or what is asked of another file."""
        if isinstance(found, Want):
            self.wants.append(found)
        else:
            self.entries.append(found)


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Returns the entries of a file in the order of its lines, what holds others before them.

    Example:
        >>> rows = ("m.f", "function", "m.py", 2, 2), ("m", "module", "m.py", 1, 9), ("m.a", "variable", "m.py", 1, 1)
        >>> [entry.name for entry in in_order(Entry(*row, "", "") for row in rows)]
        ['m', 'm.a', 'm.f']
    """
    return sorted(entries, key=lambda entry: (entry.line, -entry.end_line, entry))


class Problem(NamedTuple):
    """A file or folder that could not be read, with the line (0: the file as a whole) and why."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        """Returns `file:line: why`, as compilers write it."""
        return f"{self.file}:{self.line}: {self.why}" if self.line else f"{self.file}: {self.why}"
