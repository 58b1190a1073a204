"""Concepts: titled notes, `Note [Title]`, in comments and docstrings, and where a file refers to notes.

A note begins with its title, underlined or at the head of a paragraph, and says something. Any other place that has a
title refers to the note. What stands in a string that is a value is neither.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, takewhile
from typing import NamedTuple

from kwindex.kinds import CONCEPT, MENTION
from kwindex.model import Entry
from kwindex.render import LONGEST_SUMMARY, cut, first_sentence, string_of
from kwindex.spans import holds, one_ended, owners_of
from kwindex.uses import listed

_TITLE = r"(?:[^\[\]\n]|\[[^\[\]\n]*\])+?"
_TITLED = rf"N(?:ote|OTE) \[ ?({_TITLE}) ?\]"
_MARK = re.compile(rf"\b{_TITLED}")
_HEAD = re.compile(rf"{_TITLED}\s*(?::\s*(.*))?")
_UNDERLINE = re.compile(r"[~=^-]{3,}")
_OPENING = re.compile(r"^[rRuU]?(?:\"{3}|'{3}|[\"'])")
_CLOSING = re.compile(r"(?:\"{3}|'{3}|[\"'])$")
_NO_NAME = re.compile(r"\.|::")
"""What would part a name."""
_LONGEST = 160


class Mark(NamedTuple):
    """A title in brackets, where it stands in a comment or docstring."""

    title: str
    line: int


class Note(NamedTuple):
    """A note: its title, its lines, and what it says."""

    title: str
    line: int
    end_line: int
    text: str


class Span(NamedTuple):
    """Where a string stands, its columns in bytes; whether it is a statement of its own, as docstrings are."""

    start: tuple[int, int]
    end: tuple[int, int]
    alone: bool


def may_hold(text: str) -> bool:
    """Says whether a source can have a note at all: only then is it looked for.

    Example:
        >>> may_hold("# see Note [It]"), may_hold("# a note")
        (True, False)
    """
    return "Note [" in text or "NOTE [" in text


def entries(tree: ast.Module, text: str, definitions: Sequence[Entry]) -> Iterator[Entry]:
    r"""Yields an entry for each note of a source, and one for each that it refers to, with who does.

    Args:
        tree: The syntax tree of the module.
        text: Its source.
        definitions: Its definitions, itself first.

    Example:
        >>> text = "# Note [It]\n# Is so.\nx = 1  # see Note [It]\n"
        >>> module = Entry("m", "module", "m.py", 1, 3, "", "")
        >>> [(e.name, e.kind, e.line, e.summary) for e in entries(ast.parse(text), text, [module])]
        [('m.It', 'concept', 1, 'Is so.'), ('m.It', 'mention', 3, 'in m')]
    """
    module, file = definitions[0].name, definitions[0].file
    notes, marks = _read(tree, one_ended(text).split("\n"))
    for note in notes:
        summary = first_sentence(note.text)
        yield Entry(_name(module, note.title), CONCEPT, file, note.line, note.end_line, _shown(note.title), summary)
    users: dict[str, tuple[int, list[str]]] = {}
    for mark, user in zip(marks, owners_of((mark.line for mark in marks), definitions), strict=True):
        users.setdefault(mark.title, (mark.line, []))[1].append(user)
    for title, (line, found) in users.items():
        summary = cut(f"in {listed(found, module)}", LONGEST_SUMMARY)
        yield Entry(_name(module, title), MENTION, file, line, line, _shown(title), summary)


def _name(module: str, title: str) -> str:
    return f"{module}.{' '.join(_NO_NAME.sub(' ', title).split())}"


def _shown(title: str) -> str:
    return f"Note [{title}]"


def _read(tree: ast.Module, lines: Sequence[str]) -> tuple[list[Note], list[Mark]]:
    """Returns the notes of a source, and the other places that have titles."""
    found = [(number, mark) for number, line in enumerate(lines, 1) if "[" in line for mark in _MARK.finditer(line)]
    spans = list(_spans(tree, sorted({number for number, _ in found})))
    notes: dict[int, Note] = {}
    marks: list[Mark] = []
    for number, mark in found:
        title = cut(mark[1].strip(), _LONGEST)
        block = _block(lines, number, _bytes(lines[number - 1][: mark.start()]), spans)
        if block is None or not any(map(str.isalpha, title)):
            continue
        note = _note(block, number, title) if number not in notes else None
        if note is not None:
            notes[number] = note
        else:
            marks.append(Mark(title, number))
    return list(notes.values()), marks


def _spans(tree: ast.Module, lines: list[int]) -> Iterator[Span]:
    """Yields the strings that stand on some lines."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        value = node.value if isinstance(node, ast.Expr) else node
        if isinstance(value, ast.JoinedStr) or (isinstance(value, ast.Constant) and string_of(value) is not None):
            start, end = (value.lineno, value.col_offset), (value.end_lineno or 0, value.end_col_offset or 0)
            yield Span(start, end, value is not node and not isinstance(value, ast.JoinedStr))
        else:
            stack += (child for child in ast.iter_child_nodes(node) if holds(child, lines))


def _block(lines: Sequence[str], number: int, column: int, spans: Sequence[Span]) -> dict[int, str] | None:
    """Returns the lines of the docstring or of the comments around a place, by their numbers; None for no such place.

    They have neither quotes nor number signs. Of a comment behind code nothing is returned: it has no lines of its own.
    """
    inside = next((span for span in spans if span.start <= (number, column) < span.end), None)
    if inside is not None:
        return _docstring(lines, inside) if inside.alone else None
    line = lines[number - 1]
    if not _is_comment(line):
        signs = (_bytes(line[:place]) for place, letter in enumerate(line) if letter == "#")
        in_string = [any(span.start <= (number, sign) < span.end for span in spans) for sign in signs if sign < column]
        return None if all(in_string) else {}
    first = last = number
    while first > 1 and _is_comment(lines[first - 2]):
        first -= 1
    while last < len(lines) and _is_comment(lines[last]):
        last += 1
    return {number: lines[number - 1].strip().lstrip("#").strip() for number in range(first, last + 1)}


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _docstring(lines: Sequence[str], span: Span) -> dict[int, str]:
    (first, start), (last, end) = span.start, span.end
    texts = list(lines[first - 1 : last])
    texts[-1] = _CLOSING.sub("", texts[-1].encode()[:end].decode())
    texts[0] = _OPENING.sub("", texts[0].encode()[start:].decode())
    return {number: text.strip() for number, text in enumerate(texts, first)}


def _bytes(text: str) -> int:
    return len(text.encode())


def _note(block: Mapping[int, str], number: int, title: str) -> Note | None:
    """Returns the note whose title stands on a line of a block, None where that only refers to one."""
    head = _head(block, number)
    if head is None:
        return None
    texts, end = [head[2] or ""], number
    for line in takewhile(block.__contains__, count(number + 1)):
        text = block[line]
        if _head(block, line) is not None:
            break  # the next note
        texts.append("" if _UNDERLINE.fullmatch(text) else text)
        end = line if text else end
    said = "\n".join(texts).strip()
    return Note(title, number, end, said) if said else None


def _head(block: Mapping[int, str], number: int) -> re.Match[str] | None:
    """Returns what stands in a line that is a title: it is underlined, or begins a paragraph."""
    begins = not block.get(number - 1) or _UNDERLINE.fullmatch(block.get(number + 1, ""))
    return _HEAD.fullmatch(block.get(number, "")) if begins else None
