"""Every identifier of the seeds has its row in docs/concordance.toml, every row resolves, and no false one has any."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from kwindex.syntax import syntax_tree

ROOT = Path(__file__).parents[1]
SEEDS = sorted((ROOT / "tests/data/seeds").glob("*_kw.md"))
TABLE: dict[str, list[dict[str, Any]]] = tomllib.loads((ROOT / "docs/concordance.toml").read_text(encoding="utf-8"))
FALSE = TABLE.pop("false")
ROWS = [(file, row) for file, rows in TABLE.items() for row in rows]
ANSWERS = ("ours", "comes_with", "none")
FALSE_NAMES = {
    "needed",
    "support",
    "that",
    "functional_collective",
    "all_reduce_eager",
    "all_reduce_wait_compiled",
    "in",
    "torchdynamo",
    "mm_allreduce_forward",
}

Identifier = tuple[str, str]  # kind and name


def listed(seed: Path) -> tuple[str, list[Identifier]]:
    """The file that a seed is the index of, and what it lists, false ones among them."""
    file, kind, found = "", "", []
    for line in seed.read_text(encoding="utf-8").splitlines():
        if title := re.match(r"# Keyword Index: `(.+)`", line):
            file = title[1]
        if heading := re.match(r"### (Class|Function|Import)s$", line):
            kind = heading[1].lower()
        elif line.startswith("## "):
            kind = ""
        if kind and (entry := re.match(r"- \*\*`(.+)`\*\*: \[", line)):
            found.append((kind, entry[1]))
    return file, found


def false_of(file: str) -> set[Identifier]:
    return {(row["kind"], row["name"]) for row in FALSE if row["file"] == file}


def test_the_five_seeds_are_there_with_what_they_are_known_to_list() -> None:
    counts = {file: Counter(kind for kind, _ in found) for file, found in map(listed, SEEDS)}
    assert {Path(file).name: (c["class"], c["function"], c["import"]) for file, c in counts.items()} == {
        "_functional_collectives.py": (5, 65, 20),
        "_fsdp_collectives.py": (7, 16, 22),
        "comm_lowering.py": (0, 24, 14),
        "_func_map.py": (0, 4, 15),
        "test_functional_api.py": (10, 42, 21),
    }


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.stem)
def test_rows_are_the_true_identifiers_in_the_order_of_the_seed(seed: Path) -> None:
    file, found = listed(seed)
    assert false_of(file) <= set(found)
    rows = [(row["kind"], row["name"]) for row in TABLE[file]]
    assert rows == [identifier for identifier in found if identifier not in false_of(file)]


def test_no_section_is_of_another_file() -> None:
    assert {listed(seed)[0] for seed in SEEDS} == TABLE.keys()


def test_the_false_identifiers_are_these_nine_and_have_no_row() -> None:
    assert {row["name"] for row in FALSE} == FALSE_NAMES
    assert len(FALSE) == len(FALSE_NAMES)
    assert all(row["why"] for row in FALSE)
    assert not {row["name"] for _, row in ROWS} & FALSE_NAMES


def test_a_false_identifier_is_no_name_that_our_packages_define() -> None:
    """So that no index of ours lists one."""
    defined = set()
    for source in (*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("tools/*/src/**/*.py")):
        for node in ast.walk(syntax_tree(source.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                defined.add(node.name)
    assert defined & FALSE_NAMES == set()


@pytest.mark.parametrize(("file", "row"), ROWS, ids=[f"{Path(file).stem}-{row['name']}" for file, row in ROWS])
def test_a_row_has_one_answer_and_it_resolves(file: str, row: dict[str, Any]) -> None:
    assert row.keys() <= {"name", "kind", "why", "gone", *ANSWERS}
    given = [answer for answer in ANSWERS if answer in row]
    assert len(given) == 1
    if given == ["ours"]:
        for symbol in row["ours"] if isinstance(row["ours"], list) else [row["ours"]]:
            resolve(symbol)
    elif given == ["comes_with"]:
        assert (ROOT / "packages" / row["comes_with"] / "pyproject.toml").exists()
        assert len(row["why"].split()) >= 2
    else:
        assert len(row["none"].split()) >= 3 or row["none"] in ("pytest", "the standard library")


def resolve(symbol: str) -> None:
    """Find a dotted name by importing and asking, or path::name in a file's top level."""
    if "::" in symbol:
        path, name = symbol.split("::")
        top = syntax_tree((ROOT / path).read_text(encoding="utf-8")).body
        assert name in [node.name for node in top if isinstance(node, (ast.FunctionDef, ast.ClassDef))], symbol
        return
    parts = symbol.split(".")
    for end in range(len(parts), 0, -1):
        if is_module(".".join(parts[:end])):
            found: object = importlib.import_module(".".join(parts[:end]))
            for part in parts[end:]:
                found = getattr(found, part)
            return
    raise AssertionError(f"no package of {symbol}")


