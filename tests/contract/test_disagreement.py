"""When ranks do not call the same thing, every rank gets an error that names both calls."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch

from comm_core import SimulatedGroup, World, run
from comm_core.catalog import CATALOG
from comm_core.errors import DeadlockError, MismatchError

from .case import Side
from .cases import CASES, DISAGREEMENTS, exchange

MEETING = [name for name in CATALOG if DISAGREEMENTS[name](2)]
PLACES = [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]  # the group size, and the rank that differs


def differ(group: SimulatedGroup, name: str, odd: int, one: Side, other: Side) -> str:
    """Call with one rank's arguments differing, and return what this rank is told."""
    shape, dtype, device, params = other if group.rank == odd else one
    with pytest.raises(MismatchError) as caught:
        run(CATALOG[name], torch.zeros(shape(group.rank, params), dtype=dtype, device=device), group, **params)
    assert caught.value.where == name
    return str(caught.value)


def words(name: str, fact: str, side: Side) -> str:
    shape_of, dtype, device, params = side
    shape = shape_of(0, params)
    dim = params.get("dim", 0) % len(shape)
    said: dict[str, Any] = {
        "device": device,
        "dtype": dtype,
        "shape": shape,
        "shape behind dim 0": shape[1:],
        "shape beside dim": (*shape[:dim], *shape[dim + 1 :]),
        "dim": dim,
    }
    value = said.get(fact, params.get(fact.replace(" ", "_")))
    return f"{fact} {tuple(value) if isinstance(value, list) else value}"


@pytest.mark.parametrize(("world", "odd"), PLACES)
@pytest.mark.parametrize("name", MEETING)
def test_every_fact_that_differs_is_named_on_every_rank(name: str, world: int, odd: int) -> None:
    for fact, one, other in DISAGREEMENTS[name](world):
        told = World(world).run(differ, name, odd, one, other)
        for message in told:
            assert message.count(f"{name}(") == world, message
            assert words(name, fact, one) in message
            assert words(name, fact, other) in message
            assert all(f"rank {rank}" in message for rank in range(world))


def call(group: SimulatedGroup, names: tuple[str, str]) -> str:
    name = names[min(group.rank, 1)]
    case = CASES[name](group.world)[0]
    with pytest.raises(MismatchError) as caught:
        run(CATALOG[name], case.inputs()[group.rank], group, **case.params[group.rank])
    return str(caught.value)


@pytest.mark.parametrize("names", list(itertools.permutations(MEETING, 2)), ids="-".join)
def test_two_different_collectives_are_both_named(names: tuple[str, str]) -> None:
    for message in World(3).run(call, names):
        assert f"rank 0: {names[0]}(" in message
        assert f"rank 1: {names[1]}(" in message
        assert f"rank 2: {names[1]}(" in message


def mismatched_splits(group: SimulatedGroup) -> str:
    case = exchange("", [[1, 2, 0], [0, 1, 1], [2, 0, 1]], (2,))
    params = case.params[group.rank]
    if group.rank == 1:
        params = {**params, "output_splits": [3, 1, 0]}
    with pytest.raises(MismatchError) as caught:
        run(CATALOG["all_to_all"], case.inputs()[group.rank], group, **params)
    return str(caught.value)


def test_splits_that_do_not_match_name_sender_and_receiver() -> None:
    for message in World(3).run(mismatched_splits):
        assert "rank 0 sends 2 rows to rank 1, which expects 3" in message


def one_without_gradient(group: SimulatedGroup, name: str) -> str:
    case = CASES[name](group.world)[0]
    x = case.inputs()[group.rank].requires_grad_()
    got = run(CATALOG[name], x, group, **case.params[group.rank])
    if group.rank == 0:
        return "left"
    with pytest.raises(DeadlockError) as caught:
        got.sum().backward()
    return str(caught.value)


@pytest.mark.parametrize("name", MEETING)
def test_a_backward_pass_without_one_rank_is_a_deadlock_found_at_once(name: str) -> None:
    left, *told = World(3).run(one_without_gradient, name)
    assert left == "left"
    for message in told:
        assert "rank 0 has returned" in message
        assert re.search(r"rank [12] waits in \w+\(", message)


def test_no_message_prints_a_tensor() -> None:
    for name in MEETING:
        for _, one, other in DISAGREEMENTS[name](2):
            for message in World(2).run(differ, name, 0, one, other):
                assert "tensor(" not in message
                assert "[0." not in message
