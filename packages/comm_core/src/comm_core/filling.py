"""Calls whose kernel writes what it sends, as it cannot send what lies in memory: one copy where there would be two.

That is so for a view whose memory holds the conjugates or negatives of its values, and for a sum of what each rank
multiplies first. A kernel that copies anyway does this while it copies (the `fill` of `catalog/blocks.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch

from comm_core import checking, compat
from comm_core.catalog import BY_KEY
from comm_core.catalog.blocks import Fill, copied, multiplied
from comm_core.collective import Collective, Params
from comm_core.compat import sees_saved_tensors
from comm_core.derivatives import is_expanded, is_linear
from comm_core.execution import Differentiable, Finish, launch_parsed, parsed_params, start
from comm_core.groups import AnyGroup, GroupLike, as_group
from comm_core.pending import Pending
from comm_core.settling import resolved
from comm_core.simulate import SimulatedGroup
from comm_core.ties import tie
from comm_core.tracing import is_lazy, is_plain, is_writable

Factor = complex | torch.Tensor


def is_filled(entry: Collective, x: torch.Tensor, params: Params, factor: Factor | None = None) -> bool:
    """Tell whether a call's kernel fills what it sends: it can, and nothing else looks at the call but autograd."""
    return entry.fills and is_alone(entry, x, params, factor)


def is_alone(entry: Collective, x: torch.Tensor, params: Params, factor: Factor | None = None) -> bool:
    """Tell whether nothing but autograd looks at a linear call, or nothing at any.

    Args:
        entry: the collective.
        x: this rank's tensor.
        params: the call's parameters, parsed.
        factor: what the tensor is multiplied by, if by anything.
    """
    if not is_copied(x, factor):
        return False
    if not is_recorded(x, factor):
        return True
    return is_linear(entry, params) and not is_expanded(entry, x, params) and not sees_saved_tensors()


def is_copied(x: torch.Tensor, factor: Factor | None = None) -> bool:
    """Tell whether nothing but autograd looks at a tensor, and at what it is multiplied by, when both are read."""
    return (is_plain(x) or is_lazy(x)) and (not isinstance(factor, torch.Tensor) or is_plain(factor))


def filled_with(factor: Factor | None) -> Fill:
    """Return what writes a block's values, or so many times those."""
    return copied if factor is None else partial(multiplied, factor=factor)


def is_recorded(x: torch.Tensor, factor: Factor | None) -> bool:
    """Tell whether autograd records a call, for the tensor's or for the factor's sake."""
    wanted = x.requires_grad or (isinstance(factor, torch.Tensor) and factor.requires_grad)
    return torch.is_grad_enabled() and wanted


def start_multiplied(
    entry: Collective, x: torch.Tensor, factor: Factor, finish: Finish, group: GroupLike, params: Params
) -> torch.Tensor:
    """Start the sum of what each rank multiplies first, and record it as one call where it can be."""
    if not is_alone(entry, x, params, factor):
        return start(entry, x * factor, finish, group, **params)
    on = as_group(group)
    with checking.refusing(on, entry.name, params):
        parsed = parsed_params(entry, x, on, params)
    return start_filled(entry, x, on, parsed, finish, factor)


def start_lazy(entry: Collective, x: torch.Tensor, group: AnyGroup, params: Params, finish: Finish) -> torch.Tensor:
    """Start a call of a tensor whose memory holds the conjugates or negatives of its values."""
    if is_filled(entry, x, params):
        return start_filled(entry, x, group, params, finish)
    return start(entry, resolved(x), finish, group, **params)


def start_filled(
    entry: Collective, x: torch.Tensor, group: AnyGroup, params: Params, finish: Finish, factor: Factor | None = None
) -> torch.Tensor:
    """Start a call that `is_alone`, and record its gradients by the tensor and by the factor."""
    if is_recorded(x, factor):
        return cast(torch.Tensor, compat.applied(Filled)(x, factor, entry.key, group, params, finish)[0])
    return finish(launch_filled(entry, x, group, params, factor))


def launch_filled(
    entry: Collective, x: torch.Tensor, group: AnyGroup, params: Params, factor: Factor | None
) -> Pending:
    """Start a call of a tensor that is lazy or multiplied, without recording a gradient."""
    if isinstance(group, SimulatedGroup) or x.is_meta or not is_filled(entry, x.detach(), params):
        return launch_parsed(entry, resolved(x if factor is None else x * factor).detach(), group, params)
    return launch_parsed(entry, x, group, params, filled_with(factor))


def keep_factor(ctx: Any, factor: Factor | None, xs: Sequence[torch.Tensor], *others: torch.Tensor) -> None:
    """Save a factor for `of_product`, what it multiplies, where its own gradient is wanted, and others behind them."""
    ctx.of_tensor, ctx.learnt = isinstance(factor, torch.Tensor), len(xs)
    ctx.number = None if ctx.of_tensor else factor
    ctx.save_for_backward(*((factor, *xs) if ctx.of_tensor else ()), *others)


def of_product(
    ctx: Any, cotangents: Sequence[torch.Tensor], wanted: Sequence[bool], own: bool = False
) -> tuple[torch.Tensor | None, list[torch.Tensor | None]]:
    """Return the gradients, by the factor and by each tensor that it multiplies, of what `keep_factor` has kept.

    Args:
        ctx: of the call.
        cotangents: of each product.
        wanted: whether the gradient by each tensor is.
        own: whether nobody else has the cotangents, so that the products may be written over them.
    """
    factor, *xs = ctx.saved_tensors if ctx.of_tensor else (ctx.number,)
    shares = [(one * x.conj()).sum() for one, x in zip(cotangents[: ctx.learnt], xs, strict=False)]
    back = None if factor is None else factor.conj() if ctx.of_tensor else factor.conjugate()
    of_xs: list[torch.Tensor | None] = []
    for of_x, asked in zip(cotangents, wanted, strict=True):
        if asked and back is not None:
            of_xs.append(of_x.mul_(back) if own and is_writable(of_x) else of_x * back)
        else:
            of_xs.append(of_x if asked else None)
    return torch.stack(shares).sum() if shares else None, of_xs


class Filled(torch.autograd.Function):
    """A linear collective of what is filled, as a differentiable function of the tensor and of its factor."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, factor: Factor | None, key: str, group: AnyGroup, params: Params, finish: Finish
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the kernel and keep what backward needs."""
        output, its_tie = finish(launch_filled(BY_KEY[key], x, group, params, factor)), tie(x)
        ctx.key, ctx.group, ctx.params, ctx.tied_shape = key, group, params, output.shape
        ctx.set_materialize_grads(False)
        keep_factor(ctx, factor, [x] if ctx.needs_input_grad[1] else [], its_tie)
        return output, its_tie

    @staticmethod
    def backward(
        ctx: Any, cotangent: torch.Tensor | None, of_tie: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, ...]:
        """Run the gradient rule, and that of the product."""
        pulled = Differentiable.backward(ctx, cotangent, of_tie)[0]
        of_factor, (of_x,) = of_product(ctx, [pulled], ctx.needs_input_grad[:1], own=pulled is not cotangent)
        return of_x, of_factor, None, None, None, None
