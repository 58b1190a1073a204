"""Every collective on part of the ranks: positions in the group count, not global ranks, and the others go on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist

from comm_core import Group, SimulatedGroup, World, run
from comm_core.catalog import CATALOG
from comm_core.testing import run_ranks

from .bodies import attempt
from .cases import CASES
from .judge import expected, wrong

MEMBERS = [1, 3]  # so that no member's position is its global rank but by chance: 1 -> 0, 3 -> 1
WORLD = 4


def on_members(group: Group | SimulatedGroup, names: list[str]) -> dict[str, Any] | None:
    """Run the typical case of two ranks, with its gradient, on the two members; the others return at once."""
    some = group.subgroup(MEMBERS) if isinstance(group, SimulatedGroup) and group.rank in MEMBERS else None
    if isinstance(group, Group):
        some = dist.new_group(MEMBERS)  # type: ignore[assignment]
    if group.rank not in MEMBERS:
        return None
    me = MEMBERS.index(group.rank)
    return {name: attempt(lambda name=name: forward_and_backward(some, name, me)) for name in names}  # type: ignore


def forward_and_backward(group: Any, name: str, me: int) -> torch.Tensor:
    case = CASES[name](len(MEMBERS))[0]
    x = case.inputs()[me].requires_grad_()
    got = run(CATALOG[name], x, group, **case.params[me])
    (gradient,) = torch.autograd.grad(got.sum(), x)
    return torch.cat([got.detach().flatten(), gradient.flatten()])


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("where", ["real", "simulated"])
def test_every_collective_on_part_of_the_ranks(where: str) -> None:
    names = list(CATALOG)
    both = World(WORLD).run(on_members, names) if where == "simulated" else run_ranks(on_members, WORLD, args=(names,))
    assert [part is None for part in both] == [rank not in MEMBERS for rank in range(WORLD)]
    members = [part for part in both if part is not None]
    whole = World(len(MEMBERS)).run(everywhere, names)
    for name in names:
        wants = expected(name, CASES[name](len(MEMBERS))[0])
        for part, alone, want in zip(members, whole, wants, strict=True):
            assert isinstance(part[name], torch.Tensor), part[name]
            assert wrong(part[name][: want.numel()], want.flatten()) == "", name
            assert wrong(part[name], alone[name]) == "", name


def everywhere(group: SimulatedGroup, names: list[str]) -> dict[str, Any]:
    return {name: forward_and_backward(group, name, group.rank) for name in names}
