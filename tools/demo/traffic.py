"""Counts the collectives of one step, whoever started them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch_compat import TorchDispatchMode

BY_GROUP = {
    "allreduce",
    "allgather",
    "broadcast",
    "reduce_scatter",
    "alltoall",
    "_allgather_base",
    "_reduce_scatter_base",
    "alltoall_base",
    "all_gather_single",
    "reduce_scatter_single",
    "all_to_all_single",
}


class Traffic(TorchDispatchMode):
    """While active, counts c10d's collectives and the bytes that this rank hands to them.

    Groups in C++ call ops, which a dispatch mode sees; a group in Python, such as that of shm, is called itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.collectives = 0
        self.bytes = 0
        self._inside = False  # an op that has been counted
        self._patches: list[Any] = []

    def __enter__(self) -> Traffic:
        """Start to count."""
        kind = type(dist.group.WORLD)
        if dist.is_initialized() and kind.__module__ != dist.ProcessGroup.__module__:
            self._patches = [patch.object(kind, name, self._counted(getattr(kind, name))) for name in BY_GROUP]
        for one in self._patches:
            one.start()
        super().__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        """Stop counting."""
        super().__exit__(*exc_info)
        while self._patches:
            self._patches.pop().stop()

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def count(group: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._inside:
                self._count(args)
            return method(group, *args, **kwargs)

        return count

    def _count(self, args: Any) -> None:
        self.collectives += 1
        self.bytes += _bytes(args)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count the op if it is a collective, then run it; a DTensor first becomes the ops on its shards."""
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        namespace, _, name = func.name().partition("::")
        if namespace in ("c10d", "_c10d_functional") and "wait" not in name:
            self._count(args)
            self._inside = True
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self._inside = False


def _bytes(value: Any) -> int:
    """Return the size of the largest tensor or list of tensors among the arguments: what travels."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, (list, tuple)):
        sizes = [_bytes(item) for item in value]
        several = isinstance(value, list)
        return sum(sizes) if several else max(sizes, default=0)
    return 0
