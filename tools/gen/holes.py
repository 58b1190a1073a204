"""The holes of messages in words: `{number of tensors}`, where the code has `{len(tensors)}`."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable
from typing import Any

from kwindex.messages import Look
from kwindex.render import string_of

COUNTED = {"len": "number of", "sum": "sum of", "max": "largest of", "min": "least of", "type": "type of"}
"""Functions whose result is something else than what they are given: every other only shows it."""
ITSELF = {"where", "why", "name", "collective", "timeout_s"}
"""Attributes that say what they are, whatever has them."""
SPOKEN = {"numel": "elements", "ndim": "dims"}
OF_TEXT = {"replace", "strip", "removeprefix", "removesuffix", "lower", "upper", "split", "partition"}
LONGEST = 60


def worded(node: ast.expr) -> ast.expr:
    """The same expression, every hole of its templates a name that says in words what is filled in.

    Example:
        >>> ast.unparse(worded(ast.parse("f'{len(xs)} of {type(x).__name__}'", mode="eval").body))
        "f'{number of xs} of {type of x}'"
    """
    made: ast.expr = _Worded().visit(copy.deepcopy(node))
    return made


def looking(look: Look) -> Look:
    """The same look at names, what they are bound to in words."""
    return lambda name: [worded(node) for node in look(name)]


class _Worded(ast.NodeTransformer):
    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        parts: list[ast.expr] = []
        for part in node.values:
            value = part.value if isinstance(part, ast.FormattedValue) else part
            if isinstance(value, ast.JoinedStr):  # a template in a template is a part of it
                inner = self.visit_JoinedStr(value)
                parts += inner.values if isinstance(inner, ast.JoinedStr) else [inner]
            elif isinstance(part, ast.FormattedValue):
                parts.append(ast.FormattedValue(ast.Name(in_words(value)), -1, None))
            else:
                parts.append(part)
        return ast.JoinedStr(parts)


def in_words(node: ast.AST) -> str:
    """What an expression is, in words that may stand in a hole.

    Example:
        >>> def of(text):
        ...     return in_words(ast.parse(text, mode="eval").body)
        >>> of("said(splits)"), of("x.shape[0]"), of("self._world - 1"), of("', '.join(names) or 'none'")
        ('splits', 'size of x in dim 0', 'world - 1', 'names or none')
        >>> of("[part.numel() for part in parts]"), of("type(group).__name__"), of("error.args[0]")
        ('elements of parts', 'type of group', 'args of error')
    """
    text = _words(node, {})
    return text.replace("{", "(").replace("}", ")")[:LONGEST]


def _words(node: ast.AST, known: dict[str, str]) -> str:
    """The words of an expression; `known` has those of the names that comprehensions around it bind."""
    literal = string_of(node) if isinstance(node, ast.expr) else None
    if literal is not None:
        return literal
    for kind, words in _WORDS.items():
        if isinstance(node, kind):
            return words(node, known)
    return ast.unparse(node)


def _name(node: ast.Name, known: dict[str, str]) -> str:
    return known.get(node.id, node.id.strip("_"))


def _attribute(node: ast.Attribute, known: dict[str, str]) -> str:
    owner, word = node.value, node.attr.strip("_")
    if node.attr == "__name__":
        return _words(owner, known)
    if word.lower() in ITSELF or (isinstance(owner, ast.Name) and owner.id in {"self", "cls"}):
        return word.lower()
    last = owner.attr.strip("_") if isinstance(owner, ast.Attribute) else _words(owner, known).rpartition(" of ")[2]
    return f"{SPOKEN.get(word, word)} of {last}"


def _subscript(node: ast.Subscript, known: dict[str, str]) -> str:
    owner, place = _words(node.value, known), node.slice
    if isinstance(node.value, ast.Attribute) and node.value.attr == "shape" and not isinstance(place, ast.Slice):
        return f"size of {_words(node.value.value, known)} in dim {_words(place, known)}"
    if owner.isupper():  # a table of them
        return owner.lower().replace("_", " ").removesuffix("s")
    if isinstance(place, ast.Slice | ast.Constant):
        return owner
    return f"{owner}[{_words(place, known)}]" if " " not in owner else owner


def _call(node: ast.Call, known: dict[str, str]) -> str:
    callee, given = node.func, node.args
    word = (callee.attr if isinstance(callee, ast.Attribute) else _words(callee, known)).strip("_")
    if isinstance(callee, ast.Attribute) and (not given or word in OF_TEXT):
        shown = _words(callee.value, known)
        return shown if word in OF_TEXT | {"name"} else f"{SPOKEN.get(word, word.replace('_', ' '))} of {shown}"
    if not given or len(given) > 2:
        return word.replace("_", " ")
    if word == "map" and len(given) == 2:
        return _call(ast.Call(given[0], given[1:], []), known)
    if word == "getattr" and len(given) > 1:
        return f"value of {_words(given[1], known)}"
    return f"{COUNTED[word]} {_words(given[0], known)}" if word in COUNTED else _words(given[0], known)


def _comprehension(node: ast.ListComp | ast.SetComp | ast.GeneratorExp, known: dict[str, str]) -> str:
    around = node.generators[0]
    many = _words(around.iter, known)
    inside = {**known, around.target.id: many} if isinstance(around.target, ast.Name) else known
    counted = any(isinstance(one, ast.BinOp) for one in ast.walk(node.elt))
    return f"{_words(node.elt, known)}, …" if counted else _words(node.elt, inside)


def _computed(node: ast.BinOp, known: dict[str, str]) -> str:
    """Arithmetic as it is, unless functions are called in it: then what it is computed from."""
    called = [one for one in ast.walk(node) if isinstance(one, ast.Call) and one.args]
    if called:
        functions = {id(one.func) for one in called}
        names = [one for one in ast.walk(node) if isinstance(one, ast.Name) and id(one) not in functions]
        return f"number from {' and '.join(dict.fromkeys(sorted(_name(one, known) for one in names)))}"

    class Inner(ast.NodeTransformer):
        def visit(self, inner: ast.AST) -> ast.AST:
            kept = isinstance(inner, ast.BinOp | ast.operator | ast.Constant)
            return self.generic_visit(inner) if kept else ast.Name(_words(inner, known))

    return ast.unparse(Inner().visit(copy.deepcopy(node)))


def _either(nodes: list[ast.expr], known: dict[str, str]) -> str:
    return " or ".join(dict.fromkeys(_words(one, known) for one in nodes))


_WORDS: dict[type[ast.AST], Callable[[Any, dict[str, str]], str]] = {
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Subscript: _subscript,
    ast.Call: _call,
    ast.ListComp: _comprehension,
    ast.SetComp: _comprehension,
    ast.GeneratorExp: _comprehension,
    ast.BinOp: _computed,
    ast.UnaryOp: lambda node, known: f"-{_words(node.operand, known)}",
    ast.BoolOp: lambda node, known: _either(node.values, known),
    ast.IfExp: lambda node, known: _either([node.body, node.orelse], known),
    ast.JoinedStr: lambda node, known: "".join(_words(part, known) for part in node.values),
    ast.FormattedValue: lambda node, known: _words(node.value, known),
    ast.Starred: lambda node, known: _words(node.value, known),
}
"""What each kind of expression is in words."""
