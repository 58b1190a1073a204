"""Functions that register what calls tell them, such as one that defines an operator by the schema it is given.

What a call of such a function tells it for sure is registered where the call stands. What it does not know itself, it
may be told in turn. A function of another module is asked by a want, see `given`.
"""

import ast
import functools
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice, product
from typing import NamedTuple

from kwindex.given import MAKES, UNPACKED, Making, maker, op_name
from kwindex.model import Entry, Want
from kwindex.readers import OF_CLASS, Callees, Told, decorated, defaults, positional
from kwindex.registrations import Registration, op_names
from kwindex.render import Function, expression
from kwindex.scope import Scope
from kwindex.shadows import Shadows
from kwindex.texts import depths, filled, names, text_of

MOST_LEVELS = 4
"""Functions through which an operator may be told, from the call to what registers it."""
_MOST_MAKINGS, _MOST_TOLD = 64, 64
"""What one function may make, and how often one call may have it made: more is not told."""
_NAMED = re.compile(r"(?:(?<![a-z])op|Op)s?(?![a-z])|prim|define")
"""What the names of functions hold that may register operators for other modules."""
_MAY_BE_OP = re.compile(r"[A-Za-z_][\w.:]*(?:\(|$)")


class Call(NamedTuple):
    """A call that may be of a function that registers what it is told, with where it stands."""

    node: ast.Call
    scope: Scope
    bound: str
    """The qualified name of what the call makes or decorates, '' for none."""
    lines: tuple[int, int]


class _Made(NamedTuple):
    """What a function makes of what it is told, in which its parameters are holes."""

    making: Making
    target: str
    """The function of another module that makes it, '' for none."""
    told: tuple[tuple[str, str | None], ...]
    """What that function is told."""
    through: tuple[Function, ...]
    """The functions through which it is made, the last first."""


class Makers:
    """The functions of a file that register what they are told, and the calls of them."""

    def __init__(self, tree: ast.Module, file: str) -> None:
        self._file = file
        self._callees = Callees[_Made](tree, Shadows())
        self._names: dict[Function, str] = {}
        self.calls: list[Call] = []

    def add(self, found: Registration, scope: Scope) -> None:
        """Notes a registration whose operator has parameters as holes, of a function around."""
        detail = "operator" if found.kind == "op" else found.detail
        self._note(_Made(Making(found.kind, detail, found.op), "", (), ()), [found.op], scope)

    def settled(self) -> Iterator[Entry | Want]:
        """Yields what the calls register, and what they ask of other modules."""
        found: dict[Entry | Want, None] = {}
        for call in self.calls:
            if may_hand_on(_last(call.node.func)):
                found.update(dict.fromkeys(self._asked(call)))
        for level in range(MOST_LEVELS if len(self._callees) else 0):
            known = self._callees.names
            for call in self.calls:
                if _last(call.node.func) in known:
                    found.update(dict.fromkeys(self._by_call(call, level)))
        yield from found

    def given(self, module: str) -> dict[str, str]:
        """Returns what is told of the functions that other modules can call by their names."""
        return {
            f"{module}.{name}{MAKES}": maker(_by_place(function, name), _defaults(function), makings)
            for name, function, several in self._callees.outward(of_classes=True)
            if (makings := [made.making for made in several if not made.target])
        }

    def _note(self, made: _Made, texts: Iterable[str], scope: Scope) -> None:
        """Notes what the one function makes whose parameters are holes of some texts."""
        deep = {depth for text in texts for depth in depths(text)}
        around = scope.functions
        if len(deep) != 1 or max(deep) > len(around):
            return
        place = around[deep.pop() - 1]
        function = place.node
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or _is_of_instance(place):
            return
        if function not in made.through and self._callees.count(function) < _MOST_MAKINGS:
            nodes = tuple(one.node for one in around if one.node is not None)
            self._names[function] = place.prefix
            self._callees.note(made._replace(through=(function, *made.through)), function, nodes)

    def _by_call(self, call: Call, level: int) -> Iterator[Entry | Want]:
        """Yields what a call of a function of this file registers, or notes who is told in turn."""
        around = tuple(one.node for one in call.scope.functions if one.node is not None)
        for made, told in self._callees.told(call.node, around):
            for given in _given(made, told, call) if len(made.through) == level + 1 else ():
                op = filled(made.making.op, given)
                if made.target:
                    texts = tuple((key, text and filled(text, given)) for key, text in made.told)
                    yield from self._hand_on(made._replace(told=texts), call)
                elif op is not None and depths(op):
                    self._note(made._replace(making=made.making._replace(op=op)), [op], call.scope)
                elif op is not None and (name := op_name(op)):
                    yield made.making.entry(name, _place(call, self._file), self._names[told.function])

    def _hand_on(self, made: _Made, call: Call) -> Iterator[Want]:
        """Yields what a call asks of another module, or notes who is told in turn."""
        texts = [text for _, text in made.told if text is not None]
        if any(map(depths, texts)):
            self._note(made, texts, call.scope)
        elif any(map(_MAY_BE_OP.match, texts)):
            yield Want(f"{made.target}{MAKES}", json.dumps(dict(made.told)), _place(call, self._file))

    def _asked(self, call: Call) -> Iterator[Want]:
        """Yields what a call asks of a function that is imported."""
        first = call.node.func
        while isinstance(first, ast.Attribute):
            first = first.value
        known = call.scope.meaning(first.id) if isinstance(first, ast.Name) else None
        if not isinstance(first, ast.Name) or known is None or known.what != "path":
            return
        values = [*enumerate(call.node.args), *((word.arg, word.value) for word in call.node.keywords)]
        told = tuple((UNPACKED if _unpacks(key, one) else str(key), _only(one, call.scope)) for key, one in values)
        if any(text is not None for _, text in told) and call.scope.meant(first.id) is known:
            made = _Made(Making("", "", ""), call.scope.dotted(call.node.func), told, ())
            yield from self._hand_on(made, call)


