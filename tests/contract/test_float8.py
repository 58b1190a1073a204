"""float8: moved as bytes by every collective that moves, on every transport; reduced only where the transport can."""

from __future__ import annotations

import pytest
import torch

from comm_core import CATALOG, Group, SimulatedGroup, World, run
from comm_core.errors import CommError
from comm_core.testing import run_ranks

DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)
MOVING = sorted(name for name, entry in CATALOG.items() if "reduce_op" not in entry.parameters)


def params_of(name: str, group: Group | SimulatedGroup) -> dict[str, object]:
    n, right, left = group.world, (group.rank + 1) % group.world, (group.rank - 1) % group.world
    known = {
        "dim": 0,
        "src": n - 1,
        "dst": 0,
        "sizes": [6] * n if name != "scatter" else [6 // n] * n,
        "destinations": [(rank + 1) % n for rank in range(n)],
        "output_splits": None,
        "input_splits": None,
        "sends": [(right, 6, 0)],
        "receives": [(left, 6, 0)],
        "reverse": True,
    }
    return {key: known[key] for key in CATALOG[name].parameters}


def moved(group: Group | SimulatedGroup) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What each collective makes of floats, and of the same numbers as float8."""
    found = {}
    for name in MOVING:
        x = torch.tensor([0.5, -1.0, 2.0, 0.0, 3.0, -4.0]) * (1 + group.rank % 2)
        x = x[:0] if name == "scatter" and group.rank != group.world - 1 else x
        want = run(CATALOG[name], x, group, **params_of(name, group))
        for dtype in DTYPES:
            got = run(CATALOG[name], x.to(dtype), group, **params_of(name, group))
            assert got.dtype is dtype
            found[f"{name} {dtype}"] = got.float(), want
    return found


def held(results: list[dict[str, tuple[torch.Tensor, torch.Tensor]]]) -> None:
    for found in results:
        assert len(found) == len(MOVING) * len(DTYPES)
        for label, (got, want) in found.items():
            assert torch.equal(got, want), label


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 3])
def test_every_collective_that_moves_moves_it(world: int) -> None:
    held(run_ranks(moved, world=world))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_simulated_ranks_move_it(world: int) -> None:
    held(World(world).run(moved))


def refused(group: Group) -> list[str]:
    said = []
    for name in ("all_reduce", "reduce_scatter", "reduce"):
        known = {"reduce_op": "sum", "dim": 0, "dst": 0}
        try:
            run(CATALOG[name], torch.ones(4).to(DTYPES[0]), group, **{k: known[k] for k in CATALOG[name].parameters})
            said.append("")
        except CommError as error:
            said.append(f"{error.where}: {error.got}")
    return said


def test_gloo_says_at_the_call_that_it_does_not_reduce_it() -> None:
    for said in run_ranks(refused, world=2, backend="gloo"):
        for name, words in zip(("all_reduce", "reduce_scatter", "reduce"), said, strict=True):
            assert words == f"{name}: a reduction of torch.float8_e4m3fn, which gloo does not have"


OWN = {"reduce_scatter_v": {"dim": 0, "sizes": [2, 3, 1]}, "scan": {"reverse": False}, "exscan": {"reverse": True}}


def reduced(group: Group | SimulatedGroup) -> list[str]:
    """Where ranks reduce themselves: as float32, rounded once."""
    found = []
    for name, params in OWN.items():
        for op in ("sum", "avg", "product", "min", "max"):
            x = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.5, -4.0]) * (1 + group.rank % 2)
            for dtype in DTYPES:
                limit = torch.finfo(dtype).max  # what changes nothing is not infinite here
                want = run(CATALOG[name], x, group, reduce_op=op, **params).clamp(-limit, limit).to(dtype)
                got = run(CATALOG[name], x.to(dtype), group, reduce_op=op, **params)
                if got.dtype is not dtype or not torch.equal(got.float(), want.float()):
                    found.append(f"{name} {op} {dtype}: {got.float().tolist()} instead of {want.float().tolist()}")
    return found


@pytest.mark.usefixtures("world_backend")
def test_where_ranks_reduce_themselves_it_is_reduced_everywhere() -> None:
    assert run_ranks(reduced, world=3) == [[]] * 3
    assert World(3).run(reduced) == [[]] * 3
