"""An index in memory or mapped from its files: the pieces of all files one after the other, and the table of names."""

import json
import mmap
from array import array
from bisect import bisect_right
from collections.abc import Container, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple, overload

from kwindex.errors import KwindexError
from kwindex.model import Entry
from kwindex.nametable import PLACE_BITS, NameTable

SECTIONS = (
    "rows",
    "offsets",
    "kinds",
    "places",
    "owner_of",
    "shorts",
    "owners",
    "messages",
    "message_of",
    "types",
    "type_of",
    "docs",
    "doc_of",
    "problems",
    "gives",
    "wants",
)
"""What a file's piece holds, in this order, told in `docs/understand/kwindex_index.md`; `rows` go to `index.json`."""

Piece = tuple[bytes, ...]

NO_OWNER = 0xFFFFFFFF

ROW_END = ",\n"
WIDTH = len(SECTIONS)
_END = len(ROW_END)
_LOW = (1 << PLACE_BITS) - 1

Data = bytes | mmap.mmap | memoryview


class Rows(NamedTuple):
    """The rows of `index.json` in a buffer, where the last one lacks its comma."""

    data: Data
    start: int
    length: int

    def cut(self, start: int, end: int) -> list[bytes | memoryview]:
        """Returns the rows from one place to another, every row with its comma, without a copy of them."""
        if start >= end:
            return []
        view = memoryview(self.data)
        if end < self.length:
            return [view[self.start + start : self.start + end]]
        return [view[self.start + start : self.start + end - _END], ROW_END.encode()]


