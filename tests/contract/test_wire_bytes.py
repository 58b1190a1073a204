"""The bytes on the wire are those of an independent count, element by element, in `reference.crossings`."""

from __future__ import annotations

import math

import pytest
import torch

from comm_core.catalog import CATALOG

from .case import WORLDS, Case
from .cases import CASES
from .reference import crossings

ITEM = 4


def said(name: str, case: Case) -> list[int]:
    entry = CATALOG[name]
    answers = []
    for rank, x in enumerate(case.inputs()):
        parsed = entry.check(x, case.world, rank, **case.params[rank])
        answers.append(entry.wire_bytes(x.numel() * ITEM, case.world, rank, **parsed))
    return answers


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", CATALOG)
def test_bytes_are_the_counted_ones(name: str, world: int) -> None:
    for case in CASES[name](world):
        if case.layout == "contiguous":
            counted = [math.floor(elements * ITEM) for elements in crossings(name, case.shapes, case.params)]
            assert said(name, case) == counted, case.label


@pytest.mark.parametrize("name", CATALOG)
def test_one_rank_alone_sends_nothing(name: str) -> None:
    assert {bytes for case in CASES[name](1) for bytes in said(name, case)} <= {0}


CHANGING = ("output_splits", "destinations", "sizes", "sends")  # parameters that change with the group


@pytest.mark.parametrize("name", [name for name in CATALOG if not CATALOG[name].parameters & set(CHANGING)])
def test_bytes_never_fall_when_the_group_or_the_tensor_grows(name: str) -> None:
    entry = CATALOG[name]
    x = torch.zeros(12, 12)

    def total(size: int, world: int) -> int:
        params = entry.check(x, 1, 0, **CASES[name](1)[0].params[0])
        return sum(entry.wire_bytes(size, world, rank, **params) for rank in range(world))

    for world in (1, 2, 3, 4, 8):
        assert total(96, world) <= total(96, world + 1)
        assert total(96, world) <= total(192, world)
        assert isinstance(total(96, world), int)
