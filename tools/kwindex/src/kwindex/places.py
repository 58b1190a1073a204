"""Places in files, as tracebacks, compilers and editors write them."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kwindex.kinds import TABLE
from kwindex.link import is_definition
from kwindex.model import Entry
from kwindex.rank import Match
from kwindex.spelling import short

if TYPE_CHECKING:
    from kwindex.searcher import Searcher

FILE = 800
"""For the module that is a file: less than for a message that is raised, and than for what is named there."""
IN_FILE = 820
AT_LINE = 845
"""For what stands around a line that is named with the file: a symbol within that of a name, and so before it."""
MOST_FILES = 8
"""Files that a text may mean, up to which what stands at its line is looked for."""
FILE_NAMED = r"([^ \"':]+\.py)(?![A-Za-z0-9_])"
FUNCTION_NAMED = r", in ([A-Za-z_][A-Za-z0-9_]*)"
LINE_NAMED = r'^"?(?::|#L|, line )([0-9]{1,7})(?![0-9]|, in <module>)'
"""How a text names a file, and then the line and the function there, if it is in one; for JavaScript too."""
_MODULE = next(number for number, kind in enumerate(TABLE) if kind.word == "module")


class Place(NamedTuple):
    """A file by the end of its path, or by more than an index knows of it, with the function and the line there."""

    path: str
    function: str = ""
    """The function's name, '' for none."""
    line: int = 0
    """The line, 0 for none."""

    @classmethod
    def of(cls, text: str) -> "Place | None":
        """Returns the place that a text names, None for one that names no file.

        Example:
            >>> Place.of('File "/lib/torch/hub.py", line 7, in load'), Place.of("hub.pyi")
            (Place(path='/lib/torch/hub.py', function='load', line=7), None)
            >>> [Place.of(text).line for text in ("hub.py:7:5: E501", "hub.py#L7", "hub.py 7")]
            [7, 7, 0]
        """
        named = re.search(FILE_NAMED, text)
        if named is None:
            return None
        rest = text[named.end() :]
        function, line = re.search(FUNCTION_NAMED, rest), re.search(LINE_NAMED, rest)
        return cls(named[1], function[1] if function else "", int(line[1]) if line else 0)

    def is_in(self, file: str) -> bool:
        """Says whether a file of an index is the one.

        Example:
            >>> [Place("/lib/torch/hub.py").is_in(file) for file in ("torch/hub.py", "hub.py", "b.py", "ub.py")]
            [True, True, False, False]
        """
        return f"/{self.path}".endswith(f"/{file}") or f"/{file}".endswith(f"/{self.path}")

    def look(self, searcher: "Searcher") -> Iterator[tuple[list[int], Match]]:
        """Yields the file, the functions of the name in it, and what stands around the line."""
        kinds, entry = searcher.tables.kinds, searcher.tables.entry
        modules = [number for number, kind in enumerate(kinds) if kind == _MODULE and self.is_in(entry(number).file)]
        yield modules, Match(FILE, "the file")
        named = (number for number in searcher.named(self.function) if is_definition(entry(number)))
        yield [number for number in named if self.is_in(entry(number).file)], Match(IN_FILE, "in the file")
        if self.line and len(modules) <= MOST_FILES:
            for number in (number for module in modules for number in self._around(module, searcher)):
                is_named = short(entry(number).name) == self.function
                why = "in the file" if is_named else f"at line {self.line} of the file"
                yield [number], Match(AT_LINE, why)

    def _around(self, module: int, searcher: "Searcher") -> list[int]:
        """Returns the innermost definitions of a file around the line: several where they begin and end alike."""
        tables, file = searcher.tables, searcher.tables.entry(module).file
        part = tables.file_of(module)
        found: dict[tuple[int, int], list[int]] = {}
        for number in range(tables.entry_base[part], tables.entry_base[part + 1]):
            one = tables.entry(number)
            if one.file == file and _spans(one, self.line):
                found.setdefault((-one.line, one.end_line), []).append(number)
        return found[min(found)] if found else []


def _spans(entry: Entry, line: int) -> bool:
    return entry.line <= line <= entry.end_line and entry.kind != "module" and is_definition(entry)
