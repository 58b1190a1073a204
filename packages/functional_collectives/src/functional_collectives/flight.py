"""What is in flight: every result not yet waited for, with the line that started it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from comm_core import Pending
from comm_core.callsite import caller, place
from comm_core.compat import current_backward
from comm_core.pending import note, noted
from comm_core.recomputed import hold
from functional_collectives.async_tensor import AsyncCollectiveTensor


@dataclass(frozen=True, slots=True)
class InFlight:
    """One collective that was started and not waited for.

    Args:
        name: the collective.
        shape: its result's shape.
        where: the file and line that started it.
    """

    name: str
    shape: tuple[int, ...]
    where: str


def inflight() -> list[InFlight]:
    """Return the collectives of this process whose results nobody has waited for, oldest first.

    Starting a collective only notes a weak reference, which goes when its result does, or is waited for.

    Example:
        >>> inflight()
        []
    """
    known = [(one.started, one) for one in noted()]
    flying = [(by, one) for by, one in known if by is not None and not one.done]
    return [InFlight(one.what, one.shape, place(by)) for by, one in sorted(flying, key=lambda each: each[0][0])]


def in_flight(pending: Pending) -> torch.Tensor:
    """Make the tensor that a caller gets for a collective that was just started.

    Example:
        >>> in_flight(Pending(torch.ones(2)))
        tensor([1., 1.])
    """
    if pending.work is None and pending.finish is None:
        return pending.tensor
    note(pending, caller(2))
    if current_backward() >= 0:
        hold(pending)
    if pending.finish is None and pending.tensor.dtype is not torch.uint8:  # of which generators read states unasked
        return AsyncCollectiveTensor.over_buffer(pending)
    buffer = pending.tensor
    like = torch.empty(pending.shape, dtype=buffer.dtype, device="meta")
    return AsyncCollectiveTensor(pending, like, buffer.device)
