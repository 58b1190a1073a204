"""The page for those who come from torch's functional collectives: it names all of them, and promises what is there."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import torch

import functional_collectives as fc
from kwindex.syntax import syntax_tree

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/do/move_from_torch_funcol.md").read_text(encoding="utf-8")


def table(title: str) -> list[list[str]]:
    """The rows of the table under a heading."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def torchs_public_names() -> set[str]:
    """What torch's module defines for users: no underscore, and no rule of another function's gradient."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent / "distributed/_functional_collectives.py"
    top = syntax_tree(source.read_text(encoding="utf-8")).body
    defined = {node.name for node in top if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return {name for name in defined if not name.startswith("_") and not name.endswith(("_backward", "_setup_context"))}


@pytest.mark.skipif(torch.__version__ > "2.14", reason="the page lists the names of torch 2.13")
def test_every_public_name_of_torch_is_on_the_page() -> None:
    listed = {name for row in table("What is there") for name in names(row[0])}
    assert torchs_public_names() <= listed


def test_the_same_names_are_there() -> None:
    for row in table("What is there"):
        if row[1].startswith("the same names"):
            assert set(names(row[0])) <= set(fc.__all__), row


def test_all_that_is_beyond_torch_is_said_to_be() -> None:
    (sentence,) = re.findall(r"Beyond torch: (.+?); and", PAGE, re.S)
    aliases = {name for name in fc.__all__ if getattr(fc, name).__name__ != name}
    newer = {name for row in table("What is there") if "(2.14)" in row[0] for name in names(row[0])}
    assert newer - torchs_public_names() <= {"reduce_scatter_inplace"}
    assert set(names(sentence)) == set(fc.__all__) - torchs_public_names() - aliases - newer


@pytest.mark.parametrize("row", table("What behaves differently, and why"), ids=lambda row: row[0][:40])
def test_a_difference_says_what_torch_does_and_what_is_done_here(row: list[str]) -> None:
    assert len(row) == 4
    assert all(row[:3])
