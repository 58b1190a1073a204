"""The table of all names of an index: every spelling of each, and the entries that have it.

Names stand once, sorted; `folds`, `words` and `initials` are lines in the same order. What a change of one file does to
the table is done by cutting and joining bytes, so that it costs next to nothing.
"""

import re
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate, chain
from typing import NamedTuple

from kwindex.spelling import fold, spaced, subtokens

PLACE_BITS = 32
"""An entry stands in a posting as (number of the file << PLACE_BITS) + its place in the file."""

Data = bytes | memoryview
TEXTS = 4
_AFTER_FIRST = re.compile(r"(?<=[^ \n])[^ \n]+")
"""All but the first letter of a word."""


class NameTable(NamedTuple):
    """All names, as bytes; each text begins with a newline, so that every line stands between two.

    `starts` says for each text where each line begins, and last where the text ends.
    """

    names: Data
    folds: Data
    words: Data
    initials: Data
    starts: Data
    masks: Data
    counts: Data
    postings: Data

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
        entries = [postings[name] for name in names]
        *spelled, masks = _all_spellings(names)
        columns = [names, *spelled]
        texts = [b"\n".join([b"", *lines, b""]) if lines else b"\n" for lines in columns]
        return cls(
            *(texts[0], texts[1], texts[2], texts[3]),
            b"".join(array("I", accumulate([len(line) + 1 for line in lines], initial=1)) for lines in columns),
            array("Q", masks).tobytes(),
            array("I", [*map(len, entries)]).tobytes(),
            array("Q", [*chain.from_iterable(entries)]).tobytes(),
        )

    def starts_of(self, text: int) -> "memoryview[int]":
        """Returns where each line of one of the texts begins, and last where it ends."""
        view: memoryview[int] = memoryview(self.starts).cast("B").cast("I")
        size = len(view) // TEXTS
        return view[text * size : (text + 1) * size]

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
        return _patched(self, number, changed, new)


def _collect(postings: dict[bytes, list[int]], number: int, shorts: bytes) -> None:
    base = number << PLACE_BITS
    for place, name in enumerate(shorts.split(b"\n")[:-1]):
        if name:
            postings.setdefault(name, []).append(base + place)


def _spellings(name: bytes) -> tuple[bytes, bytes, bytes, int]:
    text = name.decode()
    tokens = subtokens(text)
    initials = "".join([token[0] for token in tokens]) if len(tokens) > 1 else ""
    if text.isascii():  # then the words are all letters and digits
        folded = "".join(tokens)
        letters = mask(folded)
    else:
        folded = fold(text)
        letters = mask(folded)
    return folded.encode(), " ".join(["", *tokens]).encode(), initials.encode(), letters


def _all_spellings(names: Sequence[bytes]) -> tuple[list[bytes], list[bytes], list[bytes], list[int]]:
    """Returns what `_spellings` gives for each name, all folds first: sooner, as most is done for all names at once."""
    text = spaced(b"\n".join([*names, b""]).decode())
    first_letters = _AFTER_FIRST.sub("", text)
    columns = (text.replace(" ", ""), text, first_letters.replace(" ", ""))
    folds, words, initials = (column.encode().split(b"\n")[:-1] for column in columns)
    initials = [letters if len(letters) > 1 else b"" for letters in initials]
    masks = _joined_masks(text.split("\n")[:-1])
    for number, name in enumerate(names):
        if not name.isascii():
            folds[number], words[number], initials[number], masks[number] = _spellings(name)
    return folds, words, initials, masks


def _joined_masks(lines: Iterable[str]) -> list[int]:
    """Returns the masks of words that follow each other, from their own masks: names are made of few words.

    Example:
        >>> _joined_masks(["all reduce"]) == [mask("allreduce")]
        True
    """
    masks: list[int] = []
    for line in lines:
        bits = 0
        for own in map(_known_mask, line.split()):
            bits |= own | (bits & own & _ONCE) << 32
        masks.append(bits)
    return masks


