"""complex32, which torch adds and does not divide, and float4, which torch copies only in a row."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from comm_core import CATALOG, Group, SimulatedGroup, World, run
from comm_core.testing import run_ranks

REDUCING = sorted(name for name, entry in CATALOG.items() if "reduce_op" in entry.parameters)
ALONG_A_DIM = ("all_gather", "all_gather_v", "gather", "scatter")


def params_of(name: str, n: int, dim: int, size: int) -> dict[str, Any]:
    sizes = [size // n if name == "scatter" else size] * n
    known = {"reduce_op": "avg", "dim": dim, "src": 0, "dst": 0, "sizes": sizes, "reverse": False}
    return {key: known[key] for key in CATALOG[name].parameters}


def means(group: Group | SimulatedGroup, dtype: torch.dtype) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What each reduction makes of small whole numbers, and the gradient."""
    found = {}
    rows = torch.arange(12.0).view(6, 2) * (2 + 4j) + group.rank * 12j
    for name in REDUCING:
        x = rows.to(dtype, copy=True).requires_grad_()
        y = run(CATALOG[name], x, group, **params_of(name, group.world, 0, 6 // group.world))
        torch.view_as_real(y).float().mul(group.world * 6).sum().backward()
        assert y.dtype is dtype
        assert x.grad is not None
        found[name] = y.detach().to(torch.complex64), x.grad.to(torch.complex64)
    return found


def both(group: Group | SimulatedGroup) -> list[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    return [means(group, torch.complex32), means(group, torch.complex64)]


def held(results: list[list[dict[str, tuple[torch.Tensor, torch.Tensor]]]]) -> None:
    for half, whole in results:
        assert half.keys() == whole.keys() == set(REDUCING)
        for name in REDUCING:
            for got, want in zip(half[name], whole[name], strict=True):
                torch.testing.assert_close(got, want, rtol=2e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_simulated_ranks_take_the_mean_of_complex32(world: int) -> None:
    held(World(world).run(both))


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_transport_takes_the_mean_of_complex32(world: int) -> None:
    held(run_ranks(both, world=world))


def moved(group: Group | SimulatedGroup) -> dict[str, bool]:
    """Whether each collective along a dim moves float4 as the bytes that it is."""
    found = {}
    full = torch.arange(36, dtype=torch.uint8).view(6, 6) + 36 * group.rank
    for name in ALONG_A_DIM:
        for dim in (0, 1):
            x = full.narrow(dim, 0, 0) if name == "scatter" and group.rank else full
            params = params_of(name, group.world, dim, 6)
            want = run(CATALOG[name], x, group, **params)
            got = run(CATALOG[name], x.view(torch.float4_e2m1fn_x2), group, **params)
            found[f"{name} {dim}"] = got.dtype is torch.float4_e2m1fn_x2 and torch.equal(got.view(torch.uint8), want)
    return found


@pytest.mark.parametrize("world", [1, 2, 3])
def test_simulated_ranks_move_float4_along_any_dim(world: int) -> None:
    assert all(all(found.values()) for found in World(world).run(moved))


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_transport_moves_float4_along_any_dim(world: int) -> None:
    assert all(all(found.values()) for found in run_ranks(moved, world=world))
