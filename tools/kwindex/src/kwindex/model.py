"""The values that pass between the stages: an entry, a file's record, a problem."""

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


class FileRecord(NamedTuple):
    """What one file says on its own; nothing in it depends on any other file."""

    file: str
    module: str
    entries: list[Entry]
    targets: list[tuple[int, str]]
    """For each import: its position in `entries` and the qualified name that it takes."""


class Problem(NamedTuple):
    """A file or folder that could not be read, with the line (0: the file as a whole) and why."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        """Returns `file:line: why`, as compilers write it."""
        return f"{self.file}:{self.line}: {self.why}" if self.line else f"{self.file}: {self.why}"
