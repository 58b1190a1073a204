"""What text an expression is for sure, as far as constants tell, and the parameters of the functions around it.

A parameter stands in a text as a hole, which a call of its function fills. What may be one text or another is none.
"""

import ast
import re
from collections.abc import Iterator, Mapping

from kwindex.render import expression, string_of
from kwindex.scope import Scope
from kwindex.shadows import Bound

_OPENS = "⟦"
_HOLE = re.compile(r"⟦(\d+):(\w+)(\|?)⟧")
"""How deep the function is that has the parameter, its name, and whether only what stands before a bracket counts."""
_TO_CUT = re.compile(rf"([^{_OPENS}(]*⟦\d+:\w+)\|?⟧(?:\(.*)?", re.DOTALL)
_CUTS = {
    *(f"_[{start}:_.{word}('(')]" for start in ("0", "") for word in ("index", "find")),
    *(f"_.{word}[0]" for word in ("split('(')", "split('(', 1)", "split('(', maxsplit=1)", "partition('(')")),
}
"""The expressions that cut the operator's name from its schema, `_`."""
_MOST_PARTS, _LONGEST = 100, 4000
"""Parts, and letters, up to which a text is put together."""
_Turns = Iterator[int]


def text_of(node: ast.expr | None, scope: Scope, turns: _Turns | None = None) -> str | None:
    """Returns the text that an expression is, parameters as holes in it; None where that is not sure.

    Example:
        >>> function = ast.parse("def f(name): return f'mine::{name}' + '_'").body[0]
        >>> text_of(function.body[0].value, Scope("function", "m.f", None, node=function))
        'mine::⟦1:name⟧_'
    """
    turns = turns or iter(range(_MOST_PARTS))
    if next(turns, None) is None:
        return None
    if isinstance(node, ast.Constant):
        literal = string_of(node)
        return literal if literal is not None and _OPENS not in literal else None
    if isinstance(node, ast.JoinedStr):
        return _joined(*(_part(one, scope, turns) for one in node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _joined(text_of(node.left, scope, turns), text_of(node.right, scope, turns))
    if isinstance(node, ast.Name):
        return _named(node, scope, turns)
    cut = is_cut(node) if isinstance(node, ast.Subscript) else None
    return before_bracket(text_of(cut, scope, turns)) if cut is not None else None


def is_cut(node: ast.Subscript) -> ast.Name | None:
    """Returns the name of a schema, where an expression is what stands before its bracket.

    Example:
        >>> [is_cut(ast.parse(text, mode="eval").body) is not None for text in ("s.split('(')[0]", "s[1]")]
        [True, False]
    """
    first = first_name(node)
    if first is None or re.sub(rf"\b{first.id}\b", "_", expression(node)) not in _CUTS:
        return None
    return first


def first_name(node: ast.Subscript) -> ast.Name | None:
    """Returns the name of which an expression takes a part.

    Example:
        >>> first_name(ast.parse("schema.split('(')[0]", mode="eval").body).id
        'schema'
    """
    first: ast.expr = node.value
    while isinstance(first, ast.Call | ast.Attribute):
        first = first.func if isinstance(first, ast.Call) else first.value
    return first if isinstance(first, ast.Name) else None


def before_bracket(text: str | None) -> str | None:
    """Returns what stands before the first bracket of a text, None where that is not sure.

    Example:
        >>> before_bracket("add(Tensor x)"), before_bracket("⟦1:schema⟧"), before_bracket("⟦1:schema⟧_out(")
        ('add', '⟦1:schema|⟧', None)
    """
    if text is None or _OPENS not in text:
        return text and text.partition("(")[0]
    found = _TO_CUT.fullmatch(text)
    return f"{found[1]}|⟧" if found else None


def depths(text: str) -> set[int]:
    """Returns how deep the functions are whose parameters are holes of a text: 1 for those of a module.

    Example:
        >>> depths("⟦1:a⟧::⟦2:b⟧"), depths("a::b")
        ({1, 2}, set())
    """
    return {int(hole[1]) for hole in _HOLE.finditer(text)} if _OPENS in text else set()


def names(text: str) -> list[str]:
    """Returns the parameters that are holes of a text, each once.

    Example:
        >>> names("⟦1:a⟧::⟦1:b|⟧⟦1:a⟧")
        ['a', 'b']
    """
    return list(dict.fromkeys(hole[2] for hole in _HOLE.finditer(text)))


def filled(text: str, given: Mapping[str, str]) -> str | None:
    """Returns a text with its holes filled, None where that is not sure.

    Example:
        >>> filled("mine::⟦1:schema|⟧", {"schema": "add(Tensor x)"}), filled("⟦1:a⟧", {})
        ('mine::add', None)
    """
    parts: list[str | None] = []
    end = 0
    for hole in _HOLE.finditer(text):
        told = given.get(hole[2])
        parts += [text[end : hole.start()], before_bracket(told) if hole[3] else told]
        end = hole.end()
    return _joined(*parts, text[end:])


def _joined(*parts: str | None) -> str | None:
    known = [part for part in parts if part is not None]
    return "".join(known) if len(known) == len(parts) and sum(map(len, known)) <= _LONGEST else None


def _part(node: ast.expr, scope: Scope, turns: _Turns) -> str | None:
    """Returns the text of a part of an f-string."""
    if not isinstance(node, ast.FormattedValue):
        return text_of(node, scope, turns)
    return text_of(node.value, scope, turns) if node.conversion == -1 and node.format_spec is None else None


def _named(node: ast.Name, scope: Scope, turns: _Turns) -> str | None:
    """Returns the text that a name stands for: a parameter, or what is bound to this name once."""
    known = scope.meaning(node.id)
    here, bound = scope.binding(node.id) if known is None or known.what != "path" else (None, [])
    text = None
    if here is not None and here.has_parameter(node.id):
        kept = all(_stands_before(node, one, here) for one in bound) and (not bound or here is scope)
        text = f"⟦{here.depth}:{node.id}⟧" if kept else None
    elif here is not None and len(bound) == 1:
        text = text_of(bound[0].value, here, turns)
    return text if text is not None and here is not None and not here.binds_by_the_way(node.id) else None


def _stands_before(node: ast.Name, bound: Bound, scope: Scope) -> bool:
    """Says whether a parameter is read before it is bound anew: above, and in no loop together with that."""
    return node.lineno < bound.line and bound.statement in getattr(scope.node, "body", ())
