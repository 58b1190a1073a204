"""CUDA's symmetric memory as `comm_core.symmetric` describes it: an adapter of `torch.distributed._symmetric_memory`.

Written against the interface of torch 2.11 to 2.14. It has not been run: it needs two CUDA devices that reach each
other's memory. The tests marked `gpu` run it where there are some.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from comm_core.errors import TransportError, first_line
from comm_core.groups import AnyGroup
from comm_core.peer_buffer import PeerBuffer, check_peer


class CudaMemory:
    """The symmetric memory of a group's CUDA devices.

    Args:
        group: the group.
        device: the device of this rank.
    """

    def __init__(self, group: AnyGroup, device: torch.device) -> None:
        import torch.distributed._symmetric_memory as symmetric  # private, and the only way (2.11 to 2.14)

        self.rank = group.rank
        self.world = group.world
        self._group = group
        self._device = device
        self._torch: Any = symmetric

    def empty(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return a tensor of this rank's device that `rendezvous` can show to the others."""
        made: torch.Tensor = self._torch.empty(tuple(shape), dtype=dtype, device=self._device)
        return made

    def rendezvous(self, x: torch.Tensor) -> CudaBuffer:
        """Return the handle; a collective, since the ranks exchange their addresses here.

        Raises:
            TransportError: torch refuses, for example because the devices cannot reach each other.
        """
        try:
            handle = self._torch.rendezvous(x, self._group.name)
        except RuntimeError as error:
            raise TransportError("symmetric_memory", got=f"no rendezvous: {first_line(error)}") from error
        return CudaBuffer(x, handle)


class CudaBuffer(PeerBuffer):
    """A CUDA buffer: `barrier`, `signal` and `wait` are queued on the current stream, as the copies are.

    Args:
        x: this rank's tensor.
        handle: torch's handle.
    """

    def __init__(self, x: torch.Tensor, handle: Any) -> None:
        super().__init__(handle.rank, handle.world_size, x)
        self._handle = handle

    def peer(self, rank: int) -> torch.Tensor:
        """Return a rank's buffer, mapped on this device."""
        x = self.tensor
        view: torch.Tensor = self._handle.get_buffer(
            check_peer("peer", rank, self.world), x.shape, x.dtype, x.storage_offset()
        )
        return view

    def barrier(self, timeout_s: float | None = None) -> None:
        """Have the stream wait for the other ranks' streams."""
        self._handle.barrier(0, _milliseconds(timeout_s))

    def signal(self, rank: int, channel: int = 0, timeout_s: float | None = None) -> None:
        """Have the stream signal a rank; it waits while the last signal on the channel was not taken."""
        self._handle.put_signal(check_peer("signal", rank, self.world), channel, _milliseconds(timeout_s))

    def wait(self, rank: int, channel: int = 0, timeout_s: float | None = None) -> None:
        """Have the stream wait for a rank's signal."""
        self._handle.wait_signal(check_peer("wait", rank, self.world), channel, _milliseconds(timeout_s))


def _milliseconds(timeout_s: float | None) -> int:
    """Return a limit as torch takes it, where 0 is none."""
    return 0 if timeout_s is None else max(1, round(timeout_s * 1000))
