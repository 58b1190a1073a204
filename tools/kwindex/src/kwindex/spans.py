"""Which parts of a syntax tree stand on some lines, and which definition each line stands in."""

import ast
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from kwindex.model import Entry


def one_ended(text: str) -> str:
    r"""Returns a source whose lines end as its syntax tree counts them.

    Example:
        >>> one_ended("a\rb\r\n")
        'a\nb\n'
    """
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def last_line(text: str) -> int:
    r"""Returns the number of a source's last line, 1 where it has none.

    Example:
        >>> [last_line(text) for text in ("", "a", "a\n", "a\n\n", "a\rb\r\nc")]
        [1, 1, 1, 2, 3]
    """
    text = one_ended(text)
    return max(1, text.count("\n") + (not text.endswith("\n")))


def holds(node: ast.AST, lines: list[int]) -> bool:
    r"""Says whether any of the lines, in order, is one of a node's; a node that has no lines of its own may hold any.

    Example:
        >>> node = ast.parse("@wrap\ndef f():\n    return 1").body[0]
        >>> holds(node, [1]), holds(node, [3, 9]), holds(node, [4])
        (True, True, False)
    """
    end = getattr(node, "end_lineno", None)
    if end is None:
        return True
    start = node.lineno  # type: ignore[attr-defined]
    for decorator in getattr(node, "decorator_list", ()):
        start = min(start, decorator.lineno)
    place = bisect_left(lines, start)
    return place < len(lines) and lines[place] <= end


def owners_of(lines: Iterable[int], definitions: Iterable[Entry]) -> Iterator[str]:
    """Yields for lines, in order, the qualified name of the innermost definition that each stands in.

    Args:
        lines: The lines.
        definitions: Those of the file, the module among them.

    Example:
        >>> inner, outer = (Entry(*row, "", "") for row in (("m.f", "function", "m.py", 2, 4), ("m", "", "m.py", 1, 9)))
        >>> list(owners_of([1, 3, 5], [inner, outer]))
        ['m', 'm.f', 'm']
    """
    left = sorted(definitions, key=lambda one: (one.line, -one.end_line), reverse=True)
    around: list[Entry] = []
    for line in lines:
        while left and left[-1].line <= line:
            inner = left.pop()
            while around and around[-1].end_line < inner.line:
                around.pop()
            around.append(inner)
        while len(around) > 1 and around[-1].end_line < line:
            around.pop()
        yield around[-1].name
