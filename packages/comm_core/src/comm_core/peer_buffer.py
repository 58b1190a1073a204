"""The collectives of symmetric memory in terms of `peer` and `barrier`: what each of them does, on any device.

Memory that has faster ways has its own; these are what those are held against.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from comm_core.errors import ArgumentError, DtypeError, RankError, ShapeError
from comm_core.reduce_ops import defined_word, reduce_in_rank_order

_WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


def reduced(word: str, parts: list[torch.Tensor]) -> torch.Tensor:
    """Reduce in rank order; 16-bit floats in float32, rounded once.

    Example:
        >>> reduced("sum", [torch.tensor([1.0]), torch.tensor([2.0])])
        tensor([3.])
    """
    wider = _WIDER.get(parts[0].dtype)
    if wider is None:
        return reduce_in_rank_order(word, parts)
    return reduce_in_rank_order(word, [part.to(wider) for part in parts]).to(parts[0].dtype)


class PeerBuffer(ABC):
    """A symmetric buffer whose collectives read and write the peers' tensors with ordinary ops.

    Args:
        rank: this rank.
        tensor: its own buffer.
        world: how many ranks there are.
    """

    def __init__(self, rank: int, world: int, tensor: torch.Tensor) -> None:
        self.rank = rank
        self.world = world
        self.tensor = tensor

    @abstractmethod
    def peer(self, rank: int) -> torch.Tensor:
        """Return a view of a rank's buffer."""

    @abstractmethod
    def barrier(self, timeout_s: float | None = None) -> None:
        """Wait until every rank has come here."""

    def one_shot_all_reduce(self, reduce_op: str = "sum", out: torch.Tensor | None = None) -> torch.Tensor:
        """Read all buffers, write the reduction to a tensor of this rank's own."""
        word = self._word("one_shot_all_reduce", reduce_op)
        out = check_out("one_shot_all_reduce", self.tensor, tuple(self.tensor.shape), out)
        self.barrier()
        out.copy_(reduced(word, self._all()))
        self.barrier()
        return out

    def two_shot_all_reduce(self, reduce_op: str = "sum") -> torch.Tensor:
        """Reduce this rank's range of all buffers, and write it to all of them."""
        word = self._word("two_shot_all_reduce", reduce_op)
        ranges = [x.view(-1).tensor_split(self.world)[self.rank] for x in self._all()]
        self.barrier()
        total = reduced(word, ranges)
        for part in ranges:
            part.copy_(total)
        self.barrier()
        return self.tensor

    def all_gather(self, out: torch.Tensor | None = None) -> torch.Tensor:
        """Copy all buffers into one tensor."""
        out = check_out("all_gather", self.tensor, (self.world, *self.tensor.shape), out)
        self.barrier()
        for rank, x in enumerate(self._all()):
            out[rank].copy_(x)
        self.barrier()
        return out

    def reduce_scatter(self, reduce_op: str = "sum", out: torch.Tensor | None = None) -> torch.Tensor:
        """Read this rank's block of all buffers, write its reduction to a tensor of its own."""
        word = self._word("reduce_scatter", reduce_op)
        out = check_out("reduce_scatter", self.tensor, block_shape(self.tensor, self.world), out)
        self.barrier()
        out.copy_(reduced(word, [x.chunk(self.world)[self.rank] for x in self._all()] if out.numel() else [out]))
        self.barrier()
        return out

    def _all(self) -> list[torch.Tensor]:
        return [self.peer(rank) for rank in range(self.world)]

    def _word(self, where: str, reduce_op: str) -> str:
        return defined_word(reduce_op, self.tensor.dtype, where)


def block_shape(x: torch.Tensor, world: int) -> tuple[int, ...]:
    """Return the shape of one of `world` blocks along dim 0.

    Raises:
        ShapeError: dim 0 does not divide.

    Example:
        >>> block_shape(torch.empty(6, 2), 3)
        (2, 2)
    """
    if x.dim() == 0 or x.shape[0] % world:
        got = f"a buffer of shape {tuple(x.shape)}"
        raise ShapeError("reduce_scatter", got=got, need=f"a dim 0 that {world} ranks divide")
    return (x.shape[0] // world, *x.shape[1:])


def check_out(where: str, like: torch.Tensor, shape: tuple[int, ...], out: torch.Tensor | None) -> torch.Tensor:
    """Return `out` if a result of that shape can be written to it, a new tensor if there is none.

    Raises:
        ShapeError: it has another shape, or is not contiguous.
        DtypeError: it has another dtype.
        ArgumentError: it is on another device.

    Example:
        >>> check_out("all_gather", torch.empty(2), (3, 2), None).shape
        torch.Size([3, 2])
    """
    if out is None:
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    if tuple(out.shape) != shape or not out.is_contiguous():
        layout = "contiguous" if out.is_contiguous() else "strided"
        got = f"an output of shape {tuple(out.shape)}, {layout}"
        raise ShapeError(where, got=got, need=f"a contiguous one of shape {shape}")
    if out.dtype is not like.dtype:
        raise DtypeError(where, got=f"an output of {out.dtype} for buffers of {like.dtype}", need="one dtype")
    if out.device != like.device:
        raise ArgumentError(where, got=f"an output on {out.device} for buffers on {like.device}", need="one device")
    return out


def check_peer(where: str, rank: int, world: int) -> int:
    """Return a rank of the group.

    Raises:
        RankError: it is none.

    Example:
        >>> check_peer("peer", 1, 2)
        1
    """
    if not isinstance(rank, int) or isinstance(rank, bool) or not 0 <= rank < world:
        raise RankError(where, got=f"rank {rank!r}", need=f"a rank from 0 to {world - 1}")
    return rank


def check_channel(where: str, channel: int, channels: int) -> int:
    """Return a channel that the buffer has.

    Raises:
        ArgumentError: it is none.

    Example:
        >>> check_channel("signal", 0, 16)
        0
    """
    if not isinstance(channel, int) or isinstance(channel, bool) or not 0 <= channel < channels:
        raise ArgumentError(where, got=f"channel {channel!r}", need=f"a channel from 0 to {channels - 1}")
    return channel
