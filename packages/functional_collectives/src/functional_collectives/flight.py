"""What is in flight: every result not yet waited for, with the line that started it."""

from __future__ import annotations

import sys
import weakref
from dataclasses import dataclass

import torch

from comm_core import Pending
from functional_collectives.async_tensor import AsyncCollectiveTensor

_OURS = ("functional_collectives", "comm_core", "torch")
_flying: weakref.WeakKeyDictionary[Pending, InFlight] = weakref.WeakKeyDictionary()


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

    Example:
        >>> inflight()
        []
    """
    alive = [pending for reference in _flying.keyrefs() if (pending := reference()) is not None]
    return [_flying[pending] for pending in alive if not pending.done]


def in_flight(pending: Pending) -> torch.Tensor:
    """Make the tensor that a caller gets for a collective that was just started.

    Example:
        >>> in_flight(Pending(torch.ones(2)))
        tensor([1., 1.])
    """
    if pending.done:
        return pending.tensor
    _flying[pending] = InFlight(pending.what, pending.shape, _caller())
    buffer = pending.tensor
    same = tuple(buffer.shape) == pending.shape
    like = buffer if same else torch.empty(pending.shape, dtype=buffer.dtype, device="meta")
    return AsyncCollectiveTensor(pending, like, buffer.device)


def _caller() -> str:
    """Return the nearest line outside of commbook and torch, as `file:line`."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
