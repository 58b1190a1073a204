"""What the generator needs of torch's private modules (2.11 to 2.14): a group without other processes, and tracing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.distributed.fake_pg import FakeStore


@contextmanager
def lone_rank(world: int) -> Iterator[None]:
    """Be rank 0 of a default group whose other ranks do not exist: enough to trace in."""
    dist.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def traced_code(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> str:
    """The graph that make_fx traces, as Python code."""
    return str(make_fx(function, tracing_mode="fake")(x).code)
