"""The matrix of collectives: what `comm_core.catalog` says of each, in one row, then field by field."""

from __future__ import annotations

import enum
import inspect
from dataclasses import fields
from typing import Any

from comm_core import Collective, Missing
from comm_core.catalog import CATALOG

from .reference import HEAD, cell
from .sources import Output

PAGE = "docs/reference/collectives.md"
SOURCE = "packages/comm_core/src/comm_core/catalog"
IN_MATRIX = ("gradient", "batch", "twin", "in_place", "lowering")


def page() -> Output:
    """The page, from the catalogue as it is."""
    entries = list(CATALOG.values())
    lines = [
        f"{HEAD}# Every collective",
        "",
        "A collective is one value with these fields, in this order: "
        + ", ".join(f"`{field.name}`" for field in fields(Collective))
        + ". See [`Collective`][comm_core.collective.Collective] for what each means.",
        "",
        f"| collective | {' | '.join(IN_MATRIX)} |",
        "|---" * (1 + len(IN_MATRIX)) + "|",
        *(row(entry) for entry in entries),
        "",
    ]
    for entry in entries:
        lines += details(entry)
    return Output(PAGE, "\n".join(lines), committed=True)


def row(entry: Collective) -> str:
    """One line of the matrix; a field that is missing shows a dash here and its reason below."""
    cells = [short(getattr(entry, name)) for name in IN_MATRIX]
    return f"| [{entry.name}](#{entry.name}) | {' | '.join(cells)} |"


def short(value: Any) -> str:
    """A field in a word or two."""
    if isinstance(value, Missing):
        return "–"
    if isinstance(value, enum.Enum):
        return value.name.lower().replace("_", " ")
    return f"`{value}`" if isinstance(value, str) else "yes"


def details(entry: Collective) -> list[str]:
    """A collective's own section: every field in a table, then the rules that its file holds as they are written."""
    named = [(field.name, getattr(entry, field.name)) for field in fields(entry)][2:]
    rules = [value for _, value in named if own(value, entry)]
    heading = f"## {entry.name} {{#{entry.name}}}"
    table = [f"| {name} | {cell(full(value, entry))} |" for name, value in named]
    written = "\n\n\n".join(inspect.getsource(rule).rstrip() for rule in rules)
    return [
        *(heading, "", entry.summary, "", "| field | |", "|---|---|", *table, ""),
        *(f"Its rules, as they stand in `{SOURCE}/{entry.name}.py`:", "", "```python", written, "```", ""),
    ]


def own(value: Any, entry: Collective) -> bool:
    """Whether a field is a rule that is written in the collective's own file."""
    return callable(value) and value.__module__ == f"comm_core.catalog.{entry.name}"


def full(value: Any, entry: Collective) -> str:
    """A field in full: the value, the reason why there is none, or where the rule is written."""
    if isinstance(value, Missing):
        return f"none: {value.why}"
    if isinstance(value, enum.Enum):
        return f"`{value.name}`: {value.value}"
    if isinstance(value, frozenset):
        return ", ".join(f"`{one}`" for one in sorted(value)) or "none"
    if callable(value):
        return "its own rule, below" if own(value, entry) else f"`{value.__module__}.{value.__qualname__}`"
    return f"`{value}`"
