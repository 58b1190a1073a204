"""Calls that autograd records in another way than one that moves its tensor, and has the gradient of its entry.

A reduction whose derivatives are its expansion's is the call alone in forward, and only backward asks for all ranks'
tensors: these need not be there, nor stay, until somebody asks for a gradient. Calls that were started together, as one
piece of work, have each the gradient that it has alone: so the ranks start the same work, whichever of them want a
gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch

from comm_core import compat
from comm_core.catalog import BY_KEY
from comm_core.collective import Collective, Params
from comm_core.derivatives import expanded, pulled_back
from comm_core.execution import Finish, GroupEmit, Recorded, keep, launch_parsed
from comm_core.groups import AnyGroup
from comm_core.settling import settled
from comm_core.ties import applied_unseen, tie, tied
from comm_core.tracing import is_plain


def with_expanded_gradient(
    entry: Collective, x: torch.Tensor, group: AnyGroup, params: Params, finish: Finish
) -> torch.Tensor:
    """Start a reduction whose gradient is its expansion's; where anything but autograd looks on, expand it now."""
    if not is_plain(x) or compat.sees_saved_tensors():
        return expanded(entry, GroupEmit(group), x, params)
    return cast(torch.Tensor, compat.applied(ExpandedInBackward)(x, entry.key, group, params, finish)[0])


class ExpandedInBackward(torch.autograd.Function):
    """One call, of which backward computes the expansion, and differentiates that."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, key: str, group: AnyGroup, params: Params, finish: Finish
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the kernel and keep the tensor."""
        output, its_tie = finish(launch_parsed(BY_KEY[key], x, group, params)), tie(x)
        ctx.key, ctx.group, ctx.params, ctx.tied_shape = key, group, params, output.shape
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, its_tie)
        return output, its_tie

    @staticmethod
    def backward(
        ctx: Any, cotangent: torch.Tensor | None, of_tie: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, ...]:
        """Exchange, pull back and exchange; what backward itself is differentiated by is part of that."""
        emit, saved = GroupEmit(ctx.group), ctx.saved_tensors
        cotangent = settled(tied(ctx, cotangent, of_tie, saved), ctx.key)
        return pulled_back(BY_KEY[ctx.key], emit, saved[0], cotangent, ctx.params), None, None, None, None


def with_gradient(
    entry: Collective, x: torch.Tensor, group: AnyGroup, params: Params, begun: Callable[[], torch.Tensor]
) -> torch.Tensor:
    """Return the result of a linear call that was started with others, and record its gradient where one is wanted.

    Args:
        entry: the collective.
        x: this rank's tensor, which nothing but autograd looks at.
        group: where it was started.
        params: the call's parameters, parsed.
        begun: what makes the result.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return begun()
    inputs = x, entry.key, group, params, begun
    if compat.sees_saved_tensors():
        return applied_unseen(RecordedTogether, *inputs)[0]
    return cast(torch.Tensor, compat.applied(RecordedTogether)(*inputs)[0])


class RecordedTogether(Recorded):
    """`Recorded` of a call that has been started already."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: torch.Tensor, key: str, group: AnyGroup, params: Params, begun: Callable[[], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the result and keep what backward needs."""
        output, its_tie = begun(), tie(x)
        keep(ctx, x, output, key, group, params, its_tie)
        return output, its_tie
