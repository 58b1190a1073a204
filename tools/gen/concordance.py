"""Torch's names and ours: the page made from docs/concordance.toml, which says what its rows mean."""

from __future__ import annotations

import tomllib
from typing import Any

from .doors import linked
from .reference import HEAD, cell
from .sources import ROOT, Distribution, Output

TABLE = ROOT / "docs" / "concordance.toml"
PAGE = "docs/reference/concordance.md"
FALSE = "false"
INTRODUCTION = """\
Every identifier that the keyword indexes of torch's four modules and their test list rightly, with what does its work
here, the package that will bring it, or why none is needed. Written by hand in `docs/concordance.toml`; the tests
resolve every row.
"""

Row = dict[str, Any]


def page(distributions: list[Distribution]) -> Output:
    """The page, from the table as it is."""
    table: dict[str, list[Row]] = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    wrong = table.pop(FALSE, [])
    lines = [f"{HEAD}# Torch's names and ours", "", INTRODUCTION, *summary(table), ""]
    for file, rows in table.items():
        lines += [f"## {file}", "", "| torch | here | remarks |", "|---|---|---|"]
        lines += [f"| {name(row)} | {here(row, distributions)} | {remarks(row)} |" for row in rows]
        lines.append("")
    if wrong:
        lines += [
            "## Listed, but never there",
            "",
            "Words of comments and messages that the indexes took for names:",
            "",
        ]
        lines += [f"- {name(row)}" + (f": {row['why']}" if row.get("why") else "") for row in wrong]
    return Output(PAGE, "\n".join(lines).rstrip() + "\n", committed=True)


def summary(table: dict[str, list[Row]]) -> list[str]:
    """How many names each file has, and how many of them are done."""
    lines = ["| file | names | done here | to come | none needed |", "|---|---|---|---|---|"]
    for file, rows in table.items():
        counts = [sum(answer in row for row in rows) for answer in ("ours", "comes_with", "none")]
        lines.append(f"| [{file}](#{anchor(file)}) | {len(rows)} | {' | '.join(map(str, counts))} |")
    return lines


def anchor(title: str) -> str:
    """The fragment that mkdocs gives to a heading."""
    kept = "".join(c for c in title.lower() if c.isalnum() or c in "_- ")
    return kept.replace(" ", "-")


def name(row: Row) -> str:
    """Torch's name and its kind."""
    return f"`{row['name']}`" + (f" ({row['kind']})" if "kind" in row else "")


def here(row: Row, distributions: list[Distribution]) -> str:
    """The answer: links to ours, the package that will bring it, or the reason why none is needed."""
    if "comes_with" in row:
        return f"comes with `{row['comes_with']}`"
    if "none" in row:
        return f"none needed: {cell(row['none'])}"
    ours = row["ours"] if isinstance(row["ours"], list) else [row["ours"]]
    return ", ".join(link(one, distributions) for one in ours)


def link(dotted: str, distributions: list[Distribution]) -> str:
    """A name of ours, as a link where the reference has it."""
    target = linked(dotted, distributions)
    return f"[`{dotted}`][{target}]" if target else f"`{dotted}`"


def remarks(row: Row) -> str:
    """What is said beside the answer."""
    gone = f"gone in torch {row['gone']}" if "gone" in row else ""
    return "; ".join(part for part in (cell(row.get("why", "")), gone) if part)
