"""Names that functions bind for themselves: inside of them they are not what the module calls so."""

import ast
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_INNER = (*_DEFINITIONS, ast.Lambda, *COMPREHENSIONS)
"""What has names of its own. A class has, too, but the functions in it do not see them."""
_OWN = frozenset(_INNER)
_WITH_PARAMETERS = (*_DEFINITIONS, ast.Lambda)
_PATTERNS = (ast.MatchAs, ast.MatchStar, ast.MatchMapping)
_IMPORTS = (ast.Import, ast.ImportFrom)
_BINDING = frozenset((ast.Global, ast.Nonlocal, *_IMPORTS, *_DEFINITIONS, ast.ClassDef, ast.ExceptHandler, *_PATTERNS))
"""What binds names without a node for the name."""
_HOLDING = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.ExceptHandler)
_FIELDS = ("finalbody", "orelse", "handlers", "body")
"""The fields of statements that hold others, the last first."""
_NOT_OWN = (ast.Global, ast.Nonlocal, *_IMPORTS)
_OUTWARD = (ast.Global, ast.Nonlocal)
_ASSIGNED = (ast.Assign, ast.AnnAssign)
_LISTED, _SINGLE = (ast.Assign, ast.Delete), (ast.AnnAssign, ast.AugAssign, ast.For, ast.AsyncFor)
_WITHS = (ast.With, ast.AsyncWith)
_LEAVES = frozenset((ast.Name, ast.Constant, ast.MatchSingleton, *_OUTWARD, ast.alias))
_TEXTS = frozenset(
    (
        *("ctx", "op", "ops", "id", "attr", "name", "arg", "kind", "rest", "kwd_attrs"),
        *("module", "level", "simple", "is_async", "conversion", "str", "type_comment", "type_ignores"),
    )
)
"""The fields of nodes that hold no nodes, or only such as consist of nothing."""

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
        for child in parts(node):
            yield child, around
        return
    inside = (*around, node)
    for child in parts(node):
        if isinstance(child, ast.comprehension):
            is_first = isinstance(node, COMPREHENSIONS) and child is node.generators[0]
            yield child.iter, around if is_first else inside
            yield from ((one, inside) for one in (child.target, *child.ifs))
        elif isinstance(node, ast.Lambda):
            yield child, inside if child is node.body else around
        else:
            yield child, inside if isinstance(node, COMPREHENSIONS) or isinstance(child, ast.stmt) else around


class Shadows:
    r"""Which names the functions of a tree bind, found out where it is asked for.

    Args:
        by_statements: Whether only statements of the tree bind names, which is so of a text without `:=`; then its
            expressions need not be gone through.

    Example:
        >>> function = ast.parse("def f(a):\n    import b\n    for c in a: d = e").body[0]
        >>> [name for name in "abcde" if Shadows().hide(name, (function,))]
        ['a', 'c', 'd']
    """

    def __init__(self, by_statements: bool = False) -> None:
        self._by_statements = by_statements
        self._bound: dict[ast.AST, tuple[set[str], set[str]]] = {}
        self._places: dict[ast.AST, dict[str, list[Bound]]] = {}

    def places(self, name: str, holder: ast.AST) -> "list[Bound]":
        """Returns where the statements of a module, class or function bind a name, in the order of its lines."""
        if holder not in self._places:
            body = getattr(holder, "body", ())
            self._places[holder] = bound_in(body if isinstance(body, list) else ())
        return self._places[holder].get(name, [])

    def hide(self, name: str, around: Around) -> bool:
        """Says whether a name is bound by what it stands in, and not by an import there."""
        return self.binder(name, around) is not None

    def binder(self, name: str, around: Around) -> ast.AST | None:
        """Returns what binds a name, of what it stands in, the innermost; None where that is an import or nothing."""
        for function in reversed(around):
            if function not in self._bound:
                self._bound[function] = _bound(function, self._by_statements)
            own, others = self._bound[function]
            if name in own or name in others:
                return function if name in own else None
        return None


