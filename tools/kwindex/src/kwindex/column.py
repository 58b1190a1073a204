"""A text of lines that is searched: by going through it, or, once it is worth it, by a list of its words."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import accumulate

_WORTH = 3
"""Queries from which on the words of a text are listed: going through it is slower each time, but ready at once."""


class Words:
    """The words of a text, each with the lines that hold it."""

    def __init__(self, lines: list[str]) -> None:
        self.lines: dict[str, list[int]] = {}
        for number, line in enumerate(lines):
            for word in dict.fromkeys(line.split()):
                self.lines.setdefault(word, []).append(number)
        self._sorted = sorted(self.lines)

    def beginning(self, letters: str) -> list[list[int]]:
        """Returns the lines of each word that begins with these letters.

        Example:
            >>> Words([" all gather", " gate"]).beginning("ga")
            [[1], [0]]
        """
        first = bisect_left(self._sorted, letters)
        last = bisect_left(self._sorted, letters + "\U0010ffff", first)
        return [self.lines[word] for word in self._sorted[first:last]]


class Column:
    """Lines of a text, each known by its number; words in them stand after spaces. Nothing is read before it is asked.

    Args:
        data: The text, which begins with a newline.
        starts: Where each line begins, and last where the text ends, if that is known.
        before: What is put before data that does not begin with a newline.
    """

    def __init__(self, data: bytes | memoryview, starts: Sequence[int] = (), before: bytes = b"") -> None:
        self._data, self._known_starts, self._before = data, starts, before
        self._asked = 0

    @cached_property
    def text(self) -> bytes:
        """The text."""
        return b"".join((self._before, self._data)) if self._before else bytes(self._data)

    @cached_property
    def starts(self) -> Sequence[int]:
        """Where each line begins, and last where the text ends."""
        return self._known_starts or list(accumulate((len(line) + 1 for line in self._lines()), initial=1))

    def _lines(self) -> list[bytes]:
        return self.text[1:-1].split(b"\n") if len(self.text) > 1 else []

    def length(self, number: int) -> int:
        """Returns how many letters a line has."""
        size = self.starts[number + 1] - self.starts[number] - 1
        return size if self._ascii else len(self.line(number))

    @cached_property
    def _ascii(self) -> bool:
        return self.text.isascii()

    @cached_property
    def words(self) -> Words:
        """The words of all lines."""
        return Words([line.decode() for line in self._lines()])

    def ask(self) -> None:
        """Counts a query, so that the words are listed when there are several."""
        self._asked += 1

    def line(self, number: int) -> str:
        r"""Returns a line.

        Example:
            >>> Column(b"\na\nbc\n").line(1)
            'bc'
        """
        return self.text[self.starts[number] : self.starts[number + 1] - 1].decode()

    def count(self, word: str) -> int:
        r"""Returns how many lines hold a word that begins so, whichever way it is found out.

        Example:
            >>> Column(b"\n all gather gate\n gather\n").count("ga")
            2
        """
        return len(self._having(word))

    def having(self, beginnings: "tuple[str, ...]") -> Collection[int]:
        r"""Returns the lines, in any order, that hold a word with each of these beginnings.

        Example:
            >>> sorted(Column(b"\n all gather\n gather\n gate all\n").having(("al", "ga")))
            [0, 2]
        """
        rarest, *others = sorted(((self._having(word), word) for word in beginnings), key=lambda row: len(row[0]))
        if not others:
            return rarest[0]
        marked = [f" {word}" for _, word in others]
        return [number for number in rarest[0] if all(map(self.line(number).__contains__, marked))]

    def _having(self, word: str) -> Collection[int]:
        if self._asked < _WORTH:
            return list(self.holding(f" {word}"))
        found = self.words.beginning(word)
        return found[0] if len(found) == 1 else set().union(*found)

    @cached_property
    def _sorted(self) -> list[tuple[str, int]]:
        return sorted((line.decode(), number) for number, line in enumerate(self._lines()))

    def exactly(self, line: str) -> Iterator[int]:
        """Yields the lines that are this one."""
        if self._asked < _WORTH:
            yield from self.holding(f"\n{line}\n")
            return
        place = bisect_left(self._sorted, (line, -1))
        while place < len(self._sorted) and self._sorted[place][0] == line:
            yield self._sorted[place][1]
            place += 1

    def starting(self, letters: str) -> Iterator[int]:
        r"""Yields the lines that begin with letters.

        Example:
            >>> list(Column(b"\nab\nba\n").starting("b"))
            [1]
        """
        if self._asked < _WORTH:
            yield from self.holding(f"\n{letters}")
            return
        place = bisect_left(self._sorted, (letters, -1))
        while place < len(self._sorted) and self._sorted[place][0].startswith(letters):
            yield self._sorted[place][1]
            place += 1

    def holding(self, letters: str) -> Iterator[int]:
        r"""Yields the lines in which letters stand; a newline among them is an end of a line.

        Example:
            >>> column = Column(b"\nab\nba\nb\n")
            >>> [list(column.holding(letters)) for letters in ("b", "\nb", "b\n")]
            [[0, 1, 2], [1, 2], [0, 2]]
        """
        found = letters.encode("utf-8", "replace")
        place = self.text.find(found)
        skip = letters.startswith("\n")
        while place >= 0:
            number = bisect_right(self.starts, place + skip) - 1
            yield number
            place = self.text.find(found, self.starts[number + 1] - 1)

    def matching(self, pattern: str) -> Iterator[int]:
        """Yields the lines that a pattern with a newline in front matches."""
        for found in re.finditer(pattern.encode("utf-8", "replace"), self.text):
            yield bisect_right(self.starts, found.start() + 1) - 1
