"""What one placement means at the boundary, and what its gradient's placement is.

Dynamo walks this file, so it stays plain: module-level functions, no closures from factories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypeGuard

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Partial, Placement, Replicate, Shard

from comm_core.errors import PlacementError, ShapeError

Spec: TypeAlias = tuple[Placement, ...]

_DIFFERENTIABLE = ("sum", "avg")  # the reductions of a Partial that have an exact adjoint here


class Invariant(Replicate):
    """Replicate, where the body does one computation that every rank repeats, gradient included.

    Write it in `in_placements` or `out_placements` for a body in Megatron's style, whose `autograd.Function`s reduce
    gradients by themselves: the gradient is then handed over as it is, in full, in both directions.

    Gradient: Replicate at the boundary, not reduced and not divided.

    Example:
        >>> Invariant() == Replicate()
        True
        >>> gradient_of((Invariant(), Replicate()))
        (Invariant(), Partial(sum))

    Source: the "invariant" type of Megatron-LM's f and g functions and of JAX's varying-axes types.
    """

    def __repr__(self) -> str:
        return "Invariant()"


def is_spec(entry: object) -> TypeGuard[Sequence[Placement]]:
    """Tell whether `entry` is one placement spec: a list or tuple of placements, one per mesh axis.

    Example:
        >>> is_spec([Shard(0)]), is_spec((Shard(0), Replicate())), is_spec(([Shard(0)],)), is_spec(())
        (True, True, False, False)
    """
    if not isinstance(entry, (list, tuple)) or len(entry) == 0:
        return False
    return all(isinstance(placement, Placement) for placement in entry)


def dtensor_spec(spec: Sequence[Placement]) -> Spec:
    """Return the placements that a DTensor is labelled with: Invariant is Replicate there."""
    return tuple(Replicate() if isinstance(placement, Invariant) else placement for placement in spec)


def gradient_of(spec: Sequence[Placement]) -> Spec:
    """Return the placement of the local gradients of inputs that came in with `spec`.

    Example:
        >>> gradient_of((Shard(1), Replicate(), Partial(), Partial("avg")))
        (Shard(dim=1), Partial(sum), Replicate(), Partial(sum))
    """
    labels: list[Placement] = []
    for placement in spec:
        if isinstance(placement, Invariant) or is_sharded(placement):
            labels.append(placement)
        elif isinstance(placement, Partial) and placement.reduce_op == "sum":
            labels.append(Replicate())
        else:
            labels.append(Partial())
    return tuple(labels)


def cotangent_of(spec: Spec, incoming: Sequence[Placement], mesh: DeviceMesh) -> tuple[Spec, int]:
    """Return how the body wants the gradient of an output placed, and what to divide it by.

    Args:
        spec: the placements of the output.
        incoming: the placements of the gradient that arrives.
        mesh: the mesh of both.

    Returns:
        The placements to redistribute the gradient to, and the product of the sizes of the axes to average over.
    """
    wanted: list[Placement] = []
    divisor = 1
    for axis, placement in enumerate(spec):
        if isinstance(placement, Invariant) or is_sharded(placement):
            wanted.append(placement)
        elif isinstance(placement, Replicate) and is_plain_sum(incoming[axis]):
            wanted.append(Partial())  # shares that add up to the gradient: what the body must get, already
        else:
            wanted.append(Replicate())
            if isinstance(placement, Replicate) or not is_plain_sum(placement):
                divisor *= mesh.size(axis)
    return tuple(wanted), divisor


def is_sharded(placement: Placement) -> bool:
    """Tell whether ranks hold different pieces, strided pieces included."""
    return not placement.is_replicate() and not placement.is_partial()


def is_plain_sum(placement: Placement) -> bool:
    """Tell whether this is `Partial("sum")` itself and not a subclass with rules of its own."""
    return type(placement) is Partial and placement.reduce_op == "sum"


def without_gradient(spec: Sequence[Placement]) -> Placement | None:
    """Return the first placement whose reduction has no exact adjoint here, or None.

    Example:
        >>> without_gradient((Shard(0), Partial("avg"))), without_gradient((Partial("max"),))
        (None, Partial(max))
    """
    for placement in spec:
        exact = type(placement) is Partial and placement.reduce_op in _DIFFERENTIABLE
        if placement.is_partial() and not exact:
            return placement
    return None


def check_spec(spec: Sequence[Placement], mesh: DeviceMesh, ndim: int, where: object) -> Spec:
    """Return `spec` with dims counted from the front, once it fits the mesh and the tensor.

    Raises:
        PlacementError: the wrong number of placements, an unknown kind, or reductions that differ between axes.
        ShapeError: a Shard dim that the tensor does not have.
    """
    if len(spec) != mesh.ndim:
        raise PlacementError(
            str(where),
            got=f"{len(spec)} placement(s), {words(spec)}",
            need=f"{mesh.ndim}, one per axis of the mesh",
            hint="for several tensors write one list of placements for each of them",
        )
    checked: list[Placement] = []
    reductions: list[str] = []
    for axis, placement in enumerate(spec):
        if isinstance(placement, Shard):
            checked.append(Shard(_front_dim(placement.dim, ndim, axis, where)))
        elif isinstance(placement, (Replicate, Partial)):
            checked.append(placement)
        else:
            raise PlacementError(str(where), got=repr(placement), need="Shard, Replicate, Partial or Invariant")
        if isinstance(placement, Partial) and placement.reduce_op not in reductions:
            reductions.append(placement.reduce_op)
    if len(reductions) > 1:
        raise PlacementError(str(where), got=words(spec), need="one reduction for all Partial axes")
    return tuple(checked)


def _front_dim(dim: int, ndim: int, axis: int, where: object) -> int:
    if -ndim <= dim < ndim:
        return dim + ndim if dim < 0 else dim
    need = f"a dim from {-ndim} to {ndim - 1}" if ndim else "Replicate or Partial, since there is no dim"
    raise ShapeError(str(where), got=f"Shard({dim}) on mesh axis {axis} for a {ndim}-D tensor", need=need)


def words(spec: Sequence[Placement]) -> str:
    """Return a spec as it is written in a call."""
    return "[" + ", ".join(repr(placement).replace("dim=", "") for placement in spec) + "]"
