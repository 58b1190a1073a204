"""The matrix of collectives: what `comm_core.catalog` says of each, in one row; each has a page of its own."""

from __future__ import annotations

import enum
from dataclasses import fields
from typing import Any

from comm_core import Collective, Missing
from comm_core.catalog import CATALOG

from .reference import HEAD
from .sources import Output

PAGE = "docs/reference/collectives.md"
IN_MATRIX = ("gradient", "identity", "partial", "batch", "twin", "in_place", "lowering")


def page() -> Output:
    """The page, from the catalogue as it is."""
    entries = list(CATALOG.values())
    missing = [line for entry in entries for line in reasons(entry)]
    lines = [
        f"{HEAD}# Every collective",
        "",
        "A collective is one value with these fields, in this order: "
        + ", ".join(f"`{field.name}`" for field in fields(Collective))
        + ". See [`Collective`][comm_core.collective.Collective] for what each means. Each has a page that follows it"
        " from its schema to its tests.",
        "",
        f"| collective | what it does | {' | '.join(IN_MATRIX)} |",
        "|---" * (2 + len(IN_MATRIX)) + "|",
        *(row(entry) for entry in entries),
        "",
        *(["## What is not there, and why", "", "| collective | field | why |", "|---|---|---|"] if missing else []),
        *missing,
        "",
    ]
    return Output(PAGE, "\n".join(lines).rstrip() + "\n", committed=True)


def row(entry: Collective) -> str:
    """One line of the matrix; a field that is missing shows a dash here and its reason below."""
    cells = [short(getattr(entry, name)) for name in IN_MATRIX]
    return f"| [{entry.name}](collectives/{entry.name}.md) | {entry.summary} | {' | '.join(cells)} |"


def reasons(entry: Collective) -> list[str]:
    """One line for every field that is missing."""
    found = [(field.name, getattr(entry, field.name)) for field in fields(entry)]
    return [f"| {entry.name} | {name} | {value.why} |" for name, value in found if isinstance(value, Missing)]


def short(value: Any) -> str:
    """A field in a word or two."""
    if isinstance(value, Missing):
        return "–"
    if isinstance(value, enum.Enum):
        return value.name.lower().replace("_", " ")
    return f"`{value}`" if isinstance(value, str) else "yes"
