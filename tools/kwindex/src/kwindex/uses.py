"""What a file does with names of others: what it decorates with, what its tests call, what its tables remap."""

import ast
from collections.abc import Iterable, Iterator

from kwindex.model import Entry
from kwindex.render import LONGEST_SUMMARY, Function, cut, expression
from kwindex.scope import Scope
from kwindex.shadows import parts

DECORATOR, CALLED = "decorator", "test"
_SAID = {DECORATOR: "on", CALLED: "called by"}
_OF_THE_LANGUAGE = {"property", "staticmethod", "classmethod"}
_OF_PROPERTIES = {"setter", "getter", "deleter"}
_MOST = 3


class Uses:
    """Uses of one file: each name once, where it is used first, with who uses it.

    An entry is named by its module and then by what is used, so that nobody takes it for what is used.

    Example:
        >>> uses = Uses()
        >>> for user in "abcde":
        ...     uses.add(DECORATOR, "lib.wrap", ast.parse("wrap(3)").body[0].value, f"m.{user}")
        >>> [(entry.name, entry.signature, entry.summary) for entry in uses.entries("m.py", "m")]
        [('m.lib.wrap', 'wrap(3)', 'on a, b, c and 2 more')]
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[ast.expr, list[str]]] = {}

    def add(self, kind: str, path: str, place: ast.expr, user: str) -> None:
        """Notes that a definition uses what a path names; nothing for no path."""
        if path:
            first, users = self._found.setdefault((kind, path), (place, []))
            users.append(user)
            if place.lineno < first.lineno:
                self._found[kind, path] = place, users

    def entries(self, file: str, module: str) -> Iterator[Entry]:
        """Yields an entry for each name that is used, its users named as in their module."""
        for (kind, path), (place, users) in self._found.items():
            summary = cut(f"{_SAID[kind]} {listed(users, module)}", LONGEST_SUMMARY)
            end = place.end_lineno or place.lineno
            yield Entry(f"{module}.{path}", kind, file, place.lineno, end, expression(place, 200), summary)


def listed(users: Iterable[str], module: str) -> str:
    """Returns the first of some definitions, each once, named as in their module, with how many more there are.

    Example:
        >>> listed(["m.f", "m.C.g", "m.f", "m", "m.h"], "m")
        'f, C.g, m and 1 more'
    """
    shown = [user.removeprefix(f"{module}.") for user in dict.fromkeys(users)]
    more = f" and {len(shown) - _MOST} more" if len(shown) > _MOST else ""
    return f"{', '.join(shown[:_MOST])}{more}"


def decorator(node: ast.expr, scope: Scope) -> str:
    """Returns the path of what a decorator is or calls, '' for those of the language itself.

    Example:
        >>> [decorator(ast.parse(text).body[0].value, Scope("module", "m", None)) for text in ("a.b(3)", "x.setter")]
        ['a.b', '']
    """
    path = scope.dotted(node.func if isinstance(node, ast.Call) else node)
    own = path in _OF_THE_LANGUAGE or path.rpartition(".")[2] in _OF_PROPERTIES
    return "" if own else path


def called(node: Function, scope: Scope) -> Iterator[tuple[str, ast.expr]]:
    """Yields the paths of what a test calls of what its module imports, with the calls.

    Example:
        >>> from kwindex.scope import Meaning
        >>> scope = Scope("module", "m", None)
        >>> scope.bind("lib", Meaning("path", "a.lib"))
        >>> test = ast.parse("def test(): lib.f(g(1))").body[0]
        >>> [path for path, _ in called(test, scope)]
        ['a.lib.f']
    """
    nodes: list[ast.AST] = [node]
    for inner in nodes:  # which grows meanwhile
        nodes += parts(inner)
        if isinstance(inner, ast.Call):
            first: ast.expr = inner.func
            while isinstance(first, ast.Attribute):
                first = first.value
            known = scope.meaning(first.id) if isinstance(first, ast.Name) else None
            if known is not None and known.what == "path":
                yield scope.dotted(inner.func), inner


def remapped(node: ast.Assign, scope: Scope) -> Iterator[tuple[ast.expr, str, str, str]]:
    """Yields each row of a table of replacements: its place, its name in the table, the row, and what replaces what.

    Such a table has `remap` in its name, and names on both sides of its rows.

    Example:
        >>> table = ast.parse("remaps = {old: new, 'text': 3}").body[0]
        >>> [row[1:] for row in remapped(table, Scope("module", "m", None))]
        [('m.remaps.old', 'old: new', 'm.old is replaced by m.new')]
    """
    target = node.targets[0]
    if scope.kind == "function" or not isinstance(node.value, ast.Dict) or not isinstance(target, ast.Name):
        return
    for key, value in zip(node.value.keys, node.value.values, strict=True) if "remap" in target.id.lower() else ():
        old, new = _path(key, scope), _path(value, scope)
        if key is not None and old and new:
            name = f"{scope.qualify(target.id)}.{old.rpartition('.')[2]}"
            yield (
                key,
                name,
                f"{expression(key)}: {expression(value)}",
                cut(f"{old} is replaced by {new}", LONGEST_SUMMARY),
            )


def _path(node: ast.expr | None, scope: Scope) -> str:
    """Returns the path that a name stands for, of the module itself where it is not imported."""
    path = scope.dotted(node) if node is not None else ""
    first = path.partition(".")[0]
    return scope.qualify(path) if isinstance(node, ast.Name) and path == first else path
