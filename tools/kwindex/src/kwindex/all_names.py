"""The names that a module gives its `__all__`, as far as they stand there as literals."""

import ast
import re
from collections.abc import Iterator, Sequence

from kwindex.exported import ALL, MORE
from kwindex.model import Entry
from kwindex.render import string_of
from kwindex.shadows import inside


class All:
    """The names that the statements of a module give its `__all__`, in their order, of all branches."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._more = False

    def read(self, node: ast.stmt) -> None:
        """Takes a statement of a module, if it is about its `__all__`."""
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(map(_is_all, targets)):
                self._add(node.value)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            self._called(node.value)

    def signature(self, written: str) -> str:
        """Returns the binding with all the names, where there are any; else as it is written.

        Example:
            >>> names = All()
            >>> names.read(ast.parse("__all__ += 'f', 'g'").body[0])
            >>> names.signature("__all__: list[str] = []")
            "__all__: list[str] = ['f', 'g']"
        """
        listed = ", ".join([*map(repr, self._names), *[MORE] * self._more])
        return written if self._more and not self._names else f"{written.partition(' = ')[0]} = [{listed}]"

    def _called(self, call: ast.Call) -> None:
        if not (isinstance(call.func, ast.Attribute) and _is_all(call.func.value) and len(call.args) == 1):
            return
        if call.func.attr == "remove":
            self._names.pop(string_of(call.args[0]) or "", None)
        elif call.func.attr in ("append", "extend"):
            self._add(ast.List(call.args) if call.func.attr == "append" else call.args[0])

    def _add(self, value: ast.expr) -> None:
        left = [value]
        while left:
            one = left.pop()
            if isinstance(one, ast.BinOp) and isinstance(one.op, ast.Add):
                left += [one.right, one.left]
            elif isinstance(one, ast.List | ast.Tuple):
                for name in map(string_of, one.elts):
                    self._take(name)
            elif not _is_all(one):
                self._more = True

    def _take(self, name: str | None) -> None:
        if name is not None and re.fullmatch(r"\w+", name):
            self._names[name] = None
        else:
            self._more = True


def _is_all(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == ALL


def complete(entries: list[Entry], body: Sequence[ast.stmt], module: str) -> None:
    """Says all its names in the entry of a module's `__all__`, not only those of its first binding."""
    told = All()
    for node in _of_module(body):
        told.read(node)
    for place, entry in enumerate(entries):
        if entry.name == f"{module}.{ALL}" and entry.kind in ("constant", "variable"):
            entries[place] = entry._replace(signature=told.signature(entry.signature))


def _of_module(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yields the statements of a module, those in its branches too."""
    left = [*reversed(body)]
    while left:
        node = left.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            left += reversed(inside(node))
