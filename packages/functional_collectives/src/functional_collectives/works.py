"""What calls of torch.distributed give back in compiled code, in place of c10d's works.

Dynamo walks this file, so it stays plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import comm_core
from comm_core import Collective, GroupLike, Pending
from comm_core.premul import premultiplied
from comm_core.started import Arriving, begun


class Work:
    """A call whose ops stand where it was made, and whose outputs are written where `wait` stands.

    Args:
        arriving: what to wait for.
        outs: the tensors that the result fills, in their order; none where there is nothing to write.
        first: where in the result, taken as a row, the first of them begins.
    """

    def __init__(self, arriving: Arriving, outs: Sequence[torch.Tensor], first: int = 0) -> None:
        self.arriving, self.outs, self.first = arriving, outs, first
        self.finished = False

    def wait(self, timeout: object = None) -> bool:
        """Finish the call and write its outputs, the first time; True, as c10d says."""
        if not self.finished:
            self.finished = True
            self.write(self.arriving.wait())
        return True

    def write(self, result: torch.Tensor) -> None:
        """Write the outputs."""
        if len(self.outs) == 1 and self.outs[0].ndim == result.ndim:  # of any size, even one that only the data tells
            self.outs[0].copy_(result)
            return
        row, first = result.reshape(-1), self.first
        for out in self.outs:
            out.copy_(row[first : first + out.numel()].view(out.shape))
            first += out.numel()


class Piece(Work):
    """A call whose output is a part of what arrives, which other calls wait for too."""

    def write(self, result: torch.Tensor) -> None:
        """Write the output."""
        for out in self.outs:
            out.copy_(result[self.first : self.first + out.numel()].view(out.shape))


class Contribution(Work):
    """A call that changes nothing on this rank: zeros arrive, with a history that leads to another one."""

    def write(self, result: torch.Tensor) -> None:
        """Give the outputs that history, so that their backward meets the other ranks'."""
        if torch.is_grad_enabled() and result.requires_grad:
            for out in self.outs:
                out.add_(result)


def called(
    entry: Collective,
    outs: Sequence[torch.Tensor],
    x: torch.Tensor,
    group: GroupLike,
    async_op: bool,
    kind: type[Work] = Work,
    **params: Any,
) -> Work | None:
    """Run a collective whose result fills `outs`; with `async_op` start it, and return what ends it."""
    x, params = premultiplied(x, params, entry.name)
    arriving = begun(entry, x, group, params) if async_op else Pending(comm_core.run(entry, x, group, **params))
    work = kind(arriving, outs)
    if async_op:
        return work
    work.wait()
    return None
