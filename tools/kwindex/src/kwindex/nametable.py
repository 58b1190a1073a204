"""The table of all names of an index: every spelling of each, and the entries that have it.

Names stand once, sorted; `folds`, `words` and `initials` are lines in the same order. What a change of one file does to
the table is done by cutting and joining bytes, so that it costs next to nothing.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from kwindex.spelling import fold, subtokens

PLACE_BITS = 32
"""An entry stands in a posting as (number of the file << PLACE_BITS) + its place in the file."""


class NameTable(NamedTuple):
    """All names, as bytes; each text begins with a newline, so that every line stands between two."""

    names: bytes
    folds: bytes
    words: bytes
    initials: bytes
    masks: bytes
    counts: bytes
    postings: bytes

    @classmethod
    def build(cls, files: Iterable[bytes]) -> "NameTable":
        r"""Returns the table of files, given the last parts of the names of each one's entries, one a line.

        Example:
            >>> table = NameTable.build([b"f\nall_gather\n", b"f\n\n"])
            >>> table.names, table.initials, list(array("Q", table.postings))
            (b'\nall_gather\nf\n', b'\nag\n\n', [1, 0, 4294967296])
        """
        postings: dict[bytes, list[int]] = {}
        for number, shorts in enumerate(files):
            _collect(postings, number, shorts)
        names = sorted(postings)
        spelled = list(map(_spellings, names))
        return cls(
            _text(names),
            _text([spelling[0] for spelling in spelled]),
            _text([spelling[1] for spelling in spelled]),
            _text([spelling[2] for spelling in spelled]),
            array("Q", [spelling[3] for spelling in spelled]).tobytes(),
            array("I", [len(postings[name]) for name in names]).tobytes(),
            array("Q", [entry for name in names for entry in postings[name]]).tobytes(),
        )

    def patched(self, number: int, before: bytes, after: bytes) -> "NameTable":
        r"""Returns the table after one file's names changed: the same that `build` would make.

        Example:
            >>> table = NameTable.build([b"f\n", b"g\nf\n"])
            >>> table.patched(1, b"g\nf\n", b"h\n") == NameTable.build([b"f\n", b"h\n"])
            True
        """
        if before == after:
            return self
        old: dict[bytes, list[int]] = {}
        new: dict[bytes, list[int]] = {}
        _collect(old, number, before)
        _collect(new, number, after)
        changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        return _Patch(self).run(number, changed, new)


def _collect(postings: dict[bytes, list[int]], number: int, shorts: bytes) -> None:
    base = number << PLACE_BITS
    for place, name in enumerate(shorts.split(b"\n")[:-1]):
        if name:
            postings.setdefault(name, []).append(base + place)


def _spellings(name: bytes) -> tuple[bytes, bytes, bytes, int]:
    text = name.decode()
    tokens = subtokens(text)
    folded = fold(text)
    initials = "".join(token[0] for token in tokens) if len(tokens) > 1 else ""
    return folded.encode(), "".join(f" {token}" for token in tokens).encode(), initials.encode(), mask(folded)


def _text(lines: Sequence[bytes]) -> bytes:
    return b"\n" + b"".join(line + b"\n" for line in lines)


class _Patch:
    """The table with some lines replaced: what lies between them is copied as it is."""

    def __init__(self, table: NameTable) -> None:
        self._texts = [Lines(text) for text in table[:4]]
        self._masks, self._counts = array("Q", table.masks), array("I", table.counts)
        self._postings = array("Q", table.postings)
        self._first = [0, *accumulate(self._counts)]
        self._out_texts: list[list[bytes]] = [[b"\n"] for _ in range(4)]
        self._out = array("Q"), array("I"), array("Q")

    def run(self, number: int, changed: list[bytes], new: dict[bytes, list[int]]) -> NameTable:
        """Puts the new entries of one file under the names that changed."""
        names = self._texts[0].all()
        done = 0
        low, high = number << PLACE_BITS, (number + 1) << PLACE_BITS
        for name in changed:
            place = bisect_left(names, name, done)
            self._copy(done, place)
            known = place < len(names) and names[place] == name
            done = place + known
            kept = self._postings[self._first[place] : self._first[done]]
            before = bisect_left(kept, low)
            entries = kept[:before] + array("Q", new.get(name, ())) + kept[bisect_left(kept, high) :]
            if entries:
                self._put(name, place if known else -1, entries)
        self._copy(done, len(names))
        texts = [b"".join(parts) for parts in self._out_texts]
        masks, counts, postings = (table.tobytes() for table in self._out)
        return NameTable(texts[0], texts[1], texts[2], texts[3], masks, counts, postings)

    def _copy(self, start: int, end: int) -> None:
        if start < end:
            for out, text in zip(self._out_texts, self._texts, strict=True):
                out.append(text.between(start, end))
            masks, counts, postings = self._out
            masks.extend(self._masks[start:end])
            counts.extend(self._counts[start:end])
            postings.extend(self._postings[self._first[start] : self._first[end]])

    def _put(self, name: bytes, place: int, entries: "array[int]") -> None:
        masks, counts, postings = self._out
        if place >= 0:
            for out, text in zip(self._out_texts, self._texts, strict=True):
                out.append(text.between(place, place + 1))
            masks.append(self._masks[place])
        else:
            folded, words, initials, letters = _spellings(name)
            for out, line in zip(self._out_texts, (name, folded, words, initials), strict=True):
                out.append(line + b"\n")
            masks.append(letters)
        counts.append(len(entries))
        postings.extend(entries)


class Lines:
    """A text of lines: which line a place is in, and what a line says."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._starts: list[int] = []

    @property
    def starts(self) -> list[int]:
        """Where each line begins, and last where the text ends."""
        if not self._starts:
            self._starts = list(accumulate((len(line) + 1 for line in self.all()), initial=1))
        return self._starts

    def all(self) -> list[bytes]:
        """Returns all lines."""
        return self.text[1:-1].split(b"\n") if len(self.text) > 1 else []

    def line(self, number: int) -> bytes:
        r"""Returns a line.

        Example:
            >>> Lines(b"\na\nbc\n").line(1)
            b'bc'
        """
        return self.text[self.starts[number] : self.starts[number + 1] - 1]

    def between(self, start: int, end: int) -> bytes:
        """Returns the lines from one number up to another, with their ends."""
        return self.text[self.starts[start] : self.starts[end]]


def mask(letters: str) -> int:
    """Returns a bit for each letter's first two occurrences: two sets of letters are compared in one step.

    A slip changes at most two bits.

    Example:
        >>> (mask("reduce") ^ mask("redude")).bit_count()
        2
    """
    bits = 0
    for letter in letters:
        bit = 1 << (ord(letter) & 31)
        bits |= bit << 32 if bits & bit else bit
    return bits
