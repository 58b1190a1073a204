"""Functions that do something with what calls tell them, such as read a variable of the environment of that name."""

import ast
from collections.abc import Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

from kwindex.given import reader
from kwindex.render import Function
from kwindex.returned import passed
from kwindex.shadows import Around, Bound, Shadows, bound_in, methods_in

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_OWN = {"self", "cls"}
OF_CLASS = {"classmethod", "staticmethod"}
"""The decorators of methods that are called on a class."""

What = TypeVar("What", bound=Hashable)


class Told(NamedTuple):
    """What a call tells a function: each parameter with what is passed for it, None where that is not known."""

    function: Function
    passed: dict[str, ast.expr | None]


class Callees(Generic[What]):
    r"""The functions of a module that do something with what they are told, each with what that is.

    Example:
        >>> tree = ast.parse("def f(name): ...\nf('A')")
        >>> callees = Callees(tree, Shadows())
        >>> callees.note("reads name", tree.body[0], (tree.body[0],))
        >>> [(what, told.passed["name"].value) for what, told in callees.told(tree.body[1].value, ())]
        [('reads name', 'A')]
    """

    def __init__(self, tree: ast.Module, shadows: Shadows) -> None:
        self._tree, self._shadows = tree, shadows
        self._what: dict[Function, dict[What, None]] = {}
        self._outer: dict[Function, ast.AST | None] = {}
        self._classes: dict[ast.AST, dict[ast.stmt, ast.ClassDef]] = {}
        self._last: dict[Function, bool] = {}
        self._bound: dict[ast.AST, dict[str, list[Bound]]] = {}

    @property
    def names(self) -> set[str]:
        """The names of the functions."""
        return {function.name for function in self._what}

    def __len__(self) -> int:
        return sum(map(len, self._what.values()))

    def count(self, function: Function) -> int:
        """Returns how much a function is known to do."""
        return len(self._what.get(function, ()))

    def note(self, what: What, function: Function, around: Around) -> None:
        """Notes what a function does, which is one of those around."""
        self._what.setdefault(function, {})[what] = None
        place = around.index(function)
        self._outer[function] = around[place - 1] if place else None

    def told(self, call: ast.Call, around: Around) -> Iterator[tuple[What, Told]]:
        """Yields what the functions do that are called, with what they are told."""
        for function, several in [*self._what.items()]:  # what is told may be noted meanwhile
            if self._is_called(function, call.func, around):
                told = Told(function, dict(passed(call, function, isinstance(call.func, ast.Attribute))))
                yield from ((what, told) for what in [*several])

    def outward(self, of_classes: bool = False) -> Iterator[tuple[str, Function, list[What]]]:
        """Yields the functions that other modules can call, by their names in the module, with what they do."""
        for function, several in self._what.items():
            owner = self._class_of(function)
            if self._outer[function] is None and owner is None:
                yield function.name, function, [*several]
            elif owner is not None and of_classes and owner in self._tree.body and decorated(function) & OF_CLASS:
                yield f"{owner.name}.{function.name}", function, [*several]

    def _is_called(self, function: Function, callee: ast.expr, around: Around) -> bool:
        owner = self._class_of(function)
        if isinstance(callee, ast.Name) and callee.id == function.name and owner is None:
            return self._shadows.binder(callee.id, around) is self._outer[function] and self._stays(function)
        if owner is None or not isinstance(callee, ast.Attribute) or not isinstance(callee.value, ast.Name):
            return False
        named = callee.attr == function.name and callee.value.id in {*_OWN, owner.name}
        return named and self._stays(function)

    def _stays(self, function: Function) -> bool:
        """Says whether a function is what its name is bound to last, where it is defined."""
        if function not in self._last:
            holder = self._class_of(function) or self._outer[function] or self._tree
            if holder not in self._bound:
                self._bound[holder] = bound_in(getattr(holder, "body", ()))
            bound = self._bound[holder].get(function.name)
            self._last[function] = not bound or bound[-1].node is function
        return self._last[function]

    def _class_of(self, function: Function) -> ast.ClassDef | None:
        """Returns the class that a function is a method of."""
        holder = self._outer[function] or self._tree
        if holder not in self._classes:
            self._classes[holder] = methods_in(getattr(holder, "body", ()))
        return self._classes[holder].get(function)


class Readers(Callees[str]):
    r"""The functions of a module that read what is named by a parameter of theirs, each with these parameters.

    Example:
        >>> tree = ast.parse("def read(name): return environ[name]\nread('A')")
        >>> readers = Readers(tree, Shadows())
        >>> readers.add(ast.Name("name"), (tree.body[0],))
        >>> [value.value for value in readers.values(tree.body[1].value, ())]
        ['A']
    """

    def given(self, module: str) -> dict[str, str]:
        """Returns what is told of the functions that other modules can call by their names."""
        return {
            f"{module}.{name}()": reader(positional(function), by_name(function), read)
            for name, function, read in self.outward()
        }

    def add(self, asked: ast.expr | None, around: Around) -> None:
        """Notes that what an expression names is read, if that is a parameter, never bound anew, of what is around."""
        binder = self._shadows.binder(asked.id, around) if isinstance(asked, ast.Name) else None
        if not isinstance(asked, ast.Name) or not isinstance(binder, _FUNCTIONS):
            return
        if asked.id in (*positional(binder), *by_name(binder)) and not any(
            _binds(node, asked.id) for node in ast.walk(binder)
        ):
            self.note(asked.id, binder, around)

    def values(self, call: ast.Call, around: Around) -> Iterator[ast.expr]:
        """Yields what a call tells such a function to read."""
        for parameter, told in self.told(call, around):
            if (value := told.passed.get(parameter)) is not None:
                yield value


def positional(function: Function) -> list[str]:
    """Returns the parameters of a function that a call can tell by their place."""
    return [one.arg for one in (*function.args.posonlyargs, *function.args.args)]


def by_name(function: Function) -> list[str]:
    """Returns the parameters of a function that a call can tell by their names alone."""
    return [one.arg for one in function.args.kwonlyargs]


def decorated(function: Function) -> set[str]:
    """Returns the names that a function is decorated with."""
    return {one.id for one in function.decorator_list if isinstance(one, ast.Name)}


def _binds(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load)
