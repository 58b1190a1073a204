"""Which path a call takes: decided here, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.compiler import is_dynamo_compiling  # whatever else compiles has a dispatch mode on, which `is_watched` sees

from comm_core import compat

_Tensor, _Parameter, _strided = torch.Tensor, torch.nn.Parameter, torch.strided  # each call asks for them

NODES: list[Callable[..., Any]] = []
Function = TypeVar("Function", bound=Callable[..., Any])


def node(function: Function) -> Function:
    """Have a function be one node of a compiled graph that stands under torch.func, opened when that is traced on."""
    NODES.append(function)
    return function


@compat.constant_in_graphs
def transforms_active() -> bool:
    """Tell whether what Dynamo traces stands under torch.func; then what `node` marks must be a node for it."""
    if not compat.functions_transformed():
        return False
    for function in NODES:
        torch.compiler.allow_in_graph(function)
    return True


def is_traced(x: torch.Tensor) -> bool:
    """Tell whether a call on `x` must go through the dispatcher, as ops of a graph.

    | where the call runs | result |
    |---|---|
    | eager, plain tensor or parameter | False: straight to the transport |
    | inside `torch.compile` or `torch.export` | True |
    | under a dispatch mode: FakeTensorMode, make_fx, CommDebugMode | True |
    | on a tensor that torch.func wrapped (vmap, grad, jvp) | False: `autograd.Function` unwraps it first |
    | on any other tensor subclass, such as a FakeTensor | True |

    Example:
        >>> is_traced(torch.ones(2))
        False
    """
    if torch.compiler.is_compiling():
        return True
    if compat.dispatch_modes_active():
        return True
    return type(x) not in (torch.Tensor, torch.nn.Parameter)


def is_plain(x: object) -> bool:
    """Tell whether a call on `x` may go straight to the transport: the first question of every eager call.

    | where the call runs | result |
    |---|---|
    | eager, plain tensor or parameter, dense and neither conjugated nor negated | True |
    | any other layout or type, also a result in flight | False |
    | where something watches: a graph, a dispatch mode, torch.func, forward-mode AD | False |

    Example:
        >>> is_plain(torch.ones(2)), is_plain(torch.ones(2).to_sparse()), is_plain(3)
        (True, False, False)
    """
    if is_dynamo_compiling() or not (type(x) is _Tensor or type(x) is _Parameter):
        return False
    if x.layout is not _strided or x.is_nested or x.is_quantized or x.is_conj() or x.is_neg():
        return False
    return not compat.is_watched(x)


def is_writable(x: torch.Tensor) -> bool:
    """Tell whether a gradient rule may write over what it alone has: it is not differentiated, nor looked at.

    Example:
        >>> with torch.no_grad():
        ...     is_writable(torch.ones(2))
        True
    """
    return not torch.is_grad_enabled() and is_plain(x) and not compat.batch_level(x)


def is_lazy(x: torch.Tensor) -> bool:
    """Tell whether a tensor would be plain, did its memory not hold the conjugates or negatives of its values.

    Example:
        >>> is_lazy(torch.tensor([1j]).conj()), is_lazy(torch.tensor([1j])), is_lazy(torch.tensor([1j]).conj().imag)
        (True, False, True)
    """
    if is_dynamo_compiling() or not (type(x) is _Tensor or type(x) is _Parameter):
        return False
    return (x.is_conj() or x.is_neg()) and x.layout is _strided and not compat.is_watched(x)
