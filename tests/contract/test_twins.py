"""On real ranks torch's functional and in-place ops of the same name do what our entry does."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from comm_core import Group
from comm_core.catalog import CATALOG
from comm_core.testing import run_ranks

from . import twins
from .bodies import attempt, several
from .case import Case
from .cases import CASES
from .judge import Answer, complaints

WORLDS = (1, 2, 3)
FUNCTIONAL = [name for name, entry in CATALOG.items() if isinstance(entry.twin, str)]
IN_PLACE = [name for name, entry in CATALOG.items() if isinstance(entry.in_place, str)]


def dim_0_cases(name: str, world: int) -> list[Case]:
    return [case for case in CASES[name](world) if case.params[0].get("dim", 0) == 0]


def by_torch(group: Group, name: str, cases: list[Case], in_place: bool) -> list[Answer]:
    """Call torch's op; the in-place one has to write into the very tensor that it was given."""
    entry = CATALOG[name]
    op = entry.in_place if in_place else entry.twin
    assert isinstance(op, str)

    def one(case: Case) -> torch.Tensor:
        x = case.inputs()[group.rank].clone(memory_format=torch.contiguous_format)
        parsed = entry.check(x, group.world, group.rank, **case.params[group.rank])
        got = torch.ops._c10d_functional.wait_tensor(twins.call(name, op, x, parsed, group.world, group.name))
        if in_place and x.numel() and got.data_ptr() != x.data_ptr():
            return got.new_tensor(float("nan"))
        return x if in_place else got

    return [attempt(lambda case=case: one(case)) for case in cases]  # type: ignore[misc]


@cache
def on_ranks(world: int, backend: str) -> dict[str, list[list[Answer]]]:
    jobs = {f"{name} {False}": (by_torch, (name, dim_0_cases(name, world), False)) for name in FUNCTIONAL}
    jobs |= {f"{name} {True}": (by_torch, (name, dim_0_cases(name, world), True)) for name in IN_PLACE}
    by_rank = run_ranks(several, world, backend, args=(jobs,))
    return {label: [of[label] for of in by_rank] for label in jobs}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", FUNCTIONAL)
def test_the_twin_computes_what_the_entry_says(name: str, world: int, world_backend: str) -> None:
    assert complaints(dim_0_cases(name, world), on_ranks(world, world_backend)[f"{name} {False}"], name) == []


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", IN_PLACE)
def test_the_in_place_op_leaves_the_functional_result_in_its_input(name: str, world: int, world_backend: str) -> None:
    assert complaints(dim_0_cases(name, world), on_ranks(world, world_backend)[f"{name} {True}"], name) == []


@pytest.mark.parametrize("name", CATALOG)
def test_the_ops_exist_where_they_are_said_to(name: str) -> None:
    entry = CATALOG[name]
    for op in (entry.twin, entry.in_place):
        if isinstance(op, str):
            schema = getattr(torch.ops._c10d_functional, op).default._schema
            assert schema.arguments[0].type.kind() == "TensorType"
    if isinstance(entry.in_place, str):
        first = getattr(torch.ops._c10d_functional, entry.in_place).default._schema.arguments[0]
        assert first.alias_info is not None
        assert first.alias_info.is_write
