"""Settings that code reads: environment variables, and attributes of config modules."""

import ast
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from kwindex.render import expression, string_of

_READS = {"get", "pop", "setdefault", "__getitem__"}


class Reading(NamedTuple):
    """One place where a setting is read."""

    kind: str
    name: str
    line: int
    end_line: int
    text: str


def may_read(text: str) -> bool:
    """Says whether a source can hold a reading at all: only then is its tree gone through.

    Example:
        >>> may_read("os.environ['A']"), may_read("x = 1")
        (True, False)
    """
    return "environ" in text or "getenv" in text or "config." in text


def readings(tree: ast.Module, modules: Mapping[str, str]) -> Iterator[Reading]:
    r"""Yields each setting that a module reads, once, in the order of the source.

    Args:
        tree: The syntax tree of the module.
        modules: What the names that it imports stand for; those that end in `config` are config modules.

    Example:
        >>> tree = ast.parse("a = os.environ.get('A', '0')\nb = cfg.size")
        >>> [(r.kind, r.name, r.line) for r in readings(tree, {"cfg": "lib.config"})]
        [('environment variable', 'A', 1), ('config key', 'lib.config.size', 2)]
    """
    configs = {bound: path for bound, path in modules.items() if path.rpartition(".")[2] == "config"}
    first: dict[tuple[str, str], Reading] = {}
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Call | ast.Compare):
            kind, name = _setting(node, configs)
            if name:
                end = node.end_lineno or node.lineno
                found = Reading(kind, name, node.lineno, end, expression(node, 120))
                known = first.get((kind, name))
                if known is None or found.line < known.line:
                    first[kind, name] = found
        stack.extend(ast.iter_child_nodes(node))
    yield from sorted(first.values(), key=lambda reading: (reading.line, reading.kind, reading.name))


def _setting(node: ast.expr, configs: Mapping[str, str]) -> tuple[str, str]:
    """Returns the kind and name of the setting that an expression reads, ('', '') for any other."""
    variable = None
    if isinstance(node, ast.Call) and node.args:
        callee = node.func
        if isinstance(callee, ast.Attribute):
            reads = callee.attr == "getenv" or (callee.attr in _READS and _is_environ(callee.value))
        else:
            reads = isinstance(callee, ast.Name) and callee.id == "getenv"
        variable = string_of(node.args[0]) if reads else None
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and _is_environ(node.value):
        variable = string_of(node.slice)
    elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
        variable = string_of(node.left) if _is_environ(node.comparators[0]) else None
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        return _config_key(node, configs)
    if variable and variable.isprintable() and not any(c.isspace() for c in variable):
        return "environment variable", variable
    return "", ""


def _config_key(node: ast.Attribute, configs: Mapping[str, str]) -> tuple[str, str]:
    if isinstance(node.value, ast.Name) and node.value.id in configs and not node.attr.startswith("__"):
        return "config key", f"{configs[node.value.id]}.{node.attr}"
    return "", ""


def _is_environ(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "environ") or (
        isinstance(node, ast.Name) and node.id == "environ"
    )
