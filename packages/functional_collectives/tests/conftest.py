"""What several tests of this package need."""

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore


@pytest.fixture
def fake_world():
    """Return a function that makes this process rank 0 of a world that computes nothing, and gives its group."""
    torch._dynamo.reset()

    def start(size):
        if dist.is_initialized():
            dist.destroy_process_group()
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
        return dist.group.WORLD

    yield start
    if dist.is_initialized():
        dist.destroy_process_group()
    torch._dynamo.reset()
