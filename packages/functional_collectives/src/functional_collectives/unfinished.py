"""What a result in flight holds until it is used: a collective's `Pending`, or a view of something in flight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch

from functional_collectives import torch_compat


class Unfinished(Protocol):
    """What an `AsyncCollectiveTensor` holds until it is used."""

    @property
    def done(self) -> bool:
        """Whether `wait` has been called, or has nothing to wait for."""
        ...

    def wait(self) -> torch.Tensor:
        """Give the finished tensor; the same one each time."""
        ...


class View:
    """A view of something in flight: taken when that is there, once.

    Args:
        base: what it is a view of.
        take: gives the view of the finished base.

    Example:
        >>> from comm_core import Pending
        >>> View(Pending(torch.ones(2, 3)), torch.t).wait().shape
        torch.Size([3, 2])
    """

    __slots__ = ("_base", "_take", "_taken")

    def __init__(self, base: Unfinished, take: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._base = base
        self._take = take
        self._taken: torch.Tensor | None = None

    @property
    def done(self) -> bool:
        """Whether the view was taken."""
        return self._taken is not None

    def wait(self) -> torch.Tensor:
        """Wait for the base and give the view of it."""
        if self._taken is None:
            base = self._base.wait()
            with torch_compat.as_made(base):
                self._taken = self._take(base)
        return self._taken


class ViewOp:
    """A view op to be run on the finished tensor: once, for all the views that it gives.

    Args:
        func: the op.
        args: what it is given after the tensor.
        kwargs: what it is given by name.

    Example:
        >>> halves = ViewOp(torch.unbind, (), {})
        >>> halves.take(1, torch.tensor([[1.0], [2.0]]))
        tensor([2.])
    """

    __slots__ = ("_args", "_func", "_kwargs", "_views")

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._func, self._args, self._kwargs = func, args, kwargs
        self._views: Any = None

    def take(self, index: int | None, x: torch.Tensor) -> torch.Tensor:
        """Give the view of that place, or the only one, of a finished tensor."""
        if self._views is None:
            self._views = self._func(x, *self._args, **self._kwargs)
        return cast(torch.Tensor, self._views if index is None else self._views[index])
