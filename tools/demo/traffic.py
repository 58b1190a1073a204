"""Counts the collectives of one step, whoever started them."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch_compat import TorchDispatchMode


class Traffic(TorchDispatchMode):
    """While active, counts c10d's collectives and the bytes that this rank hands to them."""

    def __init__(self) -> None:
        super().__init__()
        self.collectives = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count the op if it is a collective, then run it; a DTensor first becomes the ops on its shards."""
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        namespace, _, name = func.name().partition("::")
        if namespace in ("c10d", "_c10d_functional") and "wait" not in name:
            self.collectives += 1
            self.bytes += _bytes(args)
        return func(*args, **(kwargs or {}))


def _bytes(value: Any) -> int:
    """Return the size of the largest tensor or list of tensors among the arguments: what travels."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, (list, tuple)):
        sizes = [_bytes(item) for item in value]
        several = isinstance(value, list)
        return sum(sizes) if several else max(sizes, default=0)
    return 0
