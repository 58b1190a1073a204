"""What a function of a file returns, as far as that may be a message or an error."""

import ast
from collections.abc import Iterator
from typing import NamedTuple

from kwindex.render import Function
from kwindex.shadows import inside

MOST_STATEMENTS = 100
"""Statements up to which a function is taken for one that makes messages."""


class Returned(NamedTuple):
    """The expressions that a function returns, and those that it binds to names, in the order of its lines."""

    values: list[ast.expr]
    bound: list[tuple[str, ast.expr]]

    @classmethod
    def of(cls, node: ast.FunctionDef) -> "Returned":
        r"""Returns what a function itself returns and binds, not the functions in it; of a long one nothing.

        Example:
            >>> told = Returned.of(ast.parse("def f(x):\n text = 'a'\n if x: return text\n return 'b'").body[0])
            >>> [ast.unparse(value) for value in told.values], [name for name, _ in told.bound]
            (['text', "'b'"], ['text'])
        """
        told = cls([], [])
        for place, statement in enumerate(_statements(node)):
            if place == MOST_STATEMENTS:
                return cls([], [])
            if isinstance(statement, ast.Return) and statement.value is not None:
                told.values.append(statement.value)
            elif isinstance(statement, ast.Assign):
                told.bound.extend((one.id, statement.value) for one in statement.targets if isinstance(one, ast.Name))
            elif isinstance(statement, ast.AnnAssign) and statement.value and isinstance(statement.target, ast.Name):
                told.bound.append((statement.target.id, statement.value))
        return told


def _statements(node: ast.stmt) -> Iterator[ast.stmt]:
    """Yields the statements in a function, in the order of its lines."""
    left = [*reversed(inside(node))]
    while left:
        statement = left.pop()
        yield statement
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            left += reversed(inside(statement))


def passed(call: ast.Call, node: Function, is_own: bool) -> Iterator[tuple[str, ast.expr | None]]:
    """Yields each parameter of a function with what a call passes for it, None where that is not known.

    Example:
        >>> call, node = (ast.parse(text).body[0] for text in ("f(1, b=2)", "def f(a, b, c): ..."))
        >>> [(name, value and value.value) for name, value in passed(call.value, node, False)]
        [('a', 1), ('b', 2), ('c', None)]
    """
    first = [*node.args.posonlyargs, *node.args.args]
    bound = is_own and not any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in node.decorator_list)
    positional = [one.arg for one in first][bound:]
    given = {word.arg: word.value for word in call.keywords}
    for name, value in zip(positional, call.args, strict=False):
        if isinstance(value, ast.Starred):
            break
        given[name] = value
    yield from ((one.arg, given.get(one.arg)) for one in (*first, *node.args.kwonlyargs))
