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
        return _patched(self, number, changed, new)


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
    return b"\n".join([b"", *lines, b""]) if lines else b"\n"


def _patched(table: NameTable, number: int, changed: list[bytes], new: dict[bytes, list[int]]) -> NameTable:
    """Puts the new entries of one file under the names that changed; what lies between them stays as it is."""
    columns = [text[1:-1].split(b"\n") if len(text) > 1 else [] for text in table[:4]]
    masks, counts, postings = array("Q", table.masks), array("I", table.counts), array("Q", table.postings)
    first = [0, *accumulate(counts)]
    names, kept = columns[0], [array("Q")]
    low, high = number << PLACE_BITS, (number + 1) << PLACE_BITS
    edits: list[tuple[int, bool, bytes, int]] = []
    done = 0
    for name in changed:
        place = bisect_left(names, name, done)
        known = place < len(names) and names[place] == name
        had = postings[first[place] : first[place + known]]
        start = bisect_left(had, low)
        entries = had[:start] + array("Q", new.get(name, ())) + had[bisect_left(had, high) :]
        kept += [postings[first[done] : first[place]], entries]
        edits.append((place, known, name, len(entries)))
        done = place + known
    kept.append(postings[first[done] :])
    for place, known, name, count in reversed(edits):
        _edit(columns, masks, counts, (place, known, name, count))
    texts = list(map(_text, columns))
    joined = b"".join(kept)
    return NameTable(texts[0], texts[1], texts[2], texts[3], masks.tobytes(), counts.tobytes(), joined)


def _edit(
    columns: list[list[bytes]], masks: "array[int]", counts: "array[int]", edit: tuple[int, bool, bytes, int]
) -> None:
    """Puts in, takes out or counts anew one name, all columns alike."""
    place, known, name, count = edit
    if known and count:
        counts[place] = count
        return
    folded, words, initials, letters = _spellings(name)
    line = [(name, folded, words, initials)] if count else []
    for column, spelling in zip(columns, zip(*line, strict=True) if line else [()] * 4, strict=True):
        column[place : place + known] = spelling
    masks[place : place + known] = array("Q", [letters] if count else [])
    counts[place : place + known] = array("I", [count] if count else [])


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
