"""What a result in flight holds until it is used, and its views, which are taken when it is there."""

from __future__ import annotations

import functools
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
    """A view of something in flight: taken when that is there, once."""

    __slots__ = ("_base", "_take", "_taken")

    def __init__(self, base: Unfinished, take: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._base = base
        self._take = take
        self._taken: torch.Tensor | None = None

    @property
    def done(self) -> bool:
        """Whether it has been taken."""
        return self._taken is not None

    def wait(self) -> torch.Tensor:
        """Take it of the finished base, the first time."""
        if self._taken is None:
            base = self._base.wait()
            with torch_compat.as_made(base):
                self._taken = self._take(base)
        return self._taken


class ViewOp:
    """A view op to be run on the finished tensor: once, for all the views that it gives."""

    __slots__ = ("_args", "_func", "_kwargs", "_views")

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._func, self._args, self._kwargs = func, args, kwargs
        self._views: Any = None

    def take(self, index: int | None, x: torch.Tensor) -> torch.Tensor:
        """Return the view, or the one of that index where the op gives several."""
        if self._views is None:
            self._views = self._func(x, *self._args, **self._kwargs)
        return cast(torch.Tensor, self._views if index is None else self._views[index])


@functools.cache
def asked_of(func: Any) -> str:
    """Say what an op asks of a result in flight other than its values; empty where it is those."""
    if func is torch.ops.aten.alias.default:
        return "wait"
    if func is torch.ops.aten.detach.default:
        return "keeps"  # the class: `torch.nn.Parameter` asks for that
    if torch.Tag.inplace_view in func.tags:
        return "reshapes"
    # views, but each to autograd a tensor of its own
    apart = torch.ops.aten.unsafe_split_with_sizes.default, torch.ops.aten._unsafe_view.default
    return "view" if func.is_view or func in apart else ""
