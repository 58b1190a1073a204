"""What the derivative of a call is: its rules say that, and what its reduce op is.

Dynamo walks this file, so it stays plain: module-level functions, no closures from factories.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch

from comm_core.catalog.rules import Emit, returned, shared
from comm_core.collective import Collective, Expansion, Missing, Params
from comm_core.errors import GradientError
from comm_core.reduce_ops import REDUCE_OPS
from comm_core.ties import tied_to
from comm_core.tracing import is_traced, is_writable


def check_gradient(entry: Collective) -> None:
    """Refuse, at the call, what could only fail in backward.

    Raises:
        GradientError: the collective has no gradient rule.
    """
    if isinstance(entry.gradient, Missing):
        raise GradientError(entry.name, got="an input that requires grad", need=entry.gradient.why)


def is_linear(entry: Collective, params: Params) -> bool:
    """Tell whether a call is a linear map of its inputs; else `partial` makes one of it."""
    return isinstance(entry.partial, Missing) or REDUCE_OPS[params["reduce_op"]].linear


def is_expanded(entry: Collective, x: torch.Tensor, params: Params) -> bool:
    """Tell whether derivatives of a call are those of its expansion; integers have none."""
    if isinstance(entry.expanded, Missing) or not x.is_floating_point():
        return False
    return not REDUCE_OPS[params["reduce_op"]].linear


def summed(params: Params) -> Params:
    """Return the parameters of the linear collective that a reduction is, of its input times its partial derivative."""
    return {**params, "reduce_op": "sum"}


def after(x: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
    """Return what a call has saved, in a graph as what depends on its cotangent too.

    A compiler may put what depends on saved tensors alone into forward or into backward, as costs less memory on its
    rank; but a collective has to be in the same one on all ranks.

    Example:
        >>> x = torch.ones(2)
        >>> after(x, torch.zeros(3)) is x
        True
    """
    return torch.where(cotangent.isnan().any(), x, x) if is_traced(x) else x


def transposed(entry: Collective, emit: Emit, cotangent: torch.Tensor, params: Params) -> torch.Tensor:
    """Return the gradient of a linear call."""
    return cast(Callable[..., torch.Tensor], entry.gradient)(emit, cotangent, **params)


def weighted(
    entry: Collective, emit: Emit, cotangent: torch.Tensor, factors: torch.Tensor, params: Params
) -> torch.Tensor:
    """Return the gradient of a linear call times factors that the rule alone has, written over these where it may be.

    Args:
        entry: the collective.
        emit: runs the collectives of the rule.
        cotangent: of the call's result.
        factors: this rank's, of the shape of its tensor.
        params: the call's parameters, parsed.
    """
    own = is_writable(factors) and is_writable(cotangent)
    if own and not isinstance(entry.weighted, Missing):
        return entry.weighted(emit, cotangent, factors, **params)
    pulled = transposed(entry, emit, cotangent, params)
    return factors.mul_(pulled) if own else pulled * factors


def expanded(entry: Collective, emit: Emit, x: torch.Tensor, params: Params) -> torch.Tensor:
    """Run a call as others and torch's differentiable ops, whose derivatives are the call's."""
    return returned(emit, cast(Expansion, entry.expanded).rows(shared(emit, x), **params), x)


def pulled_back(
    entry: Collective, emit: Emit, x: torch.Tensor, cotangent: torch.Tensor, params: Params
) -> torch.Tensor:
    """Return the gradient of `expanded`: each rank pulls its share of all ranks' cotangents back.

    Args:
        entry: the collective.
        emit: runs the exchanges.
        x: this rank's tensor.
        cotangent: of its result.
        params: the call's parameters, parsed.
    """
    cotangents = shared(emit, cotangent)
    return returned(emit, _rows_pulled_back(cast(Expansion, entry.expanded), shared(emit, x), cotangents, params), x)


def _rows_pulled_back(of: Expansion, rows: torch.Tensor, cotangents: torch.Tensor, params: Params) -> torch.Tensor:
    if is_writable(rows) and is_writable(cotangents):
        return of.pulled_back(rows, cotangents, **params)
    if torch.is_grad_enabled():  # backward is differentiated itself: by both, whatever their values are
        (pulled,) = torch.autograd.grad(of.rows(rows, **params), rows, cotangents, create_graph=True)
        return tied_to(tied_to(pulled, rows.reshape(-1)[:0]), cotangents.reshape(-1)[:0])
    rows = rows.detach().requires_grad_()
    with torch.enable_grad():
        made = of.rows(rows, **params)
    return torch.autograd.grad(made, rows, cotangents)[0]
