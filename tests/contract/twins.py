"""How torch's own ops of the same meaning are called, for the entries that have one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Arguments = Callable[[dict[str, Any], int], tuple[Any, ...]]

# From parsed parameters and the group size to what follows the tensor; the group's name comes last.
ARGUMENTS: dict[str, Arguments] = {
    "all_reduce": lambda params, world: (params["reduce_op"],),
    "all_gather": lambda params, world: (world,),
    "reduce_scatter": lambda params, world: (params["reduce_op"], world),
    "all_to_all": lambda params, world: (list(params["output_splits"]), list(params["input_splits"])),
    "broadcast": lambda params, world: (params["src"],),
    "wait": lambda params, world: (),
}


def call(name: str, op: str, x: torch.Tensor, params: dict[str, Any], world: int, group: str) -> torch.Tensor:
    """Call torch's op on a tensor that is laid out as the op wants it: blocks along dim 0."""
    named = () if name == "wait" else (group,)
    return getattr(torch.ops._c10d_functional, op)(x, *ARGUMENTS[name](params, world), *named)
