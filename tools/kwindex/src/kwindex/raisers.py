"""Messages that an error's own class makes, and those that functions raise as they are told them."""

import ast
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kwindex.given import RAISES, raiser
from kwindex.makers import Call
from kwindex.messages import templates
from kwindex.model import Entry, Want
from kwindex.readers import Callees, positional
from kwindex.render import expression
from kwindex.scope import Scope
from kwindex.shadows import Shadows

_ERRORS = ("Error", "Exception", "Exit")
_HOLES = re.compile(r"\{[^{}]*\}")
_WORD = re.compile(r"[^\W\d_]{3}")
_STRING = "__str__"


class _Raised(NamedTuple):
    """The error that a function raises, and its parameters that are the message, and the error where one is."""

    error: str
    message: str
    kind: str


class Raisers:
    """What the classes of errors and the raising functions of a file say to users."""

    def __init__(self, tree: ast.Module) -> None:
        self._errors: set[str] = set()
        self._callees = Callees[_Raised](tree, Shadows())

    def define(self, node: ast.ClassDef) -> None:
        """Notes a class, which is an error where a base is one."""
        bases = [_last(base) for base in node.bases]
        if any(base in self._errors or base.endswith(_ERRORS) for base in bases):
            self._errors.add(node.name)

    def own(self, node: ast.Call | ast.Return, scope: Scope) -> list[str]:
        r"""Returns what the class of an error says in `super().__init__(text)`, or returns as its text.

        Example:
            >>> tree = ast.parse("class E(ValueError):\n def __init__(self, n):\n  super().__init__(f'{n} is odd')")
            >>> raisers, made = Raisers(tree), tree.body[0].body[0]
            >>> raisers.define(tree.body[0])
            >>> around = Scope("class", "m.E", None, node=tree.body[0])
            >>> raisers.own(made.body[0].value, Scope("function", "m.E.__init__", around, node=made))
            ['E: {n} is odd']
        """
        owner = scope.outer.node if scope.outer is not None else None
        if not isinstance(owner, ast.ClassDef) or owner.name not in self._errors:
            return []
        told: list[ast.expr] = []
        if isinstance(node, ast.Return):
            if node.value is not None and getattr(scope.node, "name", "") == _STRING:
                told = [node.value]
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "__init__":
            told = [one for one in node.args if not isinstance(one, ast.Starred)]
        return [f"{owner.name}: {text}" for text in templates(told, scope) if _WORD.search(_HOLES.sub(" ", text))]

    def note(self, node: ast.Raise, scope: Scope) -> None:
        """Notes a function that raises an error whose message is a parameter of it."""
        made = node.exc
        if not isinstance(made, ast.Call) or scope.kind != "function" or scope.node is None:
            return
        own = [one.id for one in (*made.args, made.func) if isinstance(one, ast.Name) and _is_told(one.id, scope)]
        kind = own.pop() if isinstance(made.func, ast.Name) and made.func.id in own else ""
        if own and isinstance(scope.node, ast.FunctionDef | ast.AsyncFunctionDef):
            around = tuple(one.node for one in scope.functions if one.node is not None)
            self._callees.note(_Raised(expression(made.func), own[0], kind), scope.node, around)

    def settled(self, calls: Iterable[Call], file: str) -> Iterator[Entry | Want]:
        """Yields the errors that calls of such functions raise, and what calls ask of other modules."""
        for call in calls:
            if may_raise(_last(call.node.func)):
                yield from _asked(call, file)
        yield from self._told(calls, file)

    def given(self, module: str) -> dict[str, str]:
        """Returns what is told of the functions that other modules can call by their names."""
        return {
            f"{module}.{name}{RAISES}": raiser(positional(function), one.message, one.error)
            for name, function, several in self._callees.outward()
            for one in several[:1]
            if not one.kind
        }

    def _told(self, calls: Iterable[Call], file: str) -> Iterator[Entry]:
        """Yields the errors that calls of functions of the file raise; a word alone is no message."""
        names = self._callees.names
        for call in calls:
            if _last(call.node.func) not in names:
                continue
            around = tuple(one.node for one in call.scope.functions if one.node is not None)
            for raised, told in self._callees.told(call.node, around):
                value, kind = told.passed.get(raised.message), told.passed.get(raised.kind)
                error = expression(kind) if kind is not None else raised.error
                for text in _messages(value, call.scope):
                    yield Entry(call.scope.prefix, "error", file, *call.lines, f"{error}: {text}", "")


def may_raise(word: str) -> bool:
    """Says whether a function of this name may raise errors for other modules.

    Example:
        >>> [word for word in ("_p_assert", "raise_unsupported", "print") if may_raise(word)]
        ['_p_assert', 'raise_unsupported']
    """
    return "assert" in word or "raise" in word or "unsupported" in word or "fail" in word or "throw" in word


def _asked(call: Call, file: str) -> Iterator[Want]:
    """Yields what a call tells a function of another module that may be the message of an error."""
    first: ast.expr = call.node.func
    while isinstance(first, ast.Attribute):
        first = first.value
    known = call.scope.meant(first.id) if isinstance(first, ast.Name) else None
    if known is None or known.what != "path":
        return
    path = call.scope.dotted(call.node.func)
    told = [*enumerate(call.node.args), *((word.arg, word.value) for word in call.node.keywords if word.arg)]
    for key, value in told:
        for text in _messages(value, call.scope):
            yield Want(f"{path}{RAISES}", str(key), Entry(call.scope.prefix, "error", file, *call.lines, text, ""))


def _messages(value: ast.expr | None, scope: Scope) -> list[str]:
    """Returns the texts of several words that an argument may be; what a name stands for is not known any more."""
    known = [] if value is None or isinstance(value, ast.Name) else templates([value], scope)
    return [text for text in known if " " in _HOLES.sub("", text).strip()]


def _is_told(name: str, scope: Scope) -> bool:
    """Says whether a name is a parameter of the function at hand, never bound anew."""
    return scope.has_parameter(name) and not scope.binding(name)[1]


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
