"""Shape rule, oracle, kernel, simulator and real ranks all give what the definition in NumPy gives, exactly."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from comm_core import World
from comm_core.catalog import CATALOG
from comm_core.collective import Lowering
from comm_core.testing import run_ranks

from .bodies import by_kernel, by_run, several
from .case import GLOO_ONLY_MOVES, WORLDS, Case, over_dtypes
from .cases import CASES
from .judge import Answer, complaints, expected, wrong

pytestmark = [pytest.mark.parametrize("name", CATALOG), pytest.mark.parametrize("world", WORLDS)]

REDUCE_THEMSELVES = ("reduce_scatter_v", "scan", "exscan")  # the ranks do, so what moves is reduced


def cases_of(name: str, world: int) -> list[Case]:
    cases = CASES[name](world)
    return [*cases, *over_dtypes(cases[0])]


def parsed(name: str, case: Case) -> list[dict[str, Any]]:
    check = CATALOG[name].check
    inputs = case.inputs()
    return [check(inputs[rank], case.world, rank, **of) for rank, of in enumerate(case.params)]


@cache
def on_ranks(world: int, backend: str) -> dict[str, list[list[Answer]]]:
    """All cases of all entries, on real ranks, in one go: by name, rank and case."""
    jobs = {name: (by_run, (name, cases_of(name, world))) for name in CATALOG}
    by_rank = run_ranks(several, world, backend, args=(jobs,))
    return {name: [of[name] for of in by_rank] for name in CATALOG}


def test_the_shape_rule_is_the_definitions_shape(name: str, world: int) -> None:
    for case in cases_of(name, world):
        shapes = [
            CATALOG[name].shape(shape, world, rank, **of)
            for rank, (shape, of) in enumerate(zip(case.shapes, parsed(name, case), strict=True))
        ]
        assert shapes == [tuple(want.shape) for want in expected(name, case)], case.label


def test_the_oracle_is_the_definition(name: str, world: int) -> None:
    cases = cases_of(name, world)
    results = [CATALOG[name].oracle(case.inputs(), parsed(name, case)) for case in cases]
    by_rank = [[of[rank] for of in results] for rank in range(world)]
    assert complaints(cases, by_rank, name) == []


def test_the_kernel_on_the_simulated_wire_is_the_definition(name: str, world: int) -> None:
    cases = cases_of(name, world)
    assert complaints(cases, World(world).run(by_kernel, name, cases), name) == []


def test_the_simulator_is_the_definition(name: str, world: int) -> None:
    cases = cases_of(name, world)
    answers = World(world).run(by_run, name, cases)
    assert complaints(cases, answers, name) == []
    assert laid_out_otherwise(name, cases, answers) == []


def test_real_ranks_give_the_definition(name: str, world: int, world_backend: str) -> None:
    cases, answers = cases_of(name, world), on_ranks(world, world_backend)[name]
    only_moved = GLOO_ONLY_MOVES if world_backend == "gloo" else ()
    reduces = "reduce_op" in CATALOG[name].parameters and name not in REDUCE_THEMSELVES
    refused = [i for i, case in enumerate(cases) if case.dtype in only_moved and reduces]
    for i in refused:
        for of in answers:
            assert str(of[i]).startswith(f"ReduceOpError: {name}: got a reduction of {cases[i].dtype}, which gloo does")
    taken = [i for i in range(len(cases)) if i not in refused]
    cases, answers = [cases[i] for i in taken], [[of[i] for i in taken] for of in answers]
    assert complaints(cases, answers, name) == []
    assert laid_out_otherwise(name, cases, answers) == []


def laid_out_otherwise(name: str, cases: list[Case], answers: list[list[Answer]]) -> list[str]:
    """Results are contiguous, but for a wait, which gives back what it was given."""
    if CATALOG[name].lowering is Lowering.WAIT:
        return []
    return [
        f"{case.label}: strides {answer.stride()} of {tuple(answer.shape)}"
        for of in answers
        for case, answer in zip(cases, of, strict=True)
        if isinstance(answer, torch.Tensor) and not answer.is_contiguous()
    ]


def test_the_oracle_writes_nothing_and_shares_nothing(name: str, world: int) -> None:
    if CATALOG[name].lowering is Lowering.WAIT:
        pytest.skip("a wait gives back what it was given")
    for case in CASES[name](world):
        inputs = case.inputs()
        results = CATALOG[name].oracle(inputs, parsed(name, case))
        assert not any(wrong(x, before) for x, before in zip(inputs, case.inputs(), strict=True)), case.label
        memory = [x.untyped_storage().data_ptr() for x in [*inputs, *results] if x.numel()]
        assert len(set(memory)) == len(memory), f"{case.label}: two tensors share memory"