def _bound(function: ast.AST, by_statements: bool) -> tuple[set[str], set[str]]:
    """Returns the names that a function binds itself, and those that it imports or says are not its own."""
    own: set[str] = set()
    others: set[str] = set()
    if isinstance(function, _WITH_PARAMETERS):
        own.update(node.arg for node in parts(function.args) if isinstance(node, ast.arg))
    if by_statements and isinstance(function, _DEFINITIONS):
        for name, places in bound_in(function.body).items():
            is_other = [isinstance(one.node, _NOT_OWN) for one in places]
            others.update([name] * any(is_other))
            own.update([name] * (not all(is_other)))
        return own - others, others
    for name, node in _binding([child for child, around in children(function, ()) if around]):
        (others if isinstance(node, _NOT_OWN) else own).add(name)
    return own - others, others


def _binding(stack: list[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Yields the names that nodes bind, or say are not their own, each with what does; functions in them do not."""
    while stack:
        node = stack.pop()
        kind = type(node)
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                yield node.id, node
        elif kind in _BINDING:
            for name in _bound_by(node):
                yield name, node
            if isinstance(node, ast.ExceptHandler):
                stack += node.body
            elif isinstance(node, _PATTERNS):
                stack += parts(node)
        elif kind not in _OWN and kind is not ast.Constant:
            stack += parts(node)


def _bound_by(node: ast.AST) -> list[str]:
    """Returns the names that one of `_BINDING` binds, or says are not its own."""
    if isinstance(node, _OUTWARD):
        return node.names
    if isinstance(node, _IMPORTS):
        return [one.asname or one.name.partition(".")[0] for one in node.names]
    name = node.rest if isinstance(node, ast.MatchMapping) else getattr(node, "name", None)
    return [name] if name else []


class Bound(NamedTuple):
    """One place where a name is bound: its line, what binds it, and of a plain assignment the statement and value."""

    line: int
    node: ast.AST
    statement: ast.stmt | None = None
    value: ast.expr | None = None


def bound_in(body: Iterable[ast.stmt]) -> dict[str, list[Bound]]:
    r"""Returns where the statements of a body bind names, in the order of its lines; expressions may do so, too.

    Example:
        >>> found = bound_in(ast.parse("a = 1\nfor a in b: pass\ndef f():\n    c = 2").body)
        >>> {name: [(one.line, one.value and one.value.value) for one in places] for name, places in found.items()}
        {'a': [(1, 1), (2, None)], 'f': [(3, None)]}
    """
    found: dict[str, list[Bound]] = {}
    for node in _statements(body):
        if type(node) in _BINDING:
            for name in _bound_by(node):
                found.setdefault(name, []).append(Bound(node.lineno, node))
            continue
        for target in _targets(node):
            if isinstance(target, ast.Name):
                value = (node, node.value) if isinstance(node, _ASSIGNED) else ()
                found.setdefault(target.id, []).append(Bound(node.lineno, target, *value))
            else:
                for name, part in _binding([target]):
                    found.setdefault(name, []).append(Bound(node.lineno, part))
    return found


def loops_in(body: Iterable[ast.stmt]) -> dict[str, list[ast.For]]:
    r"""Returns the loops of a body by the names that they go over with, in the order of its lines.

    Example:
        >>> found = loops_in(ast.parse("for a, b in c:\n    for a in d: pass").body)
        >>> {name: [loop.lineno for loop in loops] for name, loops in found.items()}
        {'b': [1], 'a': [1, 2]}
    """
    found: dict[str, list[ast.For]] = {}
    for node in _statements(body):
        if isinstance(node, ast.For):
            for name, _ in _binding([node.target]):
                found.setdefault(name, []).append(node)
    return found


def bound_by_the_way(node: ast.AST) -> set[str]:
    r"""Returns the names that expressions anywhere in a node bind, and those that functions in it bind outside of them.

    Example:
        >>> sorted(bound_by_the_way(ast.parse("a = (b := 1)\ndef f():\n    global c")))
        ['b', 'c']
    """
    found: set[str] = set()
    stack = [node]
    while stack:
        one = stack.pop()
        if type(one) in _LEAVES:
            if isinstance(one, _OUTWARD):
                found.update(one.names)
            continue
        stack += parts(one)
        if isinstance(one, ast.NamedExpr):
            found.add(one.target.id)
    return found


def methods_in(body: Iterable[ast.stmt]) -> dict[ast.stmt, ast.ClassDef]:
    r"""Returns what stands in the classes of a body, each with its class; functions of the body are not gone into.

    Example:
        >>> found = methods_in(ast.parse("class A:\n    class B:\n        def f(self): ...").body)
        >>> [(one.name, owner.name) for one, owner in found.items()]
        [('B', 'A'), ('f', 'B')]
    """
    found: dict[ast.stmt, ast.ClassDef] = {}
    left = [node for node in _statements(body) if isinstance(node, ast.ClassDef)]
    while left:
        owner = left.pop()
        held = [one for one in _statements(owner.body) if isinstance(one, ast.stmt)]
        found.update(dict.fromkeys(held, owner))
        left += [one for one in held if isinstance(one, ast.ClassDef)]
    return found


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt | ast.ExceptHandler]:
    """Yields the statements of a body, in the order of its lines; not those of functions and classes in it."""
    stack: list[ast.stmt | ast.ExceptHandler] = list(body)
    stack.reverse()
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, ast.Match):
            stack += [one for case in reversed(node.cases) for one in reversed(case.body)]
        elif isinstance(node, _HOLDING):
            for part in _FIELDS:
                stack += reversed(getattr(node, part, ()))


def _targets(node: ast.stmt | ast.ExceptHandler) -> Sequence[ast.AST]:
    """Returns what a statement that is no definition and no import binds."""
    if isinstance(node, _LISTED):
        return node.targets
    if isinstance(node, _SINGLE):
        return [node.target]
    if isinstance(node, _WITHS):
        return [item.optional_vars for item in node.items if item.optional_vars is not None]
    if type(node).__name__ == "TypeAlias":  # which came with Python 3.12
        return [node.name]  # type: ignore[union-attr, list-item]
    return [case.pattern for case in node.cases] if isinstance(node, ast.Match) else []


def inside(node: ast.stmt) -> list[ast.stmt]:
    """Returns the statements that a statement holds itself, in the order of its lines."""
    if isinstance(node, ast.Match):
        return [one for case in node.cases for one in case.body]
    found: list[ast.stmt] = [*getattr(node, "body", ())]
    for handler in getattr(node, "handlers", ()):
        found += handler.body
    return [*found, *getattr(node, "orelse", ()), *getattr(node, "finalbody", ())]


def parts(node: ast.AST) -> list[ast.AST]:
    """Returns what a node consists of, as `ast.iter_child_nodes` does, in a part of the time.

    Contexts and operators, which consist of nothing, are left out.

    Example:
        >>> [type(one).__name__ for one in parts(ast.parse("a + f(b)", mode="eval").body)]
        ['Name', 'Call']
    """
    found: list[ast.AST] = []
    for field in _FIELDS_OF[type(node)]:
        value = getattr(node, field, None)
        if type(value) is list:
            found += filter(None, value)
        elif value is not None:
            found.append(value)
    return found


class _Fields(dict[type[ast.AST], list[str]]):
    """The fields of each kind of node that may hold nodes which consist of anything."""

    def __missing__(self, kind: type[ast.AST]) -> list[str]:
        texts = _TEXTS - {"name"} if kind.__name__ == "TypeAlias" else _TEXTS
        self[kind] = [] if kind in _LEAVES else [field for field in kind._fields if field not in texts]
        return self[kind]


_FIELDS_OF = _Fields()
