"""Reductions whose derivatives are their expansion's: forward is the call alone, and backward expands it.

An expansion has all ranks' tensors, which need not be there, nor stay, until somebody asks for a gradient.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from comm_core import compat
from comm_core.catalog import BY_KEY
from comm_core.collective import Collective, Params
from comm_core.compat import sees_saved_tensors
from comm_core.execution import Finish, expanded, launch_parsed
from comm_core.groups import AnyGroup
from comm_core.settling import settled
from comm_core.ties import tie, tied
from comm_core.tracing import is_plain


def with_expanded_gradient(
    entry: Collective, x: torch.Tensor, group: AnyGroup, params: Params, finish: Finish
) -> torch.Tensor:
    """Start a reduction whose gradient is its expansion's; where anything but autograd looks on, expand it now."""
    if not is_plain(x) or sees_saved_tensors():
        return expanded(entry, x, group, params)
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
        """Expand the call; what backward itself is differentiated by is part of that."""
        again, cotangent = torch.is_grad_enabled(), settled(tied(ctx, cotangent, of_tie), ctx.key)
        x = ctx.saved_tensors[0] if again else ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            y = expanded(BY_KEY[ctx.key], x, ctx.group, ctx.params)
        of_x = torch.autograd.grad(y, x, cotangent, create_graph=again)
        return *of_x, None, None, None, None
