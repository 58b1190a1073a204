"""The gradient of a gradient where one rank's loss is bent and the others are flat, as where a root alone has a result.

A flat loss gives a cotangent that depends on nothing, and what a rank does in the second backward may not depend on
that: the others would wait. The oracle is the definition in one process (`lists.py`), where torch differentiates
through all ranks at once, in float64. `test_torch_func.py` asks the same under every transform.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from comm_core import World, run
from comm_core.catalog import CATALOG
from comm_core.testing import run_ranks

from .case import Case
from .lists import multiplied_first
from .test_torch_func import ENTRIES, cases

Slopes = tuple[torch.Tensor, torch.Tensor]


def leaf(case: Case, rank: int) -> torch.Tensor:
    """Few different numbers, so that ties and zeros abound."""
    generator = torch.Generator().manual_seed(rank)
    return torch.randint(-1, 3, case.shapes[rank], generator=generator).double().requires_grad_()


def loss(y: torch.Tensor, rank: int, bent: int) -> torch.Tensor:
    finite = torch.where(y.isfinite(), y, torch.zeros_like(y))  # an exscan's first rank has infinities for min and max
    return (finite**3).sum() if rank == bent else (rank + 1) * finite.sum()


def of_ours(group: Any, name: str, drawn: list[Case], bent: int) -> list[Slopes]:
    return [slopes(group, name, case, bent) for case in drawn]


def slopes(group: Any, name: str, case: Case, bent: int) -> Slopes:
    x = leaf(case, group.rank)
    value = loss(run(CATALOG[name], x, group, **case.params[group.rank]), group.rank, bent)
    (once,) = torch.autograd.grad(value, x, create_graph=True)
    once.square().sum().backward()
    return once.detach(), x.grad  # type: ignore[return-value]


def of_one_process(name: str, case: Case, bent: int) -> list[Slopes]:
    xs = [leaf(case, rank) for rank in range(case.world)]
    total = sum(loss(y, rank, bent) for rank, y in enumerate(multiplied_first(name, xs, case.params)))
    once = torch.autograd.grad(total, xs, create_graph=True, materialize_grads=True)
    again = sum(g.square().sum() for g in once) + sum(0.0 * x.sum() for x in xs)
    twice = torch.autograd.grad(again, xs)
    return [(a.detach(), b) for a, b in zip(once, twice, strict=True)]


def compare(name: str, drawn: list[Case], bent: int, by_rank: list[list[Slopes]]) -> None:
    for index, case in enumerate(drawn):
        for rank, want in enumerate(of_one_process(name, case, bent)):
            said = f"{name}, {case.label}, rank {rank} of {case.world}, rank {bent} bent"
            torch.testing.assert_close(
                by_rank[rank][index], want, rtol=1e-12, atol=1e-12, msg=lambda why, said=said: f"{said}: {why}"
            )


@pytest.mark.parametrize("bent", [0, 2])
@pytest.mark.parametrize("name", ENTRIES)
def test_in_the_simulator(name: str, bent: int) -> None:
    drawn = cases(name, 3)
    compare(name, drawn, bent, World(3).run(of_ours, name, drawn, bent))


@pytest.mark.parametrize("name", ENTRIES)
def test_on_real_ranks(name: str, world_backend: str) -> None:
    drawn = cases(name, 2)
    compare(name, drawn, 1, run_ranks(of_ours, 2, world_backend, args=(name, drawn, 1)))