class Tables:
    r"""All tables of an index. Sections are as `SECTIONS` names them, concatenated over the files.

    Example:
        >>> tables = Tables.of([Entry("m.f", "function", "m.py", 1, 2, "f()", "")])
        >>> tables.entry(0).name, bytes(tables.names.names)
        ('m.f', b'\nf\n')
    """

    def __init__(self, sections: dict[str, Data], rows: Rows) -> None:
        self._sections = sections
        self.rows = rows

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> "Tables":
        """Returns the tables of entries, taken as those of one file."""
        from kwindex.pieces import make  # a search of an index on disk never makes one

        piece = make(entries)
        sections: dict[str, Data] = dict(zip(SECTIONS, piece, strict=True))
        names = NameTable.build([piece[SECTIONS.index("shorts")]])
        sections.update(names._asdict(), extents=array("I", map(len, piece)).tobytes(), files=b"\n")
        return cls(sections, Rows(piece[0], 0, len(piece[0])))

    def section(self, name: str) -> bytes:
        """Returns a section as bytes."""
        return bytes(self._sections[name])

    def numbers(self, name: str, code: str) -> "memoryview[int]":
        """Returns a section as numbers, without a copy where it is mapped."""
        view: memoryview[int] = memoryview(self._sections[name]).cast("B").cast(code)  # type: ignore[call-overload]
        return view

    # the files

    @cached_property
    def files(self) -> list[str]:
        """The paths that entries carry, in order."""
        return self.section("files").decode().split("\n")[:-1]

    @cached_property
    def extents(self) -> "array[int]":
        """The length of each file's part of each section."""
        return array("I", self.section("extents"))

    def bases(self, name: str) -> list[int]:
        """Returns where each file's part of a section begins, and last where the section ends."""
        return list(accumulate(self.extents[SECTIONS.index(name) :: WIDTH], initial=0))

    @cached_property
    def entry_base(self) -> list[int]:
        """The number of each file's first entry, and last the number of entries."""
        return self.bases("kinds")

    def file_of(self, number: int) -> int:
        """Returns the number of the file that an entry is in."""
        return bisect_right(self.entry_base, number) - 1

    def span(self, name: str, first: int, last: int) -> list[bytes | memoryview]:
        """Returns what a section holds of the files from one number up to another, without a copy of it."""
        base = self._all_bases[name]
        if name == "rows":
            return self.rows.cut(base[first], base[last])
        return [memoryview(self._sections[name])[base[first] : base[last]]]

    @cached_property
    def _all_bases(self) -> dict[str, list[int]]:
        return {name: self.bases(name) for name in SECTIONS}

    # the entries

    def __len__(self) -> int:
        return self.entry_base[-1]

    @cached_property
    def _row_base(self) -> list[int]:
        return self.bases("rows")

    @cached_property
    def _offsets(self) -> "memoryview[int]":
        return self.numbers("offsets", "I")

    def entry(self, number: int) -> Entry:
        """Returns an entry by its number."""
        file = self.file_of(number)
        base = self._row_base[file]
        is_last = number + 1 == self.entry_base[file + 1]
        end = self._row_base[file + 1] if is_last else base + self._offsets[number + 1]
        row = self.rows.data[self.rows.start + base + self._offsets[number] : self.rows.start + end - _END]
        return Entry(*json.loads(bytes(row)).values())  # rows are written by `pieces`, their keys in this order

    def entries(self) -> list[Entry]:
        """Returns all entries, in order."""
        rows = self.rows.cut(0, self.rows.length)[:1]
        return [Entry.from_dict(row) for row in json.loads(b"".join([b"[", *rows, b"]"]))]

    @cached_property
    def places(self) -> "memoryview[int]":
        """What each entry's own standing adds to its score."""
        return self.numbers("places", "h")

    @cached_property
    def kinds(self) -> bytes:
        """The number of each entry's kind."""
        return self.section("kinds")

    # owners

    @property
    def owners(self) -> memoryview:
        """The lines of what entries stand in."""
        return memoryview(self._sections["owners"])

    @cached_property
    def owner_base(self) -> list[int]:
        """Where each file's owners begin."""
        return self.bases("owners")

    @cached_property
    def _owner_of(self) -> "memoryview[int]":
        return self.numbers("owner_of", "I")

    def owner(self, number: int) -> int:
        """Returns the place of the line of an entry's owner, -1 for entries that have no name."""
        owner = self._owner_of[number]
        return -1 if owner == NO_OWNER else self.owner_base[self.file_of(number)] + owner

    def owned(self, place: int) -> list[tuple[int, str]]:
        """Returns the entries whose owner's line begins at a place, each with the last part of its name."""
        file = bisect_right(self.owner_base, place) - 1
        known = self._owned.get(file)
        if known is None:
            known = self._owned[file] = {}
            first, end = self.entry_base[file], self.entry_base[file + 1]
            names = b"".join(self.span("shorts", file, file + 1)).decode().split("\n")
            for number, owner, name in zip(range(first, end), self._owner_of[first:end], names, strict=False):
                known.setdefault(owner, []).append((number, name))
        return known.get(place - self.owner_base[file], [])

    @cached_property
    def _owned(self) -> dict[int, dict[int, list[tuple[int, str]]]]:
        return {}

    # names

    @cached_property
    def names(self) -> NameTable:
        """The table of names."""
        return NameTable(*(memoryview(self._sections[name]) for name in NameTable._fields))

    @cached_property
    def _postings(self) -> "memoryview[int]":
        return self.numbers("postings", "Q")

    @cached_property
    def _first(self) -> list[int]:
        return list(accumulate(self.numbers("counts", "I"), initial=0))

    def named(self, name: int) -> list[int]:
        """Returns the entries that have a name, given by its line in the table of names."""
        base = self.entry_base
        found = self._postings[self._first[name] : self._first[name + 1]]
        return [base[entry >> PLACE_BITS] + (entry & _LOW) for entry in found]

    def named_in(self, name: int, owners: Container[int]) -> list[int]:
        """Returns the entries that have a name, given by its line, and stand in owners, given by their places."""
        base, owner_base, owner_of = self.entry_base, self.owner_base, self._owner_of
        return [
            number
            for entry in self._postings[self._first[name] : self._first[name + 1]]
            if owner_base[file := entry >> PLACE_BITS] + owner_of[number := base[file] + (entry & _LOW)] in owners
        ]

    def numbered(self, lines: str, numbers: str) -> tuple[list[str], list[int]]:
        """Returns the lines of a section that only some entries have, and those entries."""
        base, places = self.entry_base, self.numbers(numbers, "I")
        sizes = (size // 4 for size in self.extents[SECTIONS.index(numbers) :: WIDTH])
        ends = accumulate(sizes, initial=0)
        owners: list[int] = []
        start = next(ends)
        for file, end in enumerate(ends):
            owners += [base[file] + place for place in places[start:end]]
            start = end
        return self.section(lines).decode().split("\n")[:-1], owners


class Entries(Sequence[Entry]):
    """The entries of tables, each read only when it is asked for, all at once where all are."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._all: list[Entry] = []

    def __len__(self) -> int:
        return len(self._tables)

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> list[Entry]: ...
    def __getitem__(self, place: int | slice) -> Entry | list[Entry]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        size = len(self)
        if not -size <= place < size:
            raise IndexError(place)
        return self._tables.entry(place % size)

    def __iter__(self) -> Iterator[Entry]:
        if not self._all:
            self._all = self._tables.entries()
        return iter(self._all)


def broken(path: object) -> KwindexError:
    """Returns the error of a file that is not what kwindex writes."""
    return KwindexError(f"{path} is not an index of kwindex; build it again")
