"""Texts that stand in a table, of which a subscript takes one."""

import ast
from collections.abc import Callable, Sequence

from kwindex.render import string_of

MOST_ROWS = 100
"""Texts of one table that are told; more are no table of messages."""


def rows(node: ast.Subscript, surely: Callable[[str], Sequence[ast.expr]]) -> list[ast.expr]:
    """Returns the texts that a subscript of a table may be, one where the key is a literal; none unless all are texts.

    Args:
        node: The subscript.
        surely: Gives the one expression that a name stands for.

    Example:
        >>> known = {"SAID": [ast.parse("{1: 'one', 2: 'two'}", mode="eval").body]}
        >>> for text in ("SAID[1]", "SAID[x]", "SAID[3]", "OTHER[1]"):
        ...     found = rows(ast.parse(text, mode="eval").body, lambda name: known.get(name, []))
        ...     print([one.value for one in found])
        ['one']
        ['one', 'two']
        []
        []
    """
    table = surely(node.value.id) if isinstance(node.value, ast.Name) else ()
    known = _rows(table[0]) if len(table) == 1 and not isinstance(node.slice, ast.Slice) else []
    if len(known) > MOST_ROWS or not all(map(_is_text, (text for _, text in known))):
        return []
    try:
        key = ast.literal_eval(node.slice)
    except (ValueError, TypeError, RecursionError):  # no literal: it may be any
        return [text for _, text in known]
    if isinstance(table[0] if table else None, ast.Dict):
        return [text for place, text in known if _is_key(place, key)][-1:]
    places = range(-len(known), len(known))
    return [known[key][1]] if type(key) is int and key in places else []


def _rows(table: ast.expr) -> list[tuple[ast.expr | None, ast.expr]]:
    if isinstance(table, ast.Dict):
        return [] if None in table.keys else [*zip(table.keys, table.values, strict=True)]
    return [(None, one) for one in table.elts] if isinstance(table, ast.List | ast.Tuple) else []


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or string_of(node) is not None


def _is_key(node: ast.expr | None, key: object) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is type(key) and node.value == key
