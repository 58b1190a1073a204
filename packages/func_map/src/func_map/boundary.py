"""The two crossings between DTensors and local tensors, as autograd Functions that are each other's adjoint.

Dynamo walks this file, so it stays plain: module-level functions, no closures from factories.

The backward of `ToLocal` is `FromLocal` and the other way round, with dual placements, so that gradients of
gradients follow the same rules. Only DTensor's public `from_local`, `to_local` and `redistribute` are used. The
context is an argument of `forward`, since with `setup_context` every `apply` reads a signature, which takes longer
than all the rest.
"""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from comm_core import wait
from func_map.placements import Spec, cotangent_of, dtensor_spec, gradient_of, is_sharded

Shape: TypeAlias = tuple[int, ...]


class ToLocal(torch.autograd.Function):
    """This rank's part of a DTensor.

    Shapes: the shard's; a view, not a copy.

    Gradient: a DTensor of the input's shape whose placements are `label`; nothing is communicated.
    """

    @staticmethod
    def forward(ctx: Any, x: DTensor, label: Spec) -> torch.Tensor:
        """Take the local tensor, waiting for it if it is still in flight."""
        ctx.mesh, ctx.label = x.device_mesh, label
        ctx.shape = tuple(x.shape) if is_uneven(x) else None
        local = settled(x.to_local())
        return local.view_as(local)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Label the local gradient."""
        return FromLocal.apply(grads[0], None, ctx.mesh, ctx.label, ctx.shape), None  # type: ignore[no-untyped-call]


class FromLocal(torch.autograd.Function):
    """The DTensor whose part on this rank is the given tensor.

    Shapes: `shape`, or what evenly sharded parts add up to.

    Gradient: the incoming DTensor gradient, placed as `cotangent_of` says, then divided over the ranks that were
    handed copies. Nothing for the anchor, but its node runs, so that every rank's backward reaches every input.
    """

    @staticmethod
    def forward(
        ctx: Any, y: torch.Tensor, anchor: torch.Tensor | None, mesh: DeviceMesh, spec: Spec, shape: Shape | None
    ) -> DTensor:
        """Wrap; nothing is communicated."""
        ctx.mesh, ctx.spec = mesh, spec
        if shape is None:
            return DTensor.from_local(y, mesh, dtensor_spec(spec))
        y, stride = with_global_stride(y, shape)
        return DTensor.from_local(y, mesh, dtensor_spec(spec), shape=torch.Size(shape), stride=stride)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Hand this rank its share of the gradient."""
        incoming = grads[0]
        spec, divisor = cotangent_of(ctx.spec, incoming.placements, ctx.mesh)
        placements = dtensor_spec(spec)
        if incoming.placements != placements:
            incoming = incoming.redistribute(placements=placements)
        local = ToLocal.apply(incoming, gradient_of(spec))  # type: ignore[no-untyped-call]
        if divisor != 1:
            local = local / divisor
        return local, None, None, None, None


class Join(torch.autograd.Function):
    """All differentiable inputs of one call in one node, with an anchor that ties outputs to it.

    A gradient that is missing on this rank, because the body did not use the input here, becomes zeros: other ranks
    may have one, and then every rank has to take part in what follows.

    Shapes: the inputs' own, as views, and a scalar of zero.

    Gradient: handed through.
    """

    @staticmethod
    def forward(ctx: Any, *locals_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the inputs and the anchor; missing gradients arrive as zeros, which is autograd's default."""
        return (*[x.view_as(x) for x in locals_], locals_[0].new_zeros(()))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Drop the anchor's gradient."""
        return grads[:-1]


def enter(x: DTensor, label: Spec) -> torch.Tensor:
    """Return this rank's part of `x`; its gradient will be labelled `label`."""
    return cast(torch.Tensor, ToLocal.apply(x, label))  # type: ignore[no-untyped-call]


def join(locals_: list[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """Tie the tensors that require a gradient together, and return them with the anchor, or None."""
    differentiable = [index for index, x in enumerate(locals_) if x.requires_grad]
    if not differentiable or not torch.is_grad_enabled():
        return locals_, None
    joined = Join.apply(*[locals_[index] for index in differentiable])  # type: ignore[no-untyped-call]
    tied = list(locals_)
    for position, index in enumerate(differentiable):
        tied[index] = joined[position]
    return tied, joined[-1]


def leave(y: torch.Tensor, anchor: torch.Tensor | None, mesh: DeviceMesh, spec: Spec, shape: Shape | None) -> DTensor:
    """Return the DTensor whose part on this rank is `y`."""
    if not (y.is_floating_point() or y.is_complex()):
        anchor = None
    return cast(DTensor, FromLocal.apply(y, anchor, mesh, spec, shape))  # type: ignore[no-untyped-call]


def settled(x: torch.Tensor) -> torch.Tensor:
    """Return `x`, waited for if it is the result of a collective in flight."""
    if torch.compiler.is_compiling() or not hasattr(x, "trigger_wait"):
        return x
    return wait(x)


def uneven_axes(x: DTensor) -> tuple[int, ...]:
    """Return the mesh axes over which a dim of `x` is sharded into pieces of different sizes."""
    pieces: dict[int, int] = {}
    for axis, placement in enumerate(x.placements):
        if is_sharded(placement):
            dim = placement.dim  # type: ignore[attr-defined]
            pieces[dim] = pieces.get(dim, 1) * x.device_mesh.size(axis)
    uneven = [dim for dim, count in pieces.items() if x.shape[dim] % count != 0]
    axes = [axis for axis, p in enumerate(x.placements) if is_sharded(p) and p.dim in uneven]  # type: ignore[attr-defined]
    return tuple(axes)


def is_uneven(x: DTensor) -> bool:
    """Tell whether the ranks' parts of `x` have different sizes."""
    return len(uneven_axes(x)) > 0


def with_global_stride(y: torch.Tensor, shape: Shape) -> tuple[torch.Tensor, Shape]:
    """Return `y`, made contiguous if it has gaps, and the strides of a dense tensor of `shape` in the order of `y`.

    Example:
        >>> y, stride = with_global_stride(torch.ones(2, 3).t(), (3, 4))
        >>> y.is_contiguous(), stride
        (False, (1, 3))
    """
    strides = y.stride()
    order = sorted(range(y.ndim), key=lambda dim: -strides[dim])
    if strides != _dense(order, tuple(y.shape)):
        y, order = y.contiguous(), list(range(y.ndim))
    return y, _dense(order, shape)


def _dense(order: list[int], shape: Shape) -> Shape:
    stride = [0] * len(shape)
    step = 1
    for dim in reversed(order):
        stride[dim] = step
        step *= max(shape[dim], 1)
    return tuple(stride)
