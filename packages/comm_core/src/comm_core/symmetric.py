"""Symmetric memory: buffers that every rank of a group can reach, one interface for CPU, CUDA and simulated ranks.

`symmetric_memory(group)` gives the memory of a group; its `empty` a tensor, its `rendezvous` a handle with which the
ranks read and write each other's. Programs written against the two protocols here run on shared memory between
processes (`comm_shm`), on CUDA's symmetric memory (`torch.distributed._symmetric_memory`) and in a `World`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch

from comm_core.errors import TransportError
from comm_core.groups import GroupLike, as_group


class SymmetricBuffer(Protocol):
    """A buffer of one size on every rank of a group, as one of the ranks sees it.

    The collectives are called by every rank, in one order, and take the reduction in rank order. They begin by meeting,
    so that what the ranks wrote before is there, and end when no rank needs the buffers any more; only the view that
    `all_gather` gives without `out` is of the buffers themselves.
    """

    rank: int
    world: int
    tensor: torch.Tensor

    def peer(self, rank: int) -> torch.Tensor:
        """Return a view of a rank's buffer; reading and writing it moves bytes, and nobody waits."""
        ...

    def barrier(self, timeout_s: float | None = None) -> None:
        """Wait until every rank has come here; what they wrote before is there."""
        ...

    def signal(self, rank: int, channel: int = 0, timeout_s: float | None = None) -> None:
        """Let one `wait` of a rank pass; it may block while an earlier signal on the channel was not waited for."""
        ...

    def wait(self, rank: int, channel: int = 0, timeout_s: float | None = None) -> None:
        """Wait for one signal of a rank; what it wrote before it is there."""
        ...

    def one_shot_all_reduce(self, reduce_op: str = "sum", out: torch.Tensor | None = None) -> torch.Tensor:
        """Reduce all ranks' buffers into a tensor of this rank's own; for small buffers."""
        ...

    def two_shot_all_reduce(self, reduce_op: str = "sum") -> torch.Tensor:
        """Reduce all ranks' buffers in place, each rank a part of them; for large buffers."""
        ...

    def all_gather(self, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return all ranks' buffers under a new first dim: copied to `out`, else as a view where there can be one."""
        ...

    def reduce_scatter(self, reduce_op: str = "sum", out: torch.Tensor | None = None) -> torch.Tensor:
        """Reduce this rank's of `world` blocks along dim 0 of all ranks' buffers into a tensor of its own."""
        ...


class SymmetricMemory(Protocol):
    """What makes buffers that every rank of a group can reach."""

    rank: int
    world: int

    def empty(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return an uninitialised tensor; every rank of the group asks for the same shape and dtype."""
        ...

    def rendezvous(self, x: torch.Tensor) -> SymmetricBuffer:
        """Return the handle of a tensor made by `empty`, or of a part of it; every rank asks for the same part."""
        ...


def symmetric_memory(group: GroupLike = None, device: str | torch.device = "cpu") -> SymmetricMemory:
    """Return the symmetric memory of a group; every rank of it asks.

    Args:
        group: the group, in any spelling.
        device: `"cpu"`, or a CUDA device, whose memory is then shared; the simulator takes any name of a CPU.

    Raises:
        TransportError: the group's ranks cannot reach each other's memory on that device.

    Example:
        >>> from comm_core import World
        >>> def body(group):
        ...     memory = symmetric_memory(group)
        ...     x = memory.empty((2,), torch.float32).fill_(group.rank + 1)
        ...     buffer = memory.rendezvous(x)
        ...     buffer.barrier()
        ...     neighbour = buffer.peer((group.rank + 1) % group.world).tolist()
        ...     return neighbour, buffer.two_shot_all_reduce("sum").tolist()
        >>> World(2).run(body)
        [([2.0, 2.0], [3.0, 3.0]), ([1.0, 1.0], [3.0, 3.0])]

    Source: `torch.distributed._symmetric_memory`, whose handles have the same parts.
    """
    found = as_group(group)
    kind = torch.device(device)
    if found.is_simulated:
        from comm_core.simulated_symmetric import memory_of

        return memory_of(found)
    if kind.type == "cuda":
        from comm_core.symmetric_compat import CudaMemory

        return CudaMemory(found, kind)
    make = getattr(found.process_group, "symmetric_memory", None)
    if kind.type != "cpu" or make is None:
        raise TransportError(
            "symmetric_memory",
            got=f"{kind.type} tensors of a group on backend {found.backend!r}",
            need='backend "shm" for CPU tensors, or a CUDA device',
            hint='make the group with new_group(backend="shm"), from the package comm-shm',
        )
    return cast(SymmetricMemory, make())
