"""The fields of named tuples that a call makes: no class statement lists them."""

import ast
import keyword
import re
from collections.abc import Iterator

from kwindex.model import Entry
from kwindex.render import expression, string_of
from kwindex.scope import Scope

_UNTYPED, _TYPED = "collections.namedtuple", {"typing.NamedTuple", "typing_extensions.NamedTuple"}
_DISPLAYS = (ast.List, ast.Tuple)


def fields(node: ast.Assign, scope: Scope, file: str) -> Iterator[Entry]:
    """Yields the fields of the named tuple that an assignment makes, none unless each is known.

    Example:
        >>> scope = Scope("module", "m", None)
        >>> node = ast.parse("Row = collections.namedtuple('Row', 'name, size')").body[0]
        >>> [(entry.name, entry.signature) for entry in fields(node, scope, "m.py")]
        [('m.Row.name', 'name'), ('m.Row.size', 'size')]
    """
    target, made = node.targets[0], node.value
    if scope.kind == "function" or not isinstance(target, ast.Name) or not isinstance(made, ast.Call):
        return
    found = _told(made, scope.dotted(made.func))
    names = [name for name, _ in found]
    if len(node.targets) == 1 and len({*names}) == len(names) and all(map(_may_be_field, names)):
        for name, kind in found:
            signature = f"{name}: {kind}" if kind else name
            owner = scope.qualify(target.id)
            yield Entry(f"{owner}.{name}", "field", file, node.lineno, node.end_lineno or node.lineno, signature, "")


def _told(made: ast.Call, path: str) -> list[tuple[str, str]]:
    """Returns the names of a call's fields with the types that it says, '' for a name that is not known."""
    named = {word.arg: word.value for word in made.keywords}
    if path == _UNTYPED and "rename" not in named and None not in named:
        told = made.args[1] if len(made.args) > 1 else named.get("field_names")
        text = string_of(told)
        if text is not None:
            return [(name, "") for name in re.split(r"[\s,]+", text) if name]
        return [(string_of(one) or "", "") for one in told.elts] if isinstance(told, _DISPLAYS) else []
    if path in _TYPED and len(made.args) == 2 and isinstance(made.args[1], _DISPLAYS):
        return [_typed(pair) for pair in made.args[1].elts]
    return []


def _typed(pair: ast.expr) -> tuple[str, str]:
    if not isinstance(pair, _DISPLAYS) or len(pair.elts) != 2:
        return "", ""
    return string_of(pair.elts[0]) or "", expression(pair.elts[1], 120)


def _may_be_field(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")
