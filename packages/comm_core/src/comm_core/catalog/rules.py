"""Rules that several collectives share, and the type of what gradient rules are handed."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from comm_core.collective import Batched


class Emit(Protocol):
    """Runs another entry of the catalogue, by name, on the group that the forward collective ran on."""

    rank: int
    world: int

    def __call__(self, name: str, x: torch.Tensor, **params: Any) -> torch.Tensor:
        """Return the finished result; differentiable again."""
        ...


def batch_first(ndim: int, **params: Any) -> Batched:
    """Put the batch in front: the collective treats all elements alike, so one call serves the batch."""
    return Batched(0, params)


def batch_last(ndim: int, **params: Any) -> Batched:
    """Put the batch behind the tensor's own dims, whose numbers then still hold."""
    return Batched(ndim, params)


def is_rank(value: object, world: int) -> bool:
    """Tell whether a value is the position of a rank in a group of `world`."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < world
