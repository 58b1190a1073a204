from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

import comm_lowering

StartGroup = Callable[[int], str]


@pytest.fixture(autouse=True)
def _lowering_off() -> Iterator[None]:
    """Leave nothing enabled and nothing compiled behind."""
    yield
    comm_lowering.disable()


@pytest.fixture
def fake_group() -> Iterator[StartGroup]:
    """Return a function that makes this process rank 0 of a group that computes nothing, and gives its name."""
    torch._dynamo.reset()

    def start(world: int) -> str:
        if dist.is_initialized():
            dist.destroy_process_group()
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world)
        return str(dist.group.WORLD.group_name)

    yield start
    if dist.is_initialized():
        dist.destroy_process_group()
    torch._dynamo.reset()
