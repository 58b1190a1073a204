"""Every linear collective's gradient is its transpose: sum over ranks <Cx, y> == sum over ranks <x, C'y>, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch

from comm_core import World
from comm_core.catalog import CATALOG
from comm_core.collective import Missing
from comm_core.testing import run_ranks

from .bodies import Adjoint, adjoint, inner, several
from .case import LINEAR, WORLDS, Case
from .cases import CASES
from .judge import defined, wrong

DIFFERENTIABLE = [name for name, entry in CATALOG.items() if not isinstance(entry.gradient, Missing)]
SEEDS = (0, 1)


def linear_cases(name: str, world: int) -> list[Case]:
    """Every case with every linear reduce op, in float64, and the typical ones in complex128 too."""
    found = []
    for case in CASES[name](world):
        for op in LINEAR if "reduce_op" in case.params[0] else ("",):
            params = tuple({**of, "reduce_op": op} if op else of for of in case.params)
            found.append(replace(case, label=f"{case.label} {op}", params=params, dtype=torch.float64))
    typical = [case for case in found if case.label.startswith("typical")]
    return found + [replace(case, label=f"{case.label}, complex", dtype=torch.complex128) for case in typical]


@cache
def on_ranks(world: int, backend: str) -> dict[str, list[list[Adjoint | str]]]:
    jobs = {name: (adjoint, (name, linear_cases(name, world))) for name in DIFFERENTIABLE}
    by_rank = run_ranks(several, world, backend, args=(jobs,))
    return {name: [of[name] for of in by_rank] for name in DIFFERENTIABLE}


def breaches(name: str, cases: Sequence[Case], by_rank: Sequence[Sequence[Adjoint | str]]) -> list[str]:
    """List every case where the identity does not hold, or where the second derivative is not the map itself."""
    found = []
    for index, case in enumerate(cases):
        parts = [of[index] for of in by_rank]
        failed = [part for part in parts if isinstance(part, str)]
        if failed:
            found.append(f"{case.label}: {failed[0]}")
            continue
        forward = defined(name, [part.x for part in parts], case)
        again = defined(name, [part.z for part in parts], case)
        for rank, part in enumerate(parts):
            found += [f"{case.label}, rank {rank}, Cx: {said}" for said in [wrong(part.forward, forward[rank])] if said]
            found += [f"{case.label}, rank {rank}, C''z: {said}" for said in [wrong(part.again, again[rank])] if said]
        left = sum(float(inner(part.y, want)) for part, want in zip(parts, forward, strict=True))
        right = sum(float(inner(part.backward, part.x)) for part in parts)
        if left != right:
            found.append(f"{case.label}: sum <Cx, y> is {left}, sum <x, C'y> is {right}")
    return found


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_in_the_simulator(name: str, world: int) -> None:
    cases = linear_cases(name, world)
    for seed in SEEDS:
        assert breaches(name, cases, World(world).run(adjoint, name, cases, seed)) == []


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_on_real_ranks(name: str, world: int, world_backend: str) -> None:
    assert breaches(name, linear_cases(name, world), on_ranks(world, world_backend)[name]) == []


def test_a_gradient_without_the_other_ranks_would_be_noticed() -> None:
    """The identity is a real test: the local gradient of a sum, which ignores the other ranks, breaks it."""
    (case,) = [case for case in linear_cases("all_reduce", 2) if case.label == "typical sum"]
    right = World(2).run(adjoint, "all_reduce", [case])
    local = [[replace(part, backward=part.y) for part in of if isinstance(part, Adjoint)] for of in right]
    assert breaches("all_reduce", [case], right) == []
    assert len(breaches("all_reduce", [case], local)) == 1


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_the_gradient_is_the_transposed_matrix(name: str, world: int) -> None:
    """All entries of the matrix, not only products with it: one basis vector of all ranks' outputs after the other."""
    case = next(case for case in linear_cases(name, world) if case.label.startswith("typical"))
    columns = matrix(name, case)
    sizes = [result.numel() for result in defined(name, case.inputs(), case)]
    rows = World(world).run(rows_by_backward, name, case, sizes)
    assert torch.equal(torch.cat(rows, 1), columns)


def matrix(name: str, case: Case) -> torch.Tensor:
    """The whole map, outputs of all ranks by inputs of all ranks, from the definition."""
    sizes = [torch.Size(shape).numel() for shape in case.shapes]
    columns = []
    for position in range(sum(sizes)):
        flat = torch.zeros(sum(sizes), dtype=torch.float64)
        flat[position] = 1
        inputs = [part.view(shape) for part, shape in zip(flat.split(sizes), case.shapes, strict=True)]
        columns.append(torch.cat([result.flatten() for result in defined(name, inputs, case)]))
    return torch.stack(columns, 1)


def rows_by_backward(group: object, name: str, case: Case, sizes: list[int]) -> torch.Tensor:
    from comm_core import as_group, run

    on = as_group(group)  # type: ignore[arg-type]
    x = case.inputs()[on.rank].requires_grad_()
    got = run(CATALOG[name], x, on, **case.params[on.rank])
    rows = []
    for position in range(sum(sizes)):
        flat = torch.zeros(sum(sizes), dtype=torch.float64)
        flat[position] = 1
        mine = flat.split(sizes)[on.rank].view(got.shape)
        (row,) = torch.autograd.grad(got, x, mine, retain_graph=True)
        rows.append(row.flatten())
    return torch.stack(rows)
