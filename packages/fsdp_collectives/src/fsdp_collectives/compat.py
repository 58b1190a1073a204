"""The private names of torch that fsdp_collectives uses, each with the reason and the versions that have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

NO_BACKWARD = -1


def registered_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return a module's own parameters, also while an attribute hides one (2.11 to 2.14)."""
    return {name: x for name, x in module._parameters.items() if x is not None}


def registered_modules(module: nn.Module) -> dict[str, nn.Module]:
    """Return a module's children, one that is there twice as two (2.11 to 2.14)."""
    return {name: child for name, child in module._modules.items() if child is not None}


def tensors_in(tree: object) -> Iterator[torch.Tensor]:
    """Return the tensors in nested containers (2.11 to 2.14; the public pytree is another package)."""
    return (leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor))


def map_tensors(fn: Callable[[torch.Tensor], torch.Tensor], tree: Any) -> Any:
    """Return nested containers with every tensor replaced (2.11 to 2.14)."""
    return pytree.tree_map_only(torch.Tensor, fn, tree)


def backward_id() -> int:
    """Return the number of the backward pass that this thread is in, or NO_BACKWARD (2.11 to 2.14)."""
    return int(torch._C._current_graph_task_id())


def after_backward(fn: Callable[[], None]) -> None:
    """Call a function when the backward pass that this thread is in has ended well (2.11 to 2.14)."""
    torch.autograd.Variable._execution_engine.queue_callback(fn)
