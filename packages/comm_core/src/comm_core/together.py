"""Calls that were started together, as one piece of work, each with the gradient that it has alone.

So the ranks start the same work, whichever of them want a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch

from comm_core import compat
from comm_core.collective import Collective, Params
from comm_core.execution import Recorded, keep
from comm_core.groups import AnyGroup
from comm_core.ties import applied_unseen, tie


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
    apply = applied_unseen if compat.sees_saved_tensors() else _applied
    return apply(RecordedTogether, x, entry.key, group, params, begun)[0]


def _applied(function: type[torch.autograd.Function], *inputs: object) -> tuple[torch.Tensor, torch.Tensor]:
    return cast(tuple[torch.Tensor, torch.Tensor], compat.applied(function)(*inputs))


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
