"""The variables of the environment that an expression may name, as constants, conditions and loops tell."""

import ast
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from kwindex.render import Function, string_of
from kwindex.shadows import COMPREHENSIONS, Around, Shadows, bound_by_the_way, loops_in

_DISPLAYS = (ast.List, ast.Tuple, ast.Set)
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class Named:
    r"""What the names of a module stand for, where they are read.

    Example:
        >>> text = "KEY = 'A'\nfor word in ('B', 'C'):\n    read(word)"
        >>> tree = ast.parse(text)
        >>> named = Named(tree, Shadows())
        >>> named.by(ast.Name("KEY")), named.by(tree.body[1].body[0].value.args[0]), named.by(None)
        (['A'], ['B', 'C'], [])
    """

    def __init__(self, tree: ast.Module, shadows: Shadows) -> None:
        self._tree, self._shadows = tree, shadows
        self._constants = dict(_constants(tree))
        self._loops: dict[ast.AST, dict[str, list[ast.For]]] = {}
        self._by_the_way: dict[ast.AST, set[str]] = {}

    def by(self, asked: ast.expr | None, around: Around = ()) -> list[str]:
        """Returns the variables that an expression may name, none where that is not known."""
        if isinstance(asked, ast.IfExp):
            return [*self.by(asked.body, around), *self.by(asked.orelse, around)]
        text = string_of(asked)
        if isinstance(asked, ast.Name):
            text = self._constants.get(asked.id)
            if text is None:
                return self._gone_over(asked, around)
        return [text] if text and may_be_variable(text) else []

    def _gone_over(self, asked: ast.Name, around: Around) -> list[str]:
        """Returns the literals that the innermost loop around a name goes over, where the name stands for these."""
        binder = self._shadows.binder(asked.id, around)
        outside = around[: around.index(binder)] if binder is not None else ()
        if isinstance(binder, COMPREHENSIONS):
            names = self._of_comprehension(asked.id, binder, outside)
        else:
            names = self._of_loop(asked, binder or self._tree, outside)
        return names if all(map(may_be_variable, names)) else []

    def _of_comprehension(self, name: str, node: Comprehension, outside: Around) -> list[str]:
        over = [one for one in node.generators if any(getattr(part, "id", "") == name for part in ast.walk(one.target))]
        if len(over) != 1 or not isinstance(over[0].target, ast.Name):
            return []
        return self._table(over[0].iter, outside if over[0] is node.generators[0] else (*outside, node))

    def _of_loop(self, asked: ast.Name, holder: ast.AST, outside: Around) -> list[str]:
        if holder not in self._loops:
            body = getattr(holder, "body", ())
            self._loops[holder] = loops_in(body if isinstance(body, list) else ())
        loops = self._loops[holder].get(asked.id, [])
        place = bisect_right(loops, asked.lineno, key=lambda loop: loop.lineno)
        loop = loops[place - 1] if place else None
        if loop is None or not isinstance(loop.target, ast.Name) or asked.lineno > _end(loop):
            return []
        places = self._shadows.places(asked.id, holder)
        first = bisect_left(places, loop.lineno, key=lambda one: one.line)
        if bisect_right(places, _end(loop), key=lambda one: one.line) - first > 1 or self._may_change(asked.id, holder):
            return []
        return self._table(loop.iter, outside if holder is self._tree else (*outside, holder))

    def _table(self, node: ast.expr, around: Around) -> list[str]:
        """Returns the literals of a display, or of the one that a name is bound to once."""
        if not isinstance(node, ast.Name):
            return _literals(node)
        holder = self._shadows.binder(node.id, around) or self._tree
        places = self._shadows.places(node.id, holder)
        is_told = any(isinstance(one, ast.arg) and one.arg == node.id for one in _parameters(holder))
        if len(places) != 1 or is_told or self._may_change(node.id, holder):
            return []
        return _literals(places[0].value)

    def _may_change(self, name: str, holder: ast.AST) -> bool:
        """Says whether an expression of a body, or a function in it, binds a name of the body."""
        if holder not in self._by_the_way:
            self._by_the_way[holder] = bound_by_the_way(holder)
        return name in self._by_the_way[holder]


def may_be_variable(name: str) -> bool:
    """Says whether a text may be the name of a variable.

    Example:
        >>> may_be_variable("A_B"), may_be_variable("a b"), may_be_variable("")
        (True, False, False)
    """
    return name != "" and name.isprintable() and not any(c.isspace() for c in name)


_VALUE = r""" = ['"][A-Z][A-Z0-9]*_"""
_NAMES_IT = re.compile(rf"^[A-Z][A-Z0-9_]*(?:: ?\w+)?{_VALUE}", re.MULTILINE)
_VALUE_OF_ONE = re.compile(_VALUE)
"""What few sources have, and begins with letters that are found soon."""


def may_name(text: str) -> bool:
    """Says whether a source can hold a constant that names a variable of the environment.

    Example:
        >>> may_name("PORT = 'LIB_PORT'"), may_name("PORT = 'port'")
        (True, False)
    """
    return _VALUE_OF_ONE.search(text) is not None and _NAMES_IT.search(text) is not None


def variables_named(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yields the constants of a module that may name variables of the environment, in capitals and with a `_`."""
    for name, text in _constants(tree):
        if "_" in text and text.isupper() and text.isidentifier():
            yield name, text


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yields the strings that a module's names in capitals are, where each is bound once."""
    found: dict[str, str | None] = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id.isupper():
                found[target.id] = None if target.id in found else string_of(getattr(node, "value", None))
    yield from ((name, text) for name, text in found.items() if text)


def _parameters(holder: ast.AST) -> list[ast.AST]:
    return [*ast.iter_child_nodes(holder.args)] if isinstance(holder, Function) else []


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _literals(node: ast.expr | None) -> list[str]:
    texts = [string_of(item) for item in node.elts] if isinstance(node, _DISPLAYS) else []
    known = [text for text in texts if text is not None]
    return known if len(known) == len(texts) else []
