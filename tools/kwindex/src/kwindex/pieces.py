"""One file's part of every table of the index, as bytes: it depends on that file alone.

An index is the concatenation of its files' pieces, in the order of their paths, and the table of names over all of
them (`nametable.py`). So unchanged files are taken over as they are, and a cold build gives the same bytes as an
incremental one.
"""

import json
import re
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate

from kwindex.kinds import CONCEPT, MENTION, TABLE, UNNAMED
from kwindex.model import Entry, Problem
from kwindex.owners import owner_line
from kwindex.pasted import Message, plain
from kwindex.rank import place
from kwindex.signatures import GAP, types_of
from kwindex.spelling import short, subtokens, words_of
from kwindex.tables import NO_OWNER, ROW_END, Piece

_COMPOUND = re.compile(r"\b(?:\w+_\w+|[A-Za-z]+[a-z][A-Z]\w*|[A-Z][A-Z]+[a-z]\w*)\b")
_NAME_WORDS, _NAME_LETTERS = 6, 80
"""Words of a qualified name, counted from its end, that stand for the entry, and the letters looked at for them."""
_MARKS = "-/()[]{}<>.,:;!?'\"`*=+&|#@$%^~\\"
_APART = str.maketrans(_MARKS, " " * len(_MARKS))

_KIND = {kind.word: number for number, kind in enumerate(TABLE)}
_CALLABLE = {"function", "method", "nested function", "property"}
_SPOKEN = {
    "import",
    "config key",
    "environment variable",
    "kernel",
    "lowering",
    "gradient",
    "remap",
    "decorator",
    "test",
    MENTION,
}
"""Kinds whose summaries are made by kwindex or are another entry's: they are not searched by words."""

_encode = json.JSONEncoder(ensure_ascii=False).encode
_quoted = json.encoder.encode_basestring
_quoted_word = lru_cache(maxsize=64)(_quoted)  # kinds are few, and neighbours of one file


def make(entries: Sequence[Entry], problem: Problem | None = None, gives: bytes = b"", wants: bytes = b"") -> Piece:
    r"""Returns the piece of one file: its entries in the order of its lines, or why there are none.

    Example:
        >>> piece = make([Entry("m.f", "function", "m.py", 1, 2, "f(x: int) -> str", "Says it.")])
        >>> from kwindex.tables import SECTIONS
        >>> [piece[SECTIONS.index(name)] for name in ("shorts", "owners", "docs")]
        [b'f\n', b' m\t.m.\n', b' m f \t says it \n']
    """
    rows, sizes = _rows(entries)
    kinds = [entry.kind for entry in entries]
    shorts = ["" if kind in UNNAMED else short(entry.name) for kind, entry in zip(kinds, entries, strict=True)]
    owners, owner_of = _owners(entries, shorts)
    return (
        rows,
        array("I", [0, *accumulate(sizes)][:-1]).tobytes(),
        bytes([_KIND.get(kind, 255) for kind in kinds]),
        array("h", map(place, entries)).tobytes(),
        owner_of.tobytes(),
        "".join([f"{name}\n" for name in shorts]).encode(),
        owners,
        *_lines((number, _message(entry)) for number, entry in enumerate(entries) if entry.kind in UNNAMED),
        *_lines((number, types(entry)) for number, entry in enumerate(entries) if entry.kind in _CALLABLE),
        *_lines((number, doc(entry)) for number, entry in enumerate(entries) if entry.summary or entry.kind in UNNAMED),
        b"" if problem is None else (_encode(problem._asdict()) + "\n").encode(),
        gives,
        wants,
    )


def _rows(entries: Sequence[Entry]) -> tuple[bytes, Iterable[int]]:
    """Returns what `JSONEncoder.encode(entry.as_dict())` gives, with commas and line ends, and each row's size."""
    rows = [
        f'{{"name": {_quoted(name)}, "kind": {_quoted_word(kind)}, "file": {_quoted_word(file)}, '
        f'"line": {line}, "end_line": {end_line}, '
        f'"signature": {_quoted(signature)}, "summary": {_quoted(summary)}}}{ROW_END}'
        for name, kind, file, line, end_line, signature, summary in entries
    ]
    text = "".join(rows)
    return text.encode(), map(len, rows if text.isascii() else map(str.encode, rows))


def _owners(entries: Sequence[Entry], shorts: Sequence[str]) -> "tuple[bytes, array[int]]":
    """Returns the lines of what entries stand in, and for each entry where its line begins.

    A line holds the words of the owner's name, a tab, and its parts, folded.
    """
    lines: dict[str, int] = {}
    texts: list[bytes] = []
    length = 0
    owner_of = array("I")
    for entry, name in zip(entries, shorts, strict=True):
        if entry.kind in UNNAMED:
            owner_of.append(NO_OWNER)
            continue
        owner = entry.name[: -len(name) or None]
        known = lines.get(owner)
        if known is None:
            known = lines[owner] = length
            texts.append(owner_line(owner))
            length += len(texts[-1])
        owner_of.append(known)
    return b"".join(texts), owner_of


def _message(entry: Entry) -> str:
    text = entry.signature if entry.kind == "error" else f": {entry.signature}"
    return GAP.join(Message.of(text).pieces)


def types(entry: Entry) -> str:
    r"""Returns the types by which an entry is found, the result's first; '' where there are none.

    Example:
        >>> types(Entry("m.f", "function", "m.py", 1, 2, "f(x: int) -> str", ""))
        'str\x1fint'
    """
    return types_of(entry.signature) if entry.kind in _CALLABLE else ""


def doc(entry: Entry) -> str:
    r"""Returns the words by which an entry is found where no name is: its name's, a tab, and its summary's.

    Names in the summary stand there twice: as they are, and as the words that they are made of. What stands between
    words is a space, as words are looked for after one.

    Example:
        >>> doc(Entry("m.f", "function", "m.py", 1, 2, "f()", "Calls all_reduce."))
        ' m f \t calls all_reduce  all reduce'
    """
    if entry.kind in _SPOKEN:
        return ""
    if entry.kind in UNNAMED:
        return f"\t {plain(entry.signature).translate(_APART)}"
    if not entry.summary:
        return ""
    summary = f"{short(entry.name)}. {entry.summary}" if entry.kind == CONCEPT else entry.summary
    words = plain(summary)
    may_hold = "_" in summary or summary[1:] != words[1:]
    inner = (" ".join(subtokens(name)) for name in _COMPOUND.findall(summary)) if may_hold else ()
    return " ".join(["", *words_of(entry.name[-_NAME_LETTERS:])[-_NAME_WORDS:], "\t", words.translate(_APART), *inner])


def _lines(numbered: Iterable[tuple[int, str]]) -> tuple[bytes, bytes]:
    """Returns lines that are not empty, and the number of the entry of each."""
    kept = [(number, line) for number, line in numbered if line]
    text = "".join(f"{line}\n" for _, line in kept)
    return text.encode(), array("I", (number for number, _ in kept)).tobytes()
