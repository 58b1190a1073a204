"""Policy: the choices of sharded training, in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from comm_core.errors import ArgumentError, DtypeError
from fsdp_collectives.plan import check_divisor, check_float


@dataclass(frozen=True)
class Policy:
    """How a sharded module gathers, computes and reduces.

    Args:
        param_dtype: the dtype that floating-point parameters are gathered and used in; None keeps their own.
        reduce_dtype: the dtype that gradients are added over ranks in; None takes
            `param_dtype`, else the parameter's own.
        divide_by: what the sum of the ranks' gradients is divided by; None takes the mean over ranks.
        reshard_after_forward: whether a unit frees its whole parameters after forward and gathers them again for
            backward. The root keeps its own until its backward has run.
        cast_inputs: whether floating-point inputs of a unit are cast to `param_dtype`.
        smallest_unit: elements of a ModuleList or Sequential with fewer parameters stay in the unit around them.

    Raises:
        DtypeError: a dtype is not a floating-point dtype.
        ArgumentError: the divisor is not positive, or the size is negative.

    Example:
        >>> Policy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32).reshard_after_forward
        True
    """

    param_dtype: torch.dtype | None = None
    reduce_dtype: torch.dtype | None = None
    divide_by: float | None = None
    reshard_after_forward: bool = True
    cast_inputs: bool = True
    smallest_unit: int = 0

    def __post_init__(self) -> None:
        check_float("Policy", "param_dtype", self.param_dtype)
        check_float("Policy", "reduce_dtype", self.reduce_dtype)
        if self.reduce_dtype is not None and self.reduce_dtype.itemsize < 2:
            raise DtypeError("Policy", got=f"reduce_dtype={self.reduce_dtype}", need="at least 16 bits to add in")
        if self.divide_by is not None:
            check_divisor("Policy", self.divide_by)
        if not isinstance(self.smallest_unit, int) or self.smallest_unit < 0:
            raise ArgumentError("Policy", got=f"smallest_unit={self.smallest_unit!r}", need="a number of elements")
