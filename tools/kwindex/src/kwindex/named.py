"""The variables of the environment that an expression may name, as constants, conditions and loops tell."""

import ast
from collections import Counter
from collections.abc import Iterator

from kwindex.render import string_of

_DISPLAYS = (ast.List, ast.Tuple, ast.Set)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Named:
    r"""What the names of a module stand for, where they are read.

    Example:
        >>> text = "KEY = 'A'\nfor word in ('B', 'C'):\n    read(word)"
        >>> tree = ast.parse(text)
        >>> named = Named(tree)
        >>> named.by(ast.Name("KEY")), named.by(tree.body[1].body[0].value.args[0]), named.by(ast.Name("other"))
        (['A'], ['B', 'C'], [])
    """

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._constants = dict(_constants(tree))
        self._loops: list[tuple[str, range, list[str]]] | None = None

    def by(self, asked: ast.expr | None) -> list[str]:
        """Returns the variables that an expression may name, none where that is not known."""
        if isinstance(asked, ast.IfExp):
            return [*self.by(asked.body), *self.by(asked.orelse)]
        text = string_of(asked)
        if isinstance(asked, ast.Name):
            text = self._constants.get(asked.id)
            if text is None:
                return self._gone_over(asked)
        return [text] if text and may_be_variable(text) else []

    def _gone_over(self, asked: ast.Name) -> list[str]:
        """Returns the literals that the innermost loop around a name goes over, where the name stands for these."""
        if self._loops is None:
            self._loops = list(_loops(self._tree))
        around = [loop for loop in self._loops if loop[0] == asked.id and asked.lineno in loop[1]]
        names = min(around, key=lambda loop: len(loop[1]))[2] if around else []
        return names if all(map(may_be_variable, names)) else []


def may_be_variable(name: str) -> bool:
    """Says whether a text may be the name of a variable.

    Example:
        >>> may_be_variable("A_B"), may_be_variable("a b"), may_be_variable("")
        (True, False, False)
    """
    return name != "" and name.isprintable() and not any(c.isspace() for c in name)


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yields the strings that a module's names in capitals are, where each is bound once."""
    found: dict[str, str | None] = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id.isupper():
                found[target.id] = None if target.id in found else string_of(getattr(node, "value", None))
    yield from ((name, text) for name, text in found.items() if text)


def _loops(tree: ast.Module) -> Iterator[tuple[str, range, list[str]]]:
    """Yields the targets of loops over literals, the lines of each loop, and the literals; none for unknown ones."""
    lists: dict[str, list[str]] = {}
    bound: Counter[str] = Counter()
    found: list[tuple[ast.AST, ast.expr, ast.expr]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound[node.id] += 1
        elif isinstance(node, ast.arg):
            bound[node.arg] += 1
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            lists[node.targets[0].id] = _literals(node.value)
        elif isinstance(node, ast.For):
            found.append((node, node.target, node.iter))
        elif isinstance(node, _COMPREHENSIONS):
            found += ((node, one.target, one.iter) for one in node.generators)
    once = {name: texts for name, texts in lists.items() if bound[name] == 1}
    for node, over, table in found:
        names = once.get(table.id, []) if isinstance(table, ast.Name) else _literals(table)
        lines = range(getattr(node, "lineno", 0), (getattr(node, "end_lineno", 0) or 0) + 1)
        for one in ast.walk(over):
            if isinstance(one, ast.Name):
                yield one.id, lines, names if one is over else []


def _literals(node: ast.expr | None) -> list[str]:
    texts = [string_of(item) for item in node.elts] if isinstance(node, _DISPLAYS) else []
    known = [text for text in texts if text is not None]
    return known if len(known) == len(texts) else []
