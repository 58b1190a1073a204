"""The tables of these tests cover the whole catalogue, so that a new entry cannot go untested."""

from __future__ import annotations

import pytest
import torch

from comm_core.catalog import CATALOG

from .case import WORLDS
from .cases import CASES, DISAGREEMENTS, REFUSED
from .reference import DEFINITIONS
from .twins import ARGUMENTS


@pytest.mark.parametrize("name", CATALOG)
def test_every_entry_is_in_every_table(name: str) -> None:
    tables = {"CASES": CASES, "DEFINITIONS": DEFINITIONS, "REFUSED": REFUSED, "DISAGREEMENTS": DISAGREEMENTS}
    if isinstance(CATALOG[name].twin, str) or isinstance(CATALOG[name].in_place, str):
        tables["ARGUMENTS"] = ARGUMENTS
    assert [table for table, rows in tables.items() if name not in rows] == []


def test_tables_have_no_row_that_is_not_in_the_catalogue() -> None:
    rows = {*CASES, *DEFINITIONS, *REFUSED, *DISAGREEMENTS, *ARGUMENTS}
    assert sorted(rows - set(CATALOG)) == []


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize("world", WORLDS)
def test_cases_are_distinct_and_fit_their_world(name: str, world: int) -> None:
    cases = CASES[name](world)
    assert len({case.label for case in cases}) == len(cases)
    assert all(len(case.shapes) == len(case.params) == world for case in cases)
    assert cases[0].label == "typical"


@pytest.mark.parametrize("name", CATALOG)
def test_every_fact_that_ranks_must_agree_on_is_varied(name: str) -> None:
    case = CASES[name](2)[0]
    x = case.inputs()[0]
    facts = CATALOG[name].agrees(x, **CATALOG[name].check(x, 2, 0, **case.params[0]))[0::2]
    assert sorted({fact for fact, _, _ in DISAGREEMENTS[name](2)}) == sorted(map(str, facts))


@pytest.mark.parametrize("name", CATALOG)
def test_the_cases_cover_the_layouts_and_the_edges(name: str) -> None:
    cases = CASES[name](3)
    assert {"transposed"} <= {case.layout for case in cases}
    assert any(0 in shape for case in cases for shape in case.shapes), "no case without elements"
    assert any(torch.Size(case.shapes[0]).numel() > 1 for case in cases)
