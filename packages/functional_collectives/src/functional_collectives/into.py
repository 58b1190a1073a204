"""A transport that writes where it is told."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import comm_core
from comm_core import Pending


class Into:
    """A transport whose collectives write into one given tensor, where the shape is right.

    Args:
        wire: what moves the data.
        out: where the result goes.
    """

    def __init__(self, wire: comm_core.Transport, out: torch.Tensor) -> None:
        self.rank = wire.rank
        self.world = wire.world
        self._wire = wire
        self._out = out

    def all_reduce(self, x: torch.Tensor, reduce_op: str, out: torch.Tensor | None = None) -> Pending:
        """Reduce into the output."""
        return self._wire.all_reduce(x, reduce_op, self._out)

    def all_gather(self, x: torch.Tensor, out: torch.Tensor | None = None) -> Pending:
        """Gather into the output; blocks along another dim than 0 need a buffer first."""
        stacked = (x.shape[0] * self.world, *x.shape[1:])
        return self._wire.all_gather(x, self._out if tuple(self._out.shape) == stacked else out)

    def reduce_scatter(self, x: torch.Tensor, reduce_op: str, out: torch.Tensor | None = None) -> Pending:
        """Reduce and scatter into the output."""
        return self._wire.reduce_scatter(x, reduce_op, self._out)

    def all_to_all(
        self,
        x: torch.Tensor,
        output_splits: Sequence[int],
        input_splits: Sequence[int],
        out: torch.Tensor | None = None,
    ) -> Pending:
        """Exchange into the output."""
        return self._wire.all_to_all(x, output_splits, input_splits, self._out)

    def broadcast(self, x: torch.Tensor, src: int, out: torch.Tensor | None = None) -> Pending:
        """Broadcast into the output."""
        return self._wire.broadcast(x, src, self._out)

    def wait(self, x: torch.Tensor) -> Pending:
        """Wait as the wire does."""
        return self._wire.wait(x)
