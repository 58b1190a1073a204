"""Messages that an error's own class makes, and those that functions raise as they are told them."""

import ast
import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kwindex.given import RAISES, raiser
from kwindex.makers import Call
from kwindex.messages import templates
from kwindex.model import Entry, Want
from kwindex.readers import Callees, Told, by_name, defaults, positional
from kwindex.render import Function, expression
from kwindex.scope import Scope
from kwindex.shadows import Around, Shadows

_ERRORS = ("Error", "Exception", "Exit")
_HOLES = re.compile(r"\{[^{}]*\}")
_WORD = re.compile(r"[^\W\d_]{3}")
_DEFINED = (ast.ClassDef, ast.Import, ast.ImportFrom)
_MOST_ERRORS = 4
"""Errors that one function may raise with what it is told: more are not told."""


class _Raised(NamedTuple):
    """The error that a function raises, its parameter that is the message, and the one that is the error, if any is."""

    error: str
    """The name of the error; where a parameter is that, of the one that it is by itself, '' for none."""
    message: str
    kind: str


class Raisers:
    """What the classes of errors and the raising functions of a file say to users."""

    def __init__(self, tree: ast.Module) -> None:
        self._errors: set[str] = set()
        self._made: set[ast.AST] = set()
        """The classes of errors."""
        self._callees = Callees[_Raised](tree, Shadows())

    def define(self, node: ast.ClassDef) -> None:
        """Notes a class, which is an error where a base is one."""
        if any(self._is_error(_last(base)) for base in node.bases):
            self._errors.add(node.name)
            self._made.add(node)

    def _is_error(self, name: str) -> bool:
        return name in self._errors or name.endswith(_ERRORS)

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
        owner = scope.outer.node if self._made and scope.outer is not None else None
        if owner not in self._made or not isinstance(owner, ast.ClassDef) or not isinstance(scope.node, Function):
            return []
        told: list[ast.expr] = []
        if isinstance(node, ast.Return):
            told = [node.value] if node.value is not None and scope.node.name == "__str__" else []
        elif scope.node.name == "__init__":
            told = [one for one in self._told_base(node, scope.node) if not isinstance(one, ast.Starred)]
        return [f"{owner.name}: {text}" for text in templates(told, scope) if _WORD.search(_HOLES.sub(" ", text))]

    def _told_base(self, call: ast.Call, function: Function) -> list[ast.expr]:
        """Returns what `super().__init__(...)` or `Base.__init__(self, ...)` tells the base, that of an error."""
        callee = call.func
        if not isinstance(callee, ast.Attribute) or callee.attr != "__init__":
            return []
        if isinstance(callee.value, ast.Call):
            return call.args if _last(callee.value.func) == "super" else []
        own = positional(function)[:1]
        is_base = self._is_error(_last(callee.value)) and [getattr(one, "id", "") for one in call.args[:1]] == own
        return call.args[1:] if is_base else []

    def note(self, node: ast.Raise, scope: Scope) -> None:
        """Notes a function that raises an error whose message is a parameter of it."""
        made, function = node.exc, scope.node
        if not isinstance(made, ast.Call) or not isinstance(function, Function):
            return
        raised = _raised(made, function, scope)
        if raised is not None and self._callees.count(function) < _MOST_ERRORS:
            self._callees.note(raised, function, _around(scope))

    def settled(self, calls: Iterable[Call], file: str) -> Iterator[Entry | Want]:
        """Yields the errors that calls of such functions raise, and what calls ask of other modules."""
        for call in calls:
            if may_raise(_last(call.node.func)):
                yield from _asked(call, file)
        yield from dict.fromkeys(self._told(calls, file))

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
            for raised, told in self._callees.told(call.node, _around(call.scope)):
                error = _error_told(raised, told, call)
                for text in _messages(told.passed.get(raised.message), call.scope) if error else ():
                    yield Entry(call.scope.prefix, "error", file, *call.lines, f"{error}: {text}", "")


@functools.lru_cache(maxsize=10_000)  # words of calls, of which few make up most
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
    by_place = itertools.takewhile(lambda pair: not isinstance(pair[1], ast.Starred), enumerate(call.node.args))
    told = [*by_place, *((word.arg, word.value) for word in call.node.keywords if word.arg)]
    for key, value in told:
        for text in _messages(value, call.scope):
            yield Want(f"{path}{RAISES}", str(key), Entry(call.scope.prefix, "error", file, *call.lines, text, ""))


def _messages(value: ast.expr | None, scope: Scope) -> list[str]:
    """Returns the texts of several words that an argument may be; what a name stands for is not known any more."""
    known = [] if value is None or isinstance(value, ast.Name) else templates([value], scope)
    return [text for text in known if " " in _HOLES.sub("", text).strip()]


def _raised(made: ast.Call, function: Function, scope: Scope) -> _Raised | None:
    """Returns what a function raises that is told one message for sure, None for any other."""
    values = [*made.args, *(word.value for word in made.keywords)]
    names = {one.id for one in values if isinstance(one, ast.Name) and scope.has_parameter(one.id)}
    usual = defaults(function) if names else {}
    texts = [name for name in names if not _is_no_text(usual.get(name))]
    if len(texts) != 1 or not _is_told(texts[0], function, scope):
        return None
    if not any(isinstance(one, ast.Name) and one.id == texts[0] for one in made.args):
        return None
    kind = made.func.id if isinstance(made.func, ast.Name) and scope.has_parameter(made.func.id) else ""
    if kind:
        error = _error(usual.get(kind), scope.outer)
        return _Raised(error, texts[0], kind) if _is_told(kind, function, scope) else None
    error = _error(made.func, scope)
    return _Raised(error, texts[0], "") if error else None


def _is_no_text(usual: ast.expr | None) -> bool:
    """Says whether what a parameter usually is tells that it is no text, such as a number."""
    return isinstance(usual, ast.Constant) and usual.value is not None and not isinstance(usual.value, str)


def _is_told(name: str, function: Function, scope: Scope) -> bool:
    """Says whether a name is a parameter that takes one value, and is never bound anew in its function."""
    is_one = name in (*positional(function), *by_name(function))
    return is_one and not scope.binding(name)[1] and not scope.binds_by_the_way(name)


def _error_told(raised: _Raised, told: Told, call: Call) -> str:
    """Returns the name of the error that a call has raised, '' where it is not known."""
    kind = told.passed.get(raised.kind)
    if kind is not None:
        return _error(kind, call.scope)
    unpacks = any(isinstance(one, ast.Starred) for one in call.node.args) or any(
        word.arg is None for word in call.node.keywords
    )
    return "" if raised.kind and unpacks else raised.error


def _error(node: ast.expr | None, scope: Scope | None) -> str:
    """Returns the dotted name of an error, '' for another expression and for what a function has in a variable."""
    first = node
    while isinstance(first, ast.Attribute):
        first = first.value
    if not isinstance(first, ast.Name) or scope is None:
        return ""
    holder, places = scope.binding(first.id)
    if holder is not None and holder.kind == "function":
        is_defined = all(isinstance(one.node, _DEFINED) for one in places)
        return expression(node) if is_defined and not holder.has_parameter(first.id) else ""
    return expression(node)


def _around(scope: Scope) -> Around:
    return tuple(one.node for one in scope.functions if one.node is not None)


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
