"""Backward of a backward: which collectives a rank runs there may not depend on what its own loss is.

Where backward builds a graph, its collective is recorded on a rank whose cotangent requires grad. That of a sum is a
constant, and that of a sum of squares is not: the ranks would record different collectives, and in the second backward
some would wait for others that never come. So each recorded call gives back a tie beside its result, an empty tensor,
and its backward ties the cotangent to it: then every rank runs backward of what backward has run, and of the call. What
comes back for a tie is empty too and depends on what came back, so that this holds again in the third, and for a batch.
A tangent is tied in the same way, for the gradient of a derivative that was taken forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from comm_core.compat import forward_ad_active


def tie(x: torch.Tensor) -> torch.Tensor:
    """Return what a recorded call of a tensor gives back beside its result."""
    return x.new_empty(0)


def _pack(tie: torch.Tensor) -> None:
    """Keep nothing of a tie: autograd knows which call it is of, and it has no elements."""


def _unpack(kept: None) -> torch.Tensor:
    return torch.empty(0)


_ALONE = torch.autograd.graph.saved_tensors_hooks(_pack, _unpack)


def applied_unseen(function: Any, *inputs: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply an `autograd.Function` that saves its tie alone, where something `sees_saved_tensors`: this it does not.

    A checkpoint would run the call again for its sake, and a hook that keeps what it sees would keep the call for ever.
    """
    with _ALONE:
        return cast(tuple[torch.Tensor, torch.Tensor], function.apply(*inputs))


def tied(
    ctx: Any,
    cotangent: torch.Tensor | None,
    of_tie: torch.Tensor | None = None,
    saved: Sequence[torch.Tensor] = (),
) -> torch.Tensor:
    """Return a call's cotangent, zeros for None; where backward is recorded, as what depends on the tie too.

    Args:
        ctx: of a call that `execution.keep` has kept.
        cotangent: what came back for the result.
        of_tie: what came back for the tie: something only where a derivative of a backward is taken.
        saved: what the call has saved, of who has asked for it: a checkpoint gives it once in a backward.
    """
    if cotangent is None:
        like = (saved or ctx.saved_tensors)[-1] if of_tie is None else of_tie
        cotangent = cast(torch.Tensor, like.new_zeros(ctx.tied_shape))
    if ctx.tied_shape is None or not torch.is_grad_enabled():
        return cotangent
    cotangent = tied_to(cotangent, (saved or ctx.saved_tensors)[-1])
    return cotangent if of_tie is None else tied_to(cotangent, of_tie)


def tied_to(x: torch.Tensor, tie: torch.Tensor) -> torch.Tensor:
    """Return a tensor as what depends on a tie too.

    Example:
        >>> call = torch.ones(0, requires_grad=True)
        >>> tied_to(torch.ones(2), call).requires_grad
        True
    """
    return cast(torch.Tensor, Tied.apply(x, tie))  # type: ignore[no-untyped-call]


def anew(x: torch.Tensor) -> torch.Tensor:
    """Return what the forward of an identity may return: a view; in forward mode a copy.

    There torch asks that the tangent of a view be a view of the tangent, which no batch of tangents can be, nor what is
    tied to a tie's tangent (2.11 to 2.14).

    Example:
        >>> x = torch.ones(2)
        >>> anew(x).data_ptr() == x.data_ptr()
        True
    """
    return x.clone() if forward_ad_active() else x.view_as(x)


class Tied(torch.autograd.Function):
    """The identity of its first argument, which autograd believes to depend on the second, a tie."""

    @staticmethod
    def forward(x: torch.Tensor, tie: torch.Tensor) -> torch.Tensor:
        """Return the tensor; a view of an expanded one would take no tangent."""
        return anew(x) if x.is_contiguous() else x.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the tie what has no elements and depends on the cotangent."""
        return cotangent, cotangent.reshape(-1)[:0]

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, of_tie: torch.Tensor | None) -> torch.Tensor:
        """Return the tangent, batched where the tie's is."""
        return tangent.view_as(tangent) if of_tie is None else tangent + of_tie.new_zeros(tangent.shape)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: torch.Tensor, tie: torch.Tensor
    ) -> tuple[torch.Tensor, int | None]:
        """Return the tensor as it is batched."""
        return tied_to(x, tie), in_dims[0]
