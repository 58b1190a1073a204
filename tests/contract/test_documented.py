"""Every entry says what it is: in its module, in its fields and on the generated page."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from comm_core import Collective
from comm_core.catalog import CATALOG
from comm_core.collective import Missing
from tools.gen import life
from tools.gen.sources import distributions

ROOT = Path(__file__).parents[2]
RULES = ("check", "agrees", "shape", "oracle", "kernel", "gradient", "batch", "wire_bytes")


@pytest.mark.parametrize("name", CATALOG)
def test_the_words_of_an_entry(name: str) -> None:
    entry = CATALOG[name]
    assert entry.name == name
    assert re.fullmatch(r"[A-Z][^\n]*\.", entry.summary)
    assert entry.schema.startswith(f"{name}(Tensor x")
    assert entry.schema.endswith("-> Tensor")
    for field in fields(entry):
        value = getattr(entry, field.name)
        if isinstance(value, Missing):
            assert len(value.why.split()) >= 4, f"{field.name}: {value.why}"


@pytest.mark.parametrize("name", CATALOG)
def test_an_entry_is_one_file_with_a_docstring_and_plain_functions(name: str) -> None:
    entry = CATALOG[name]
    module = sys.modules[entry.shape.__module__]
    assert module.__name__ == f"comm_core.catalog.{name}"
    assert (module.__doc__ or "").startswith(f"{name}: ")
    for rule in RULES:
        value = getattr(entry, rule)
        if not isinstance(value, Missing):
            assert inspect.isfunction(value), rule
            assert value.__module__.startswith("comm_core.catalog."), rule


@pytest.mark.parametrize("name", CATALOG)
def test_the_schema_names_the_parameters_that_the_rules_take(name: str) -> None:
    entry = CATALOG[name]
    declared = re.findall(r"(\w+)(?:=\w+)?(?=[,)])", entry.schema.split("*")[1]) if "*" in entry.schema else []
    for rule in ("check", "shape", "kernel", "gradient", "wire_bytes"):
        value = getattr(entry, rule)
        if not isinstance(value, Missing):
            taken = inspect.signature(value).parameters.values()
            allowed = [*declared, "fill"] if rule == "kernel" and entry.fills else declared
            assert [p.name for p in taken if p.kind is p.KEYWORD_ONLY] == allowed, rule


def test_a_rule_names_no_transport() -> None:
    for file in (ROOT / "packages/comm_core/src/comm_core/catalog").glob("*.py"):
        source = file.read_text(encoding="utf-8")
        assert "torch.ops" not in source, file.name
        assert "torch.distributed" not in source, file.name
        assert not re.search(r"\bif\b[^\n]*\bname ==", source), file.name


@pytest.mark.parametrize("name", CATALOG)
def test_the_matrix_page_has_the_entry_and_the_reason_for_every_empty_field(name: str) -> None:
    page = (ROOT / "docs/reference/collectives.md").read_text(encoding="utf-8")
    assert f"| [{name}](collectives/{name}.md) |" in page
    assert CATALOG[name].summary in page
    for field in fields(Collective):
        value = getattr(CATALOG[name], field.name)
        if isinstance(value, Missing):
            assert f"| {name} | {field.name} | {value.why} |" in page, field.name


@pytest.mark.parametrize("name", CATALOG)
def test_the_page_of_an_entry_tells_every_field(name: str, life_pages: dict[str, str]) -> None:
    page = life_pages[name]
    assert CATALOG[name].summary in page
    for field in fields(Collective):
        assert field.name in ("name", "summary") or f"| {field.name} |" in page, field.name
    for heading in ("Gradient", "Under vmap", "In a traced graph", "Lowering", "Errors at the call", "Tests"):
        assert f"\n## {heading}\n" in page


@pytest.fixture(scope="module")
def life_pages() -> dict[str, str]:
    return {output.path.rpartition("/")[2].removesuffix(".md"): output.text for output in life.pages(distributions())}
