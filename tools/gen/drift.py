"""The drift of torch: which names of its four modules came and went since the indexes that the handbook began with."""

from __future__ import annotations

import ast
import importlib.util
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from kwindex.syntax import syntax_tree

from .concordance import FALSE, TABLE, Row, here
from .doors import public_names
from .reference import HEAD
from .sources import Distribution, Output

PAGE = "docs/reference/drift.md"
INTRODUCTION = """\
The concordance began with indexes of an older torch. This page holds them against the torch that the site was built
with, {version}, by reading its source: what is new there, what is gone, and what has our answer. Only classes and
functions are compared, nested ones too. A name counts as new when those indexes do not list it, be it that it came
later or that they missed it. The test file is not part of an installed torch.
"""


def page(distributions: list[Distribution]) -> Output:
    """The page, from the table of names and the torch that is installed."""
    table: dict[str, list[Row]] = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    table.pop(FALSE, None)
    lines = [f"{HEAD}# Drift", "", INTRODUCTION.format(version=version("torch"))]
    sections = []
    heads = "| file | then | now | new | gone |"
    lines += [heads, "|---|---:|---:|---:|---:|"]
    for file, rows in table.items():
        source = installed(file)
        if source is None:
            continue
        known = [row for row in rows if row.get("kind") in ("class", "function")]
        now = dict(definitions(source))
        then = {str(row["name"]) for row in known}
        names_now = {name.rpartition(".")[2] for name in now}
        came = {name: line for name, line in now.items() if name.rpartition(".")[2] not in then}
        went = [row for row in known if row["name"] not in names_now]
        lines.append(f"| `{file}` | {len(then)} | {len(names_now)} | {len(came)} | {len(went)} |")
        sections += section(file, came, went, distributions)
    return Output(PAGE, "\n".join([*lines, "", *sections]).rstrip() + "\n", committed=False)


def section(file: str, came: dict[str, int], went: list[Row], distributions: list[Distribution]) -> list[str]:
    """What came and what went in one file."""
    ours = {one.name: f"[`{d.package}.{one.name}`][{one.path}]" for d in distributions for one in public_names(d)}
    lines = [f"## {file}", ""]
    if came:
        rows = [f"| `{name}` | {line} | {ours.get(name, '–')} |" for name, line in came.items()]
        lines += ["New:", "", "| name | line | ours of the same name |", "|---|---:|---|", *rows, ""]
    if went:
        gone = [f"| `{row['name']}` | {row['kind']} | {here(row, distributions)} |" for row in went]
        lines += ["Gone:", "", "| name | kind | here |", "|---|---|---|", *gone, ""]
    return lines if came or went else [*lines, "Nothing came or went.", ""]


def installed(file: str) -> Path | None:
    """A file of torch where it is installed, or None where that torch has none; torch is not imported."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent.parent / file
    return path if path.exists() else None


def definitions(file: Path) -> Iterator[tuple[str, int]]:
    """Every class and function of a file, nested ones too: qualified name and line, the first of equal ones."""
    yield from inside(syntax_tree(file.read_text(encoding="utf-8")), "", set())


def inside(node: ast.AST, prefix: str, seen: set[str]) -> Iterator[tuple[str, int]]:
    """The definitions below a node."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}{child.name}"
            if name not in seen:
                seen.add(name)
                yield name, child.lineno
            yield from inside(child, f"{name}.", seen)
        else:
            yield from inside(child, prefix, seen)
