"""What the pages tell of a file beyond its entries: docstrings, decorators, import guards, and what tests call."""

import ast
import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from kwindex.imports import bindings, catches_absence, suppresses_absence
from kwindex.parsing import decode, parse
from kwindex.render import docstring_of, expression
from kwindex.spans import last_line

_THERE = "if it is there"
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Import(NamedTuple):
    """One name that is imported: its line, what it stands for, its name here, and under which condition."""

    line: int
    target: str
    bound: str
    when: str


class Outline(NamedTuple):
    """One file, as its pages need it; nothing in it depends on any other file."""

    lines: int
    size: int
    digest: str
    docstring: str
    docstrings: dict[int, str]
    """By the line of `class` or `def`."""
    decorators: dict[int, list[str]]
    imports: list[Import]
    calls: dict[int, list[str]]
    """By the line of a test's `def`: the dotted names that it calls, resolved through the file's imports."""
    is_script: bool


def outline(data: bytes, module: str, is_package: bool) -> Outline:
    r"""Returns the outline of a source file.

    Raises:
        SourceError: The bytes are no Python source.

    Example:
        >>> made = outline(b"import a.b as c\n@c.d\ndef test_f(): c.e(1)\n", "m", False)
        >>> made.decorators, made.calls
        ({3: ['c.d']}, {3: ['a.b.e']})
    """
    text = decode(data)
    tree = parse(text)
    found = list(_imports(tree.body, module, is_package, ""))
    names = {one.bound: one.target for one in found}
    docstrings, decorators, calls = {}, {}, {}
    for node in ast.walk(tree):
        if isinstance(node, _DEFINITIONS):
            line = node.lineno
            docstrings[line] = docstring_of(node.body) or ""
            if node.decorator_list:
                decorators[line] = [expression(one) for one in node.decorator_list]
            if not isinstance(node, ast.ClassDef) and node.name.startswith("test"):
                calls[line] = sorted(set(_calls(node, names)))
    return Outline(
        lines=last_line(text) if text else 0,
        size=len(data),
        digest=hashlib.blake2b(data, digest_size=8).hexdigest(),
        docstring=docstring_of(tree.body) or "",
        docstrings={line: text for line, text in docstrings.items() if text},
        decorators=decorators,
        imports=found,
        calls=calls,
        is_script=any(_is_main(node) for node in tree.body),
    )


def _imports(body: list[ast.stmt], module: str, is_package: bool, when: str) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for one in bindings(node, module, is_package):
                yield Import(node.lineno, one.target, one.bound, when)
            continue
        for part, condition in _inside(node):
            yield from _imports(part, module, is_package, ", ".join(filter(None, (when, condition))))


def _inside(node: ast.stmt) -> Iterator[tuple[list[ast.stmt], str]]:
    """Yields the bodies of a statement, with the condition under which each runs."""
    if isinstance(node, ast.If):
        test = ast.unparse(node.test)
        checked = "for type checkers" if test.rpartition(".")[2] == "TYPE_CHECKING" else f"if {test}"
        yield node.body, checked
        yield node.orelse, f"unless {test}"
    elif isinstance(node, ast.Try | ast.TryStar):
        yield node.body, _THERE if any(catches_absence(handler.type) for handler in node.handlers) else ""
        for handler in node.handlers:
            yield handler.body, f"after {ast.unparse(handler.type) if handler.type else 'any error'}"
        yield [*node.orelse, *node.finalbody], ""
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.body, f"in {node.name}"
    elif isinstance(node, ast.With | ast.AsyncWith):
        yield node.body, _THERE if any(suppresses_absence(item.context_expr) for item in node.items) else ""
    elif isinstance(node, ast.Match):
        yield from ((case.body, "") for case in node.cases)
    elif isinstance(node, ast.ClassDef):
        yield node.body, ""
    elif isinstance(node, ast.For | ast.AsyncFor | ast.While):
        yield [*node.body, *node.orelse], ""


def _calls(node: ast.AST, names: dict[str, str]) -> Iterator[str]:
    for call in ast.walk(node):
        if isinstance(call, ast.Call):
            first, _, rest = _dotted(call.func).partition(".")
            if first in names:
                yield f"{names[first]}.{rest}" if rest else names[first]


def _dotted(node: ast.expr) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _is_main(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("__name__ == '__main__'", "'__main__' == __name__")
