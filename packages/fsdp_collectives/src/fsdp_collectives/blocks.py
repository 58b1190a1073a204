"""Slots as views: which part of a lane's buffer belongs to which rows of a tensor.

All views, whatever the strides of the tensor, so that one `copy_` between a pair moves, casts and rearranges at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import torch

from comm_core.errors import ArgumentError, DtypeError, ShapeError
from fsdp_collectives.lanes import Lane, Slot, TensorSpec

Tensors = Sequence[torch.Tensor] | Mapping[str, torch.Tensor]
Pair = tuple[torch.Tensor, torch.Tensor]
X = TypeVar("X")


def own_rows(slot: Slot, block: torch.Tensor) -> torch.Tensor:
    """Return a slot of one rank's block as rows.

    Shapes: `(block_numel,)` -> `(slot.rows, *row_shape)`, a view.
    """
    return block.narrow(0, slot.offset, slot.numel).unflatten(0, (slot.rows, *slot.spec.row_shape))


def all_rows(slot: Slot, lane: Lane, buffer: torch.Tensor, world: int) -> torch.Tensor:
    """Return a slot of all ranks' blocks as rows.

    Shapes: `(world * block_numel,)` -> `(world, slot.rows, *row_shape)`, a view.
    """
    blocks = buffer.view(world, lane.block_numel).narrow(1, slot.offset, slot.numel)
    return blocks.unflatten(1, (slot.rows, *slot.spec.row_shape))


def paired(slot: Slot, rows: torch.Tensor, full: torch.Tensor) -> Iterator[Pair]:
    """Pair the slot's rows in a buffer with the rows of the whole tensor: at most two pairs of equal shapes.

    Shapes: `rows` as `all_rows` returns; `full` of the spec's shape, with any strides.
    """
    full = as_rows(full)
    filled = slot.spec.rows // slot.rows if slot.rows else 0  # ranks whose rows are all there
    split = filled * slot.rows
    if filled:
        yield rows[:filled], full[:split].unflatten(0, (filled, slot.rows))
    if split < slot.spec.rows:
        yield rows[filled, : slot.spec.rows - split], full[split:]


def padding(slot: Slot, rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """Return the slot's rows in a buffer that belong to no row of the tensor."""
    filled = slot.spec.rows // slot.rows if slot.rows else 0
    rest = slot.spec.rows - filled * slot.rows
    if rest:
        yield rows[filled, rest:]
    yield rows[filled + (rest > 0) :]


def as_rows(x: torch.Tensor) -> torch.Tensor:
    """Return a view with a dim 0: a 0-D tensor is one row."""
    return x if x.ndim else x.view(1)


def in_order(where: str, specs: Sequence[TensorSpec], tensors: Sequence[X] | Mapping[str, X]) -> list[X]:
    """Return tensors given as a sequence or by name in the plan's order.

    Raises:
        ArgumentError: not one tensor for each of the plan's.
    """
    if isinstance(tensors, Mapping):
        missing = [spec.name for spec in specs if spec.name not in tensors]
        if missing or len(tensors) != len(specs):
            raise ArgumentError(
                where, got=f"tensors named {sorted(tensors)}", need=f"the plan's: {[s.name for s in specs]}"
            )
        return [tensors[spec.name] for spec in specs]
    if len(tensors) != len(specs):
        raise ArgumentError(where, got=f"{len(tensors)} tensors", need=f"the plan's {len(specs)}")
    return list(tensors)


def check_tensor(where: str, x: object, shape: tuple[int, ...], dtype: torch.dtype | None) -> None:
    """Refuse a tensor that is not what the plan was made for.

    Raises:
        DtypeError: not a plain tensor, or of another dtype (None takes any floating-point or the like).
        ShapeError: of another shape.
    """
    if not isinstance(x, torch.Tensor) or hasattr(x, "to_local"):
        raise DtypeError(
            where, got=f"a {type(x).__name__}", need="a plain tensor", hint="pass x.to_local() of a DTensor"
        )
    if tuple(x.shape) != shape:
        raise ShapeError(where, got=f"shape {tuple(x.shape)}", need=f"shape {shape}")
    if dtype is not None and x.dtype != dtype:
        raise DtypeError(where, got=f"{x.dtype}", need=f"{dtype}, as the plan says")


def one_device(where: str, tensors: Sequence[torch.Tensor]) -> torch.device:
    """Return the device that all tensors are on; the CPU when there are none.

    Raises:
        ArgumentError: they are on several.
    """
    devices = {x.device for x in tensors}
    if len(devices) > 1:
        raise ArgumentError(where, got=f"tensors on {sorted(map(str, devices))}", need="one device")
    return devices.pop() if devices else torch.device("cpu")


def shard_of(spec: TensorSpec, full: torch.Tensor, world: int, rank: int) -> torch.Tensor:
    """Return a rank's rows of a whole tensor, as a view.

    Shapes: `spec.shape` -> `spec.shard_shape(world, rank)`.

    Raises:
        ShapeError: the tensor does not have the spec's shape.
        DtypeError: it is not a plain tensor.

    Example:
        >>> spec = TensorSpec("bias", (3,), torch.float32)
        >>> [shard_of(spec, torch.arange(3.0), 2, rank).tolist() for rank in range(2)]
        [[0.0, 1.0], [2.0]]
    """
    check_tensor(spec.where, full, spec.shape, None)
    if spec.dim is None:
        return full
    counts = spec.shard_rows(world)
    return as_rows(full).narrow(0, sum(counts[:rank]), counts[rank])
