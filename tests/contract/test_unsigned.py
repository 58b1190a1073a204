"""Unsigned integers of 16, 32 and 64 bits: moved by every collective; reduced where the ranks reduce themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch

from comm_core import Group, SimulatedGroup, World, run
from comm_core.catalog import CATALOG
from comm_core.errors import ReduceOpError
from comm_core.reduce_ops import neutral
from comm_core.testing import run_ranks

from .test_float8 import MOVING, params_of

WIDTHS = {torch.uint16: 16, torch.uint32: 32, torch.uint64: 64}
COMBINE: dict[str, Callable[[int, int], int]] = {
    "sum": lambda a, b: a + b,
    "product": lambda a, b: a * b,
    "min": min,
    "max": max,
    "band": lambda a, b: a & b,
    "bor": lambda a, b: a | b,
    "bxor": lambda a, b: a ^ b,
}
OWN = {
    "reduce_scatter_v": {"dim": 0, "sizes": [2, 3, 1]},
    "reduce_scatter_v along dim 1": {"dim": 1, "sizes": [2, 3, 1]},
    "scan": {"reverse": False},
    "exscan": {"reverse": False},
}


def numbers(rank: int, bits: int) -> list[int]:
    """Some on each side of half the range, so that signed ones would have another order, and sums go round."""
    half = 1 << (bits - 1)
    return [half + rank, half - 1 - rank, (3 + rank) % 4, 2 * half - 1 - rank, 5 * rank, half * (rank % 2)]


def moved(group: Group | SimulatedGroup) -> list[str]:
    found = []
    for name in MOVING:
        for dtype, bits in WIDTHS.items():
            held = numbers(group.rank, bits)
            x = torch.tensor(held, dtype=dtype)
            signed = x.view(getattr(torch, f"int{bits}"))
            if name == "scatter" and group.rank != group.world - 1:
                x, signed = x[:0], signed[:0]
            params = params_of(name, group)
            got, want = run(CATALOG[name], x, group, **params), run(CATALOG[name], signed, group, **params)
            if got.dtype is not dtype or not torch.equal(got.view(want.dtype), want):
                found.append(f"{name} {dtype}: {got.tolist()}")
    return found


def reduced(group: Group | SimulatedGroup) -> list[str]:
    """Where ranks reduce themselves, against Python's integers."""
    found = []
    for label, params in OWN.items():
        name = label.split()[0]
        for op, combine in COMBINE.items():
            for dtype, bits in WIDTHS.items():
                held = [numbers(rank, bits) for rank in range(group.world)]
                x = torch.tensor(held[group.rank], dtype=dtype)
                x = x.unsqueeze(0) if params.get("dim") == 1 else x
                got = run(CATALOG[name], x, group, reduce_op=op, **params)
                want = expected(name, op, functools.partial(combined, combine, bits), held, group.rank, dtype)
                if got.dtype is not dtype or got.flatten().tolist() != want:
                    found.append(f"{label} {op} {dtype}: {got.tolist()} instead of {want}")
    return found


def combined(combine: Callable[[int, int], int], bits: int, parts: list[int]) -> int:
    return functools.reduce(combine, parts) % (1 << bits)


def expected(
    name: str, op: str, total: Callable[[list[int]], int], held: list[list[int]], rank: int, dtype: torch.dtype
) -> list[int]:
    if name == "reduce_scatter_v":
        start, end = (0, 2, 5, 6)[rank : rank + 2]
        return [total(list(parts)) for parts in zip(*held, strict=True)][start:end]
    before = held[: rank + (name == "scan")]
    if not before:
        return [int(neutral(op, dtype))] * len(held[0])
    return [total(list(parts)) for parts in zip(*before, strict=True)]


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 3])
def test_every_collective_that_moves_moves_them(world: int) -> None:
    assert run_ranks(moved, world=world) == [[]] * world
    assert World(world).run(moved) == [[]] * world


@pytest.mark.usefixtures("world_backend")
def test_where_ranks_reduce_themselves_they_are_reduced_everywhere() -> None:
    assert run_ranks(reduced, world=3) == [[]] * 3
    assert World(3).run(reduced) == [[]] * 3


def refused(group: Group) -> list[str]:
    """What a transport that reduces itself says of a dtype that it does not reduce, or "reduced"."""
    said = []
    for name, params in (("all_reduce", {}), ("reduce_scatter", {"dim": 0}), ("reduce", {"dst": 0})):
        for dtype in WIDTHS:
            x = torch.arange(group.world).to(dtype)
            try:
                run(CATALOG[name], x, group, reduce_op="max", **params)
                said.append("reduced")
            except ReduceOpError as error:
                said.append("refused" if f"{dtype}" in str(error) and "cast" in error.hint else str(error))
    after = run(CATALOG["all_reduce"], torch.ones(1), group, reduce_op="sum").item()
    return [*said, f"after that {after:g}"]


def test_a_transport_reduces_them_or_refuses_in_words_and_the_group_goes_on(world_backend: str) -> None:
    said = "reduced" if world_backend == "shm" else "refused"
    assert run_ranks(refused, 2, world_backend) == [[said] * 9 + ["after that 2"]] * 2
