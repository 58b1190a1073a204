"""Backward of a backward: which collectives a rank runs there may not depend on what its own loss is.

Where backward builds a graph, its collective is recorded on a rank whose cotangent requires grad. That of a sum is a
constant, and that of a sum of squares is not: the ranks would record different collectives, and in the second backward
some would wait for others that never come. So each recorded call gives back a tie beside its result, an empty tensor,
and its backward ties the cotangent to it. Then every rank runs backward of what backward has run, and of the call.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from comm_core.tracing import is_traced


def tie(x: torch.Tensor) -> torch.Tensor | None:
    """Return what a recorded call gives back beside its result; in a traced graph, which has one backward, None."""
    return None if is_traced(x) else x.new_empty(0)


def tied(ctx: Any, cotangent: torch.Tensor | None) -> torch.Tensor:
    """Return a cotangent, zeros for None; where backward is recorded, as what depends on the call's tie too."""
    if cotangent is None:
        cotangent = cast(torch.Tensor, ctx.saved_tensors[-1].new_zeros(ctx.tied_shape))
    if ctx.tied_shape is None or not torch.is_grad_enabled():
        return cotangent
    return cast(torch.Tensor, Tied.apply(cotangent, ctx.saved_tensors[-1]))  # type: ignore[no-untyped-call]


class Tied(torch.autograd.Function):
    """The identity of its first argument, which autograd believes to depend on the second."""

    @staticmethod
    def forward(x: torch.Tensor, tie: torch.Tensor) -> torch.Tensor:
        """Return the tensor; a view of an expanded one would take no tangent."""
        return x.view_as(x) if x.is_contiguous() else x.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Give the tie nothing; autograd comes to the call all the same."""
        return cotangent, None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, _: object) -> torch.Tensor:
        """Return the tangent."""
        return tangent.view_as(tangent)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: torch.Tensor, tie: torch.Tensor
    ) -> tuple[torch.Tensor, int | None]:
        """Return the tensor as it is batched."""
        return cast(torch.Tensor, Tied.apply(x, tie)), in_dims[0]  # type: ignore[no-untyped-call]
