"""Functions that read what an argument names, such as a variable of the environment, and what calls tell them."""

import ast
from collections.abc import Iterator

from kwindex.given import reader
from kwindex.render import Function
from kwindex.returned import inside, passed
from kwindex.shadows import Around, Shadows

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_OWN = {"self", "cls"}


class Readers:
    r"""The functions of a module that read what is named by a parameter of theirs, each with these parameters.

    Example:
        >>> tree = ast.parse("def read(name): return environ[name]\nread('A')")
        >>> readers = Readers(tree, Shadows())
        >>> readers.add(ast.Name("name"), (tree.body[0],))
        >>> [value.value for value in readers.told(tree.body[1].value, ())]
        ['A']
    """

    def __init__(self, tree: ast.Module, shadows: Shadows) -> None:
        self._tree, self._shadows = tree, shadows
        self._parameters: dict[Function, set[str]] = {}
        self._outer: dict[Function, ast.AST | None] = {}
        self._classes: dict[ast.stmt, str] | None = None

    @property
    def names(self) -> set[str]:
        """The names of the functions."""
        return {function.name for function in self._parameters}

    def __len__(self) -> int:
        return sum(map(len, self._parameters.values()))

    def given(self, module: str) -> dict[str, str]:
        """Returns what is told of the functions that other modules can call by their names."""
        return {
            f"{module}.{function.name}()": reader(_positional(function), _by_name(function), read)
            for function, read in self._parameters.items()
            if self._outer[function] is None and not self._class_of(function)
        }

    def add(self, asked: ast.expr | None, around: Around) -> None:
        """Notes that what an expression names is read, if that is a parameter, never bound anew, of what is around."""
        binder = self._shadows.binder(asked.id, around) if isinstance(asked, ast.Name) else None
        if not isinstance(asked, ast.Name) or not isinstance(binder, _FUNCTIONS):
            return
        if asked.id in (*_positional(binder), *_by_name(binder)) and not any(
            _binds(node, asked.id) for node in ast.walk(binder)
        ):
            self._parameters.setdefault(binder, set()).add(asked.id)
            place = around.index(binder)
            self._outer[binder] = around[place - 1] if place else None

    def told(self, call: ast.Call, around: Around) -> Iterator[ast.expr]:
        """Yields what a call tells such a function to read."""
        for function, parameters in [*self._parameters.items()]:  # what is told may be noted meanwhile
            if self._is_called(function, call.func, around):
                for name, value in passed(call, function, isinstance(call.func, ast.Attribute)):
                    if name in parameters and value is not None:
                        yield value

    def _is_called(self, function: Function, callee: ast.expr, around: Around) -> bool:
        owner = self._class_of(function)
        if isinstance(callee, ast.Name) and callee.id == function.name and not owner:
            return self._shadows.binder(callee.id, around) is self._outer[function]
        if not owner or not isinstance(callee, ast.Attribute) or not isinstance(callee.value, ast.Name):
            return False
        return callee.attr == function.name and callee.value.id in {*_OWN, owner}

    def _class_of(self, function: Function) -> str:
        """Returns the name of the class that a function is a method of, '' for none."""
        if self._classes is None:
            self._classes = {}
            left: list[ast.stmt] = [*self._tree.body]
            while left:
                held = inside(node := left.pop())
                left += held
                if isinstance(node, ast.ClassDef):
                    self._classes.update(dict.fromkeys(held, node.name))
        return self._classes.get(function, "")


def _positional(function: Function) -> list[str]:
    return [one.arg for one in (*function.args.posonlyargs, *function.args.args)]


def _by_name(function: Function) -> list[str]:
    return [one.arg for one in function.args.kwonlyargs]


def _binds(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load)