@cache
def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is no package
        return False


TESTS = [row for file, row in ROWS if file.startswith("test/") and row["name"].lower().startswith("test")]


def test_the_tests_of_torch_are_those_that_are_known() -> None:
    assert len([row for row in TESTS if row["kind"] == "class"]) == 10
    assert len([row for row in TESTS if row["kind"] == "function"]) == 27


@pytest.mark.parametrize("row", TESTS, ids=[row["name"] for row in TESTS])
def test_for_each_test_of_torch_there_is_one_of_ours(row: dict[str, Any]) -> None:
    """Not only a symbol: a function that pytest runs, and first in the list."""
    path, name = (row["ours"] if isinstance(row["ours"], list) else [row["ours"]])[0].split("::")
    assert Path(path).name.startswith("test_")
    assert name.startswith("test_")


# What torch has of them


def installed(file: str) -> Path:
    """Torch's own file, found without importing it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1] / file


def identifiers(source: str) -> set[Identifier]:
    """What a file defines and imports, at any depth."""
    found: set[Identifier] = set()
    for node in ast.walk(syntax_tree(source)):
        if isinstance(node, ast.ClassDef):
            found.add(("class", node.name))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(("function", node.name))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {("import", alias.name) for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                found.add(("import", "." * node.level + (node.module or "")))
    return found


ORIGINALS = [file for file in TABLE if file.startswith("torch/")]


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="the notes are on torch 2.13")
@pytest.mark.parametrize("file", ORIGINALS)
def test_what_is_noted_as_gone_is_gone_from_torch_and_nothing_else(file: str) -> None:
    there = identifiers(installed(file).read_text(encoding="utf-8"))
    gone = {(row["kind"], row["name"]) for row in TABLE[file] if row.get("gone") == "2.13"}
    assert {(row["kind"], row["name"]) for row in TABLE[file]} - there == gone
    assert not false_of(file) & there


def test_there_are_four_originals_and_their_tests() -> None:
    assert len(ORIGINALS) == 4
    assert not any("gone" in row for file, row in ROWS if file not in ORIGINALS)


# How far we are: what has come may not go back


AT_LEAST = {
    "_functional_collectives.py": 50,
    "_fsdp_collectives.py": 23,
    "comm_lowering.py": 22,
    "_func_map.py": 10,
    "test_functional_api.py": 55,
}


@pytest.mark.parametrize("file", TABLE)
def test_resolved_and_coming_are_counted(file: str, record_property: Any) -> None:
    counts = Counter(answer for row in TABLE[file] for answer in ANSWERS if answer in row)
    for answer in ANSWERS:
        record_property(f"{Path(file).name} {answer}", counts[answer])
    assert counts.total() == len(TABLE[file])
    assert counts["ours"] >= AT_LEAST[Path(file).name], counts
    definitions = [row for row in TABLE[file] if row["kind"] != "import"]
    assert sum("ours" in row for row in definitions) > len(definitions) / 2
