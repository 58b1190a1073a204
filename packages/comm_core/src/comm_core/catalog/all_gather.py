"""all_gather: every rank gets all ranks' tensors, concatenated along a dim."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from comm_core.catalog.blocks import Fill, concatenated, in_place, ready
from comm_core.catalog.rules import Emit, batch_last
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.extents import normalize_dim
from comm_core.pending import Pending
from comm_core.transports import Transport, enlarged

_MANY = 16  # From so many ranks on a join is one strided copy: as fast, but for narrow rows, and no node for each rank.


def check(x: torch.Tensor, world: int, rank: int, *, dim: int) -> Params:
    return {"dim": normalize_dim(dim, x.ndim, "all_gather")}


def agrees(x: torch.Tensor, *, dim: int) -> tuple[object, ...]:
    return ("device", x.device.type, "dtype", x.dtype, "shape", tuple(x.shape), "dim", dim)


def shape(shape: Shape, world: int, rank: int, *, dim: int) -> Shape:
    return (*shape[:dim], shape[dim] * world, *shape[dim + 1 :])


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    return [concatenated(inputs, params[0]["dim"]) for _ in inputs]


def kernel(wire: Transport, x: torch.Tensor, *, dim: int, fill: Fill | None = None) -> Pending:
    """Gather along dim 0; along another dim what arrived is rearranged in one copy, the only one also of a view."""
    if dim == 0:
        return wire.all_gather(ready(x, fill))
    sent, room = in_place(x, dim, [x.numel()] * wire.world, wire.rank, fill)
    pending = wire.all_gather(sent, None if room is None else room.view(enlarged(x, wire.world * x.shape[0])))
    join = functools.partial(_join, world=wire.world, dim=dim)
    return pending.then(join, shape(tuple(x.shape), wire.world, wire.rank, dim=dim))


def _join(blocks: torch.Tensor, *, world: int, dim: int) -> torch.Tensor:
    """Turn blocks stacked along dim 0 into blocks along `dim`: one copy."""
    apart = blocks.unflatten(0, (world, blocks.shape[0] // world))
    if world > _MANY:
        return apart.movedim(0, dim).contiguous().flatten(dim, dim + 1)
    return concatenated(apart.unbind(0), dim)


def gradient(emit: Emit, cotangent: torch.Tensor, *, dim: int) -> torch.Tensor:
    return emit("reduce_scatter", cotangent, reduce_op="sum", dim=dim)


def identity(emit: Emit, cotangent: torch.Tensor, *, dim: int) -> torch.Tensor:
    size = cotangent.shape[dim] // emit.world
    return cotangent.narrow(dim, emit.rank * size, size)


def wire_bytes(input_bytes: int, world: int, rank: int, *, dim: int) -> int:
    return input_bytes * (world - 1)


ALL_GATHER = Collective(
    name="all_gather",
    summary="Every rank gets all ranks' tensors, concatenated along a dim.",
    schema="all_gather(Tensor x, *, int dim) -> Tensor",
    check=check,
    agrees=agrees,
    shape=shape,
    oracle=oracle,
    kernel=kernel,
    gradient=gradient,
    identity=identity,
    partial=missing("the collective is linear"),
    batch=batch_last,
    twin="all_gather_into_tensor",
    in_place=missing("the result is larger than the input"),
    wire_bytes=wire_bytes,
    lowering=Lowering.OUT_OF_PLACE,
)
