"""Names that functions bind for themselves: inside of them they are not what the module calls so."""

import ast
from collections.abc import Iterator

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_INNER = (*_DEFINITIONS, ast.Lambda, *_COMPREHENSIONS)
"""What has names of its own. A class has, too, but the functions in it do not see them."""
_BINDING = (ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom, *_DEFINITIONS, ast.ClassDef, ast.ExceptHandler)
"""What binds names without a node for the name."""

Around = tuple[ast.AST, ...]
"""The functions, lambdas and comprehensions that something stands in, the innermost last."""


def children(node: ast.AST, around: Around) -> Iterator[tuple[ast.AST, Around]]:
    """Yields what a node consists of, each with what it stands in.

    Decorators, defaults and annotations stand outside of their function, and so does what a comprehension goes through.

    Example:
        >>> made = ast.parse("lambda x=first: second", mode="eval").body
        >>> [(ast.unparse(child), len(around)) for child, around in children(made, ())]
        [('x=first', 0), ('second', 1)]
    """
    if not isinstance(node, _INNER):
        yield from ((child, around) for child in ast.iter_child_nodes(node))
        return
    inside = (*around, node)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.comprehension):
            is_first = isinstance(node, _COMPREHENSIONS) and child is node.generators[0]
            yield child.iter, around if is_first else inside
            yield from ((one, inside) for one in (child.target, *child.ifs))
        elif isinstance(node, ast.Lambda):
            yield child, inside if child is node.body else around
        else:
            yield child, inside if isinstance(node, _COMPREHENSIONS) or isinstance(child, ast.stmt) else around


class Shadows:
    r"""Which names the functions of a tree bind, found out where it is asked for.

    Example:
        >>> function = ast.parse("def f(a):\n    import b\n    for c in a: d = e").body[0]
        >>> [name for name in "abcde" if Shadows().hide(name, (function,))]
        ['a', 'c', 'd']
    """

    def __init__(self) -> None:
        self._bound: dict[ast.AST, tuple[set[str], set[str]]] = {}

    def hide(self, name: str, around: Around) -> bool:
        """Says whether a name is bound by what it stands in, and not by an import there."""
        return self.binder(name, around) is not None

    def binder(self, name: str, around: Around) -> ast.AST | None:
        """Returns what binds a name, of what it stands in, the innermost; None where that is an import or nothing."""
        for function in reversed(around):
            if function not in self._bound:
                self._bound[function] = _bound(function)
            own, others = self._bound[function]
            if name in own or name in others:
                return function if name in own else None
        return None


def _bound(function: ast.AST) -> tuple[set[str], set[str]]:
    """Returns the names that a function binds itself, and those that it imports or says are not its own."""
    own: set[str] = set()
    others: set[str] = set()
    if isinstance(function, (*_DEFINITIONS, ast.Lambda)):
        own.update(node.arg for node in ast.iter_child_nodes(function.args) if isinstance(node, ast.arg))
    stack = [child for child, around in children(function, ()) if around]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                own.add(node.id)
        elif isinstance(node, _BINDING):
            if isinstance(node, ast.Global | ast.Nonlocal):
                others.update(node.names)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                others.update(one.asname or one.name.partition(".")[0] for one in node.names)
            elif node.name:
                own.add(node.name)
            if isinstance(node, ast.ExceptHandler):
                stack += node.body
        elif not isinstance(node, _INNER):
            stack += _parts(node)
    return own - others, others


def _parts(node: ast.AST) -> list[ast.AST]:
    """Returns what a node consists of, as `ast.iter_child_nodes` does, in a part of the time; without contexts."""
    found: list[ast.AST] = []
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, list):
            found += [one for one in value if isinstance(one, ast.AST)]
        elif isinstance(value, ast.AST) and field != "ctx":
            found.append(value)
    return found
