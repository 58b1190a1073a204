"""Under vmap a collective gives the stack of single calls, for every position of the batch, in one collective."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from comm_core import SimulatedGroup, World, run
from comm_core.catalog import CATALOG
from comm_core.collective import Missing
from comm_core.testing import run_ranks

from .bodies import by_vmap, several
from .case import WORLDS, Case
from .cases import CASES
from .judge import Answer, expected, wrong

BATCHED = [name for name, entry in CATALOG.items() if not isinstance(entry.batch, Missing)]
BATCH = 3


@cache
def on_ranks(world: int, backend: str) -> dict[str, list[list[Answer]]]:
    jobs = {name: (by_vmap, (name, CASES[name](world), BATCH)) for name in BATCHED}
    by_rank = run_ranks(several, world, backend, args=(jobs,))
    return {name: [of[name] for of in by_rank] for name in BATCHED}


def breaches(name: str, cases: list[Case], by_rank: list[list[Answer]]) -> list[str]:
    found = []
    for rank, answers in enumerate(by_rank):
        left = list(answers)
        for case in cases:
            singles = [expected(name, case, seed)[rank] for seed in range(BATCH)]
            for at in range(-1, len(case.shapes[rank]) + 1):
                said = wrong(left.pop(0), torch.stack(singles))
                found += [f"{case.label}, in_dims={at}, rank {rank}: {said}"] if said else []
        assert left == []
    return found


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", BATCHED)
def test_in_the_simulator(name: str, world: int) -> None:
    cases = CASES[name](world)
    assert breaches(name, cases, World(world).run(by_vmap, name, cases, BATCH)) == []


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("name", BATCHED)
def test_on_real_ranks(name: str, world: int, world_backend: str) -> None:
    assert breaches(name, CASES[name](world), on_ranks(world, world_backend)[name]) == []


def typical(name: str, world: int) -> Case:
    return CASES[name](world)[0]


def meetings(group: SimulatedGroup, name: str) -> tuple[int, int]:
    """Count the collectives of one single call and of one batched call."""
    case = typical(name, group.world)
    x, params = case.inputs()[group.rank], case.params[group.rank]
    before = group.next_meeting()
    run(CATALOG[name], x, group, **params)
    between = group.next_meeting()
    torch.vmap(lambda one: run(CATALOG[name], one, group, **params))(torch.stack([x] * BATCH))
    return between - before - 1, group.next_meeting() - between - 1


@pytest.mark.parametrize("name", BATCHED)
def test_a_batch_is_one_collective(name: str) -> None:
    wanted = 0 if name in ("wait", "batch_p2p") else 1  # those that the ranks do not do together
    assert World(3).run(meetings, name) == [(wanted, wanted)] * 3


def nested(group: SimulatedGroup, name: str) -> torch.Tensor:
    case = typical(name, group.world)
    x = torch.stack([torch.stack([case.inputs(2 * i + j)[group.rank] for j in (0, 1)], -1) for i in (0, 1)])

    def one(x: torch.Tensor) -> torch.Tensor:
        return run(CATALOG[name], x, group, **case.params[group.rank])

    return torch.vmap(torch.vmap(one, in_dims=-1), out_dims=1)(x)


@pytest.mark.parametrize("name", BATCHED)
def test_a_batch_of_batches(name: str) -> None:
    case = typical(name, 3)
    for rank, got in enumerate(World(3).run(nested, name)):
        for i in (0, 1):
            for j in (0, 1):
                assert wrong(got[j, i], expected(name, case, 2 * i + j)[rank]) == ""


def gradients(group: SimulatedGroup, name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Per-example gradients three ways: vmap of grad, grad of vmap, one by one."""
    case = typical(name, group.world)
    x = torch.stack([case.inputs(seed)[group.rank] for seed in range(BATCH)])

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (run(CATALOG[name], x, group, **case.params[group.rank]) ** 2).sum()

    by_vmap_of_grad = torch.vmap(torch.func.grad(loss))(x)
    by_grad_of_vmap = torch.func.grad(lambda x: torch.vmap(loss)(x).sum())(x)
    return by_vmap_of_grad, by_grad_of_vmap, torch.stack([torch.func.grad(loss)(one) for one in x])


@pytest.mark.parametrize("name", [name for name in BATCHED if not isinstance(CATALOG[name].gradient, Missing)])
def test_gradients_of_examples(name: str) -> None:
    by_rank = World(3).run(gradients, name)
    for vmap_of_grad, grad_of_vmap, singly in by_rank:
        assert torch.equal(vmap_of_grad, singly)
        assert torch.equal(grad_of_vmap, singly)
    assert any(singly.abs().sum() > 0 for _, _, singly in by_rank)


def shared(group: SimulatedGroup, name: str) -> torch.Tensor:
    """A collective inside vmap whose input has no batch."""
    case = typical(name, group.world)
    x = case.inputs()[group.rank]

    def one(scale: torch.Tensor) -> torch.Tensor:
        return scale * run(CATALOG[name], x, group, **case.params[group.rank])

    return torch.vmap(one)(torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("name", BATCHED)
def test_an_input_without_a_batch(name: str) -> None:
    wants = expected(name, typical(name, 2))
    for got, want in zip(World(2).run(shared, name), wants, strict=True):
        assert torch.equal(got, torch.stack([want, 2 * want]))
