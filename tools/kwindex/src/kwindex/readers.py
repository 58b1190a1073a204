"""Functions that do something with what calls tell them, such as read a variable of the environment of that name."""

import ast
from collections.abc import Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

from kwindex.given import reader
from kwindex.render import Function
from kwindex.returned import passed
from kwindex.shadows import Around, Shadows, methods_in

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
        self._known: dict[tuple[ast.AST | None, str], Function] = {}
        """What the names of functions stand for in the class or function that they are defined in, None: the module."""
        self._classes: dict[ast.AST, dict[ast.stmt, ast.ClassDef]] = {}

    @property
    def names(self) -> set[str]:
        """The names of the functions."""
        return {name for _, name in self._known}

    def __len__(self) -> int:
        return sum(map(len, self._what.values()))

    def count(self, function: Function) -> int:
        """Returns how much a function is known to do."""
        return len(self._what.get(function, ()))

    def note(self, what: What, function: Function, around: Around) -> None:
        """Notes what a function does, which is one of those around."""
        if function not in self._what:
            holder = self._class_of(function, around) or _outer(function, around)
            places = self._shadows.places(function.name, holder or self._tree)
            if not places or places[-1].node is function:  # else its name stands for another thing in the end
                self._known[holder, function.name] = function
        self._what.setdefault(function, {})[what] = None

    def told(self, call: ast.Call, around: Around) -> Iterator[tuple[What, Told]]:
        """Yields what the function does that is called, with what it is told."""
        for function in self._called(call.func, around):
            told = Told(function, dict(passed(call, function, _tells_instance(call.func, function))))
            yield from ((what, told) for what in [*self._what[function]])  # what is told may be noted meanwhile

    def outward(self, of_classes: bool = False) -> Iterator[tuple[str, Function, list[What]]]:
        """Yields the functions that other modules can call, by their names in the module, with what they do."""
        for (holder, name), function in self._known.items():
            if holder is None:
                yield name, function, [*self._what[function]]
            elif of_classes and isinstance(holder, ast.ClassDef) and decorated(function) & OF_CLASS:
                places = self._shadows.places(holder.name, self._tree)
                if places and places[-1].node is holder:
                    yield f"{holder.name}.{name}", function, [*self._what[function]]

    def _called(self, callee: ast.expr, around: Around) -> list[Function]:
        """Returns the function that is called by its name, or as `self.f` or `A.f` the one of that class.

        Where the class leaves `self.f` to those that derive from it, these are several.
        """
        if isinstance(callee, ast.Name):
            function = self._known.get((self._shadows.binder(callee.id, around), callee.id))
            return [function] if function is not None else []
        if not isinstance(callee, ast.Attribute) or not isinstance(callee.value, ast.Name):
            return []
        owner = self._class_by(callee.value.id, around)
        function = self._known.get((owner, callee.attr)) if owner is not None else None
        if function is not None:
            return [function]
        is_own = owner is not None and callee.value.id in _OWN and callee.attr in self.names
        return self._instead(owner, callee.attr) if owner is not None and is_own else []

    def _instead(self, owner: ast.ClassDef, name: str) -> list[Function]:
        """Returns what classes that derive from one have for a method that it leaves open."""
        own = [one for one in owner.body if isinstance(one, _FUNCTIONS) and one.name == name]
        if len(own) != 1 or not is_left_open(own[0]):
            return []
        return [
            function
            for (holder, known), function in self._known.items()
            if known == name and isinstance(holder, ast.ClassDef) and self._derives(holder, owner)
        ]

    def _derives(self, node: ast.ClassDef, owner: ast.ClassDef) -> bool:
        """Says whether a class derives from another one, through classes of the module."""
        left, seen = [node], {node}
        while left:
            for base in left.pop().bases:
                places = self._shadows.places(base.id, self._tree) if isinstance(base, ast.Name) else []
                found = places[-1].node if places else None
                if found is owner:
                    return True
                if isinstance(found, ast.ClassDef) and found not in seen:
                    seen.add(found)
                    left.append(found)
        return False

    def _class_by(self, name: str, around: Around) -> ast.ClassDef | None:
        """Returns the class that a name stands for, that of the method around for its instance."""
        binder = self._shadows.binder(name, around)
        if name in _OWN:
            return self._class_of(binder, around) if isinstance(binder, _FUNCTIONS) else None
        places = self._shadows.places(name, binder or self._tree)
        last = places[-1].node if places else None
        return last if isinstance(last, ast.ClassDef) else None

    def _class_of(self, function: Function, around: Around) -> ast.ClassDef | None:
        """Returns the class that a function is a method of, which is one of those around."""
        holder = _outer(function, around) or self._tree
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


def is_left_open(function: Function) -> bool:
    r"""Says whether a method does nothing: classes that derive from its own are to have another.

    Example:
        >>> texts = "def f(self):\n 'Does it.'\n raise NotImplementedError", "def f(self): ...", "def f(self): g()"
        >>> [is_left_open(ast.parse(text).body[0]) for text in texts]
        [True, True, False]
    """
    return all(map(_is_nothing, function.body))


def _is_nothing(node: ast.stmt) -> bool:
    if isinstance(node, ast.Raise):
        made = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return isinstance(made, ast.Name) and made.id == "NotImplementedError"
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def positional(function: Function) -> list[str]:
    """Returns the parameters of a function that a call can tell by their place."""
    return [one.arg for one in (*function.args.posonlyargs, *function.args.args)]


def by_name(function: Function) -> list[str]:
    """Returns the parameters of a function that a call can tell by their names alone."""
    return [one.arg for one in function.args.kwonlyargs]


def defaults(function: Function) -> dict[str, ast.expr]:
    """Returns what parameters of a function are where a call does not tell them."""
    first = [*function.args.posonlyargs, *function.args.args]
    pairs = [
        *zip(first[len(first) - len(function.args.defaults) :], function.args.defaults, strict=True),
        *zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True),
    ]
    return {one.arg: value for one, value in pairs if value is not None}


def decorated(function: Function) -> set[str]:
    """Returns the names that a function is decorated with."""
    return {one.id for one in function.decorator_list if isinstance(one, ast.Name)}


def _outer(function: Function, around: Around) -> ast.AST | None:
    """Returns the function that one of those around is defined in, None for the module."""
    place = around.index(function)
    return around[place - 1] if place else None


def _tells_instance(callee: ast.expr, function: Function) -> bool:
    """Says whether a call as this one tells a method its class or instance by itself."""
    owner = callee.value if isinstance(callee, ast.Attribute) else None
    return isinstance(owner, ast.Name) and (owner.id in _OWN or bool(decorated(function) & OF_CLASS))


def _binds(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load)
