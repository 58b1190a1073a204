"""Eager, traceable, differentiable collectives for PyTorch.

import functional_collectives as fc

y = fc.all_reduce(x, "sum", group)  # returns at once
z = y + 1                           # waits here
"""

from functional_collectives.async_tensor import AsyncCollectiveTensor
from functional_collectives.collectives import (
    all_gather_tensor,
    all_reduce,
    all_to_all_single,
    broadcast,
    permute_tensor,
    reduce_scatter_tensor,
    wait_tensor,
)
from functional_collectives.flight import InFlight, inflight

__version__ = "0.1.0"

__all__ = [
    "AsyncCollectiveTensor",
    "InFlight",
    "all_gather_tensor",
    "all_reduce",
    "all_to_all_single",
    "broadcast",
    "inflight",
    "permute_tensor",
    "reduce_scatter_tensor",
    "wait_tensor",
]
