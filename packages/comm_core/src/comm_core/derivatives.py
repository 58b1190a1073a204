"""What the derivative of a call is: its rules say that, and what its reduce op is.

Dynamo walks this file, so it stays plain: module-level functions, no closures from factories.
"""

from __future__ import annotations

import torch

from comm_core.collective import Collective, Missing, Params
from comm_core.errors import GradientError
from comm_core.reduce_ops import REDUCE_OPS
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


def times(partial: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
    """Return the product of what a rule alone has with a cotangent, written over the first where that may be.

    Example:
        >>> times(torch.full((1,), 2.0), torch.full((1,), 3.0))
        tensor([6.])
    """
    both = is_writable(partial) and is_writable(cotangent)
    return partial.mul_(cotangent) if both else cotangent * partial