@functools.lru_cache(maxsize=10_000)  # words of calls, of which few make up most
def may_hand_on(word: str) -> bool:
    """Says whether a function of this name may register operators for other modules.

    Example:
        >>> [word for word in ("_make_prim", "named_op", "registerOp", "loop", "option", "print") if may_hand_on(word)]
        ['_make_prim', 'named_op', 'registerOp']
    """
    return ("op" in word or "Op" in word or "prim" in word or "define" in word) and _NAMED.search(word) is not None


def _given(made: _Made, told: Told, call: Call) -> Iterator[dict[str, str]]:
    """Yields the texts that a call tells for the holes of what is made; several where it tells several operators."""
    texts = [made.making.op, *(text for _, text in made.told if text is not None)]
    asked = dict.fromkeys(name for text in texts for name in names(text))
    unsaid = {} if _has_unpacking(call.node) else _defaults(told.function)
    known: list[list[tuple[str, str]]] = []
    for name in asked:
        value = told.passed.get(name)
        found = _values(value, call.scope) if value is not None else [unsaid[name]] if name in unsaid else []
        if found:
            known.append([(name, text) for text in found])
    yield from map(dict, islice(product(*known), _MOST_TOLD))


def _values(node: ast.expr, scope: Scope) -> list[str]:
    """Returns the texts or operators that an argument is, a number as its text."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return [str(node.value)]
    text = text_of(node, scope)
    return [text] if text is not None else op_names(node, scope)


def _only(node: ast.expr, scope: Scope) -> str | None:
    found = _values(node, scope)
    return found[0] if len(found) == 1 else None


def _unpacks(key: int | str | None, node: ast.expr) -> bool:
    return key is None or isinstance(node, ast.Starred)


def _has_unpacking(call: ast.Call) -> bool:
    return any(isinstance(one, ast.Starred) for one in call.args) or any(one.arg is None for one in call.keywords)


def _by_place(function: Function, name: str) -> list[str]:
    """Returns the parameters that a call tells by their place, without the one for the class."""
    return positional(function)["." in name and "staticmethod" not in decorated(function) :]


def _defaults(function: Function) -> dict[str, str]:
    """Returns the texts that parameters are where a call does not tell them."""
    return {
        name: str(value.value)
        for name, value in defaults(function).items()
        if isinstance(value, ast.Constant) and type(value.value) in (str, int)
    }


def _is_of_instance(function: Scope) -> bool:
    """Says whether a function is a method that is called on instances: these have their own lives at run time."""
    is_method = function.outer is not None and function.outer.kind == "class"
    return is_method and isinstance(function.node, Function) and not decorated(function.node) & OF_CLASS


def _place(call: Call, file: str) -> Entry:
    """Returns the entry of what a call registers, but for what that is."""
    return Entry("", "", file, *call.lines, expression(call.node, 200), call.bound)


def _last(callee: ast.expr) -> str:
    return callee.attr if isinstance(callee, ast.Attribute) else getattr(callee, "id", "")
