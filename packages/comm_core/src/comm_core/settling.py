"""Waiting for what a collective returned, and what a collective may send: a finished, dense tensor.

Dynamo walks this file, so it stays plain: module-level functions, no closures from factories.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from comm_core.compat import forward_ad_active, is_transformed, records_tangents
from comm_core.errors import DtypeError
from comm_core.inductor_compat import keep_reads
from comm_core.tracing import node, transforms_active


def wait(x: torch.Tensor) -> torch.Tensor:
    """Return the finished tensor of what a collective returned; a plain tensor is finished.

    Gradient: the identity.

    Example:
        >>> wait(torch.ones(2))
        tensor([1., 1.])
    """
    if torch.compiler.is_compiling():
        keep_reads("tracing")
        return wait_in_graph(x) if transforms_active() else torch.ops._c10d_functional.wait_tensor(x)
    if hasattr(x, "trigger_wait") or is_transformed(x) or forward_ad_active():
        if hasattr(x, "check_current"):  # this project's class
            x.check_current()
        return Waited.apply(x)  # type: ignore[no-untyped-call]
    return torch.ops._c10d_functional.wait_tensor(x)


@node
def wait_in_graph(x: torch.Tensor) -> torch.Tensor:
    """Wait under torch.func inside a compiled graph: torch's op has no rule for a transform."""
    return Waited.apply(x)  # type: ignore[no-untyped-call]


def unfolded(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor that `torch.func.linearize` takes for no constant.

    It computes ahead of time what depends on the point alone; it takes a collective for such a thing and its wait for
    none, and would read a result that has not arrived. What is behind a wait it leaves alone.

    Example:
        >>> unfolded(torch.ones(2))
        tensor([1., 1.])
    """
    return torch.ops._c10d_functional.wait_tensor(x) if records_tangents(x) else x


def settled(x: torch.Tensor, where: str, resolves: bool = True) -> torch.Tensor:
    """Return a tensor that a collective may send: one in flight is waited for, other types are refused.

    Args:
        x: what a caller gave.
        where: the collective.
        resolves: also have its memory hold its values; calls that copy it do that themselves.

    Raises:
        DtypeError: not a tensor, or a DTensor.
    """
    check_dense(x, where)
    if hasattr(x, "to_local"):
        raise DtypeError(where, "a DTensor", "a plain tensor", "pass x.to_local(), or use func_map.local_map")
    if torch.compiler.is_compiling():
        return x
    if resolves:
        x = resolved(x)
    if type(x) is torch.Tensor or type(x) is torch.nn.Parameter:
        return x
    return wait(x) if hasattr(x, "trigger_wait") else x


def arrived(x: torch.Tensor, where: str) -> torch.Tensor:
    """Return a tensor as `settled` does, for calls that copy it, and resolve it while they do.

    Raises:
        DtypeError: not a tensor, or a DTensor.
    """
    return settled(x, where, resolves=False)


def resolved(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose memory holds its values, and not their conjugates or negatives.

    Gradient: the identity.

    Example:
        >>> resolved(torch.tensor([1j]).conj()).is_conj()
        False
    """
    if torch.compiler.is_compiling() or not (x.is_conj() or x.is_neg()):
        return x
    return x.resolve_conj().resolve_neg()


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
    """The identity on a result in flight, of this project's class or of torch's, and on what a transform looks at."""

    @staticmethod
    def forward(x: Any) -> torch.Tensor:
        """Wait; autograd needs another tensor than the input."""
        wait = getattr(x, "finished", None) or getattr(x, "trigger_wait", None)  # ours, or torch's
        return cast(torch.Tensor, torch.ops._c10d_functional.wait_tensor(x) if wait is None else wait()).detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> torch.Tensor:
        """Hand the cotangent on."""
        return cotangent

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor) -> torch.Tensor:
        """Hand the tangent on."""
        return tangent.view_as(tangent)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], x: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Wait once for the whole batch."""
        return Waited.apply(x), in_dims[0]  # type: ignore[no-untyped-call]
