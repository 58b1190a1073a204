"""Waiting for what a collective returned, and what a collective may send: a finished, dense tensor.

Dynamo walks this file, so it stays plain: module-level functions, no closures from factories.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from comm_core.errors import DtypeError


def wait(x: torch.Tensor) -> torch.Tensor:
    """Return the finished tensor of what a collective returned; a plain tensor is finished.

    Gradient: the identity.

    Example:
        >>> wait(torch.ones(2))
        tensor([1., 1.])
    """
    if torch.compiler.is_compiling() or not hasattr(x, "trigger_wait"):
        return torch.ops._c10d_functional.wait_tensor(x)
    return Waited.apply(x)  # type: ignore[no-untyped-call]


def settled(x: torch.Tensor, where: str) -> torch.Tensor:
    """Return a tensor that a collective may send: one in flight is waited for, other types are refused.

    Raises:
        DtypeError: not a tensor, or a DTensor.
    """
    check_dense(x, where)
    if hasattr(x, "to_local"):
        raise DtypeError(where, "a DTensor", "a plain tensor", "pass x.to_local(), or use func_map.local_map")
    if torch.compiler.is_compiling():
        return x
    if x.is_conj() or x.is_neg():
        x = x.resolve_conj().resolve_neg()
    if type(x) is torch.Tensor or type(x) is torch.nn.Parameter:
        return x
    return wait(x) if hasattr(x, "trigger_wait") else x


def check_dense(x: object, where: str) -> None:
    """Refuse what is no tensor, and a tensor whose values are not one block of memory.

    Raises:
        DtypeError: it is one of these.
    """
    if not isinstance(x, torch.Tensor):
        raise DtypeError(where, f"a {type(x).__name__}", "a tensor")
    if torch.compiler.is_compiling():
        return
    if x.layout is not torch.strided or x.is_nested or x.is_quantized:
        kind = "nested" if x.is_nested else "quantized" if x.is_quantized else str(x.layout)
        raise DtypeError(where, f"a {kind} tensor", "a dense tensor", "use x.to_dense() or its like")


class Waited(torch.autograd.Function):
    """The identity on a result in flight, of this project's class or of torch's."""

    @staticmethod
    def forward(x: Any) -> torch.Tensor:
        """Wait; autograd needs another tensor than the input."""
        return cast(torch.Tensor, x.trigger_wait()).detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> torch.Tensor:
        """Hand the cotangent on."""
        return cotangent
