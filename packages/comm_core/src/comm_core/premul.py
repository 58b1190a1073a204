"""The reduce op `premul_sum`: a sum of tensors that each rank multiplies by its own factor first.

Every transport has `sum`, and hardly one has this, so the factor is multiplied in before a transport sees the call: by
the kernel, while it copies what it sends (`filling`), or before anything else. Its gradient, by the tensor and by the
factor, is that of a product and a sum.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from comm_core import compat
from comm_core.errors import ReduceOpError, said


class PremulSum:
    """The reduce op that `premul_sum` makes.

    Args:
        factor: what this rank's tensor is multiplied by.
    """

    def __init__(self, factor: complex | torch.Tensor) -> None:
        self.factor = factor

    def __repr__(self) -> str:
        shown = "tensor" if isinstance(self.factor, torch.Tensor) else said(self.factor)
        return f"premul_sum({shown})"


def premul_sum(factor: complex | torch.Tensor) -> PremulSum:
    """Return a reduce op: the sum of all ranks' tensors, each multiplied by its own rank's factor.

    It stands wherever `"sum"` does. Ranks may pass different factors, and may mix it with `"sum"`, whose factor is 1.
    The product takes the room of a payload, which is that of the copy that the sum takes where it takes one.

    Args:
        factor: a number, or a tensor of one element, which may require grad.

    Shapes: as for `"sum"`.

    Gradient: the factor times the gradient of `"sum"`; by the factor, the sum of its tensor times that gradient.

    Raises:
        ReduceOpError: the factor is neither a number nor a tensor of one element.

    Example:
        >>> from comm_core import World, catalog, run
        >>> def body(group):
        ...     mean = premul_sum(1 / group.world)
        ...     return run(catalog.ALL_REDUCE, torch.tensor([3.0 * group.rank]), group, reduce_op=mean).item()
        >>> World(3).run(body)
        [3.0, 3.0, 3.0]

    Source: NCCL's `PreMulSum`, and torch's `ReduceOp` of that name.
    """
    number = isinstance(factor, (int, float, complex)) and not isinstance(factor, bool)
    if not number and not (isinstance(factor, torch.Tensor) and factor.numel() == 1):
        got = f"a tensor of {factor.numel()} elements" if isinstance(factor, torch.Tensor) else said(factor)
        raise ReduceOpError("premul_sum", got, "a number or a tensor of one element")
    return PremulSum(factor)


def premultiplied(
    x: torch.Tensor, params: dict[str, Any], where: str, written: bool = False
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Return the tensor and the parameters of the sum that a premultiplied one is; other calls come back as they are.

    Args:
        x: this rank's tensor.
        params: the call's parameters, as they were given.
        where: the collective.
        written: the result may be written over `x`, whose values the gradient of a factor needs: that takes a copy.

    Raises:
        ReduceOpError: the dtype has no product with such a factor.

    Example:
        >>> premultiplied(torch.ones(2), {"reduce_op": premul_sum(3.0)}, "all_reduce")
        (tensor([3., 3.]), {'reduce_op': 'sum'})
    """
    factor, params = parted(x, params, where)
    if factor is None:
        return x, params
    if written and torch.is_grad_enabled() and isinstance(factor, torch.Tensor) and factor.requires_grad:
        x = x.clone()
    return x * factor, params


def parted(
    x: torch.Tensor, params: dict[str, Any], where: str
) -> tuple[float | complex | torch.Tensor | None, dict[str, Any]]:
    """Return what a tensor is multiplied by, and the parameters of the sum; no factor for a call of another kind.

    Raises:
        ReduceOpError: the dtype has no product with such a factor.

    Example:
        >>> parted(torch.ones(2), {"reduce_op": premul_sum(3.0)}, "all_reduce")
        (3.0, {'reduce_op': 'sum'})
    """
    op = params.get("reduce_op")
    if isinstance(op, str):
        return None, params
    factor = op.factor if isinstance(op, PremulSum) else compat.premul_factor(op)
    if factor is None:
        return None, params
    if not isinstance(cast(object, x), torch.Tensor):  # refused where all calls are
        return None, {**params, "reduce_op": "sum"}
    if not (x.is_floating_point() or x.is_complex()) or x.element_size() == 1:
        raise ReduceOpError(
            where, f"premul_sum of {x.dtype}", "a floating point or complex dtype of at least 16 bits", "cast it"
        )
    if not x.is_complex() and (
        isinstance(factor, complex) or (isinstance(factor, torch.Tensor) and factor.is_complex())
    ):
        need = "a real factor, or a complex tensor"
        raise ReduceOpError(where, f"premul_sum of {x.dtype} by a complex factor", need, "cast the tensor to complex")
    if isinstance(factor, torch.Tensor):
        factor = factor.reshape(()).to(device=x.device, dtype=x.dtype)
    elif isinstance(factor, int):
        bits = factor.bit_length()
        try:
            factor = float(factor)
        except OverflowError:
            raise ReduceOpError(
                where, f"premul_sum by an int of {bits} bits", "a factor that a float can hold"
            ) from None
    return factor, {**params, "reduce_op": "sum"}
