"""Settings that code reads: environment variables, and attributes of config modules."""

import ast
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from kwindex.render import expression, string_of

_READING = (ast.Attribute, ast.Subscript, ast.Call, ast.Compare)
_STRINGS = (ast.JoinedStr, ast.FormattedValue)
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


def readings(tree: ast.Module, text: str, modules: Mapping[str, str]) -> Iterator[Reading]:
    r"""Yields each setting that a module reads, once, in the order of the source.

    Only what stands around the words of such a reading is looked at: most of a tree is not.

    Args:
        tree: The syntax tree of the module.
        text: Its source.
        modules: What the names that it imports stand for; those that end in `config` are config modules.

    Example:
        >>> text = "a = os.environ.get('A', '0')\nb = cfg.size"
        >>> [(r.kind, r.name, r.line) for r in readings(ast.parse(text), text, {"cfg": "lib.config"})]
        [('environment variable', 'A', 1), ('config key', 'lib.config.size', 2)]
    """
    configs = {bound: path for bound, path in modules.items() if path.rpartition(".")[2] == "config"}
    lines = _lines_of(text, configs)
    first: dict[tuple[str, str], Reading] = {}
    stack: list[ast.AST] = [tree] if lines else []
    while stack:
        node = stack.pop()
        if isinstance(node, _READING):
            kind, name = _setting(node, configs)
            if name:
                end = node.end_lineno or node.lineno
                found = Reading(kind, name, node.lineno, end, expression(node, 120))
                known = first.get((kind, name))
                if known is None or found.line < known.line:
                    first[kind, name] = found
        inside_string = isinstance(node, _STRINGS)  # whose parts do not know their lines
        stack += (child for child in ast.iter_child_nodes(node) if inside_string or _holds(child, lines))
    yield from sorted(first.values(), key=lambda reading: (reading.line, reading.kind, reading.name))


def _lines_of(text: str, configs: Iterable[str]) -> list[int]:
    """Returns the lines on which a word stands that a reading needs."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    places = [place for word in ("environ", "getenv") for place in _places(text, word)]
    places += [place for name in configs for place in _places(text, name) if _whole(text, place, len(name))]
    lines: list[int] = []
    line, counted = 1, 0
    for place in sorted(places):
        line += text.count("\n", counted, place)
        counted = place
        lines.append(line)
    return lines


def _places(text: str, word: str) -> Iterator[int]:
    place = text.find(word)
    while place >= 0:
        yield place
        place = text.find(word, place + len(word))


def _whole(text: str, place: int, length: int) -> bool:
    """Says whether letters at a place are a name, and not a part of one."""
    before, after = text[place - 1 : place], text[place + length : place + length + 1]
    return not (before and f"_{before}".isidentifier()) and not (after and f"_{after}".isidentifier())


def _holds(node: ast.AST, lines: list[int]) -> bool:
    """Says whether any of the lines, in order, is one of a node's; a node that has no lines of its own may hold any."""
    end = getattr(node, "end_lineno", None)
    if end is None:
        return True
    start = node.lineno  # type: ignore[attr-defined]
    for decorator in getattr(node, "decorator_list", ()):
        start = min(start, decorator.lineno)
    place = bisect_left(lines, start)
    return place < len(lines) and lines[place] <= end


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