class _Edit(NamedTuple):
    """What becomes of one name: the lines it had, from one up to another, and its new spellings and entries."""

    place: int
    end: int
    lines: tuple[bytes, ...]
    """None where the name is there before and after."""
    mask: bytes
    amount: bytes
    entries: bytes

    @classmethod
    def of(cls, place: int, end: int, name: bytes, entries: "array[int]") -> "_Edit":
        """Returns the edit that leaves a name with these entries, without it where there are none."""
        if not entries:
            return cls(place, end, (b"",) * TEXTS, b"", b"", b"")
        amount = array("I", [len(entries)]).tobytes()
        if place < end:
            return cls(place, end, (), b"", amount, entries.tobytes())
        *spelled, letters = name, *_spellings(name)
        lines = tuple(b"%s\n" % line for line in spelled)
        return cls(place, end, lines, array("Q", [letters]).tobytes(), amount, entries.tobytes())


def _patched(table: NameTable, number: int, changed: list[bytes], new: dict[bytes, list[int]]) -> NameTable:
    """Puts the new entries of one file under the names that changed; what lies between them stays as it is."""
    starts = [table.starts_of(text) for text in range(TEXTS)]
    names, lines = bytes(table.names), starts[0]
    first = [0, *accumulate(memoryview(table.counts).cast("I"))]
    postings = memoryview(table.postings).cast("Q")
    low, high = number << PLACE_BITS, (number + 1) << PLACE_BITS
    edits: list[_Edit] = []
    for name in changed:
        place = bisect_left(range(len(lines) - 1), name, key=lambda n: names[lines[n] : lines[n + 1] - 1])
        end = place + names.startswith(name + b"\n", lines[place])
        had = postings[first[place] : first[end]]
        start, rest = bisect_left(had, low), bisect_left(had, high)
        entries = array("Q", [*had[:start], *new.get(name, ()), *had[rest:]])
        edits.append(_Edit.of(place, end, name, entries))
    spelled = [edit for edit in edits if edit.lines]
    texts = [
        _spliced(text, ((begins[edit.place], begins[edit.end], edit.lines[n]) for edit in spelled))
        for n, (text, begins) in enumerate(zip(table[:TEXTS], starts, strict=True))
    ]
    return NameTable(
        *(texts[0], texts[1], texts[2], texts[3]),
        b"".join(_moved(begins, spelled, text) for text, begins in enumerate(starts)),
        _spliced(table.masks, ((8 * edit.place, 8 * edit.end, edit.mask) for edit in spelled)),
        _spliced(table.counts, ((4 * edit.place, 4 * edit.end, edit.amount) for edit in edits)),
        _spliced(table.postings, ((8 * first[edit.place], 8 * first[edit.end], edit.entries) for edit in edits)),
    )


def _spliced(data: Data, cuts: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Returns data with other bytes from one place up to another, at several places in order."""
    parts: list[Data] = []
    done = 0
    for start, end, other in cuts:
        parts += [data[done:start], other]
        done = end
    return b"".join([*parts, data[done:]])


def _moved(begins: "memoryview[int]", edits: Iterable[_Edit], text: int) -> bytes:
    """Returns where the lines of a text begin after edits."""
    parts: list[bytes] = []
    done = by = 0
    for edit in edits:
        parts.append(_plus(begins[done : edit.place], by))
        line = edit.lines[text]
        if line:
            parts.append(array("I", [begins[edit.place] + by]).tobytes())
        by += len(line) - (begins[edit.end] - begins[edit.place])
        done = edit.end
    return b"".join([*parts, _plus(begins[done:], by)])


def _plus(numbers: "memoryview[int]", by: int) -> bytes:
    """Adds to each of many numbers, as one sum of two long numbers: that is done much sooner than one by one."""
    ones = int.from_bytes(array("I", [1]) * len(numbers), sys.byteorder)
    return (int.from_bytes(numbers, sys.byteorder) + by * ones).to_bytes(numbers.nbytes, sys.byteorder)


def mask(letters: str) -> int:
    """Returns a bit for each letter's first two occurrences: two sets of letters are compared in one step.

    A slip changes at most two bits.

    Example:
        >>> (mask("reduce") ^ mask("redude")).bit_count()
        2
    """
    bits = 0
    for code in map(ord, letters):
        bit = 1 << (code & 31)
        bits |= bit << 32 if bits & bit else bit
    return bits


_ONCE = (1 << 32) - 1
_known_mask = lru_cache(maxsize=10_000)(mask)
