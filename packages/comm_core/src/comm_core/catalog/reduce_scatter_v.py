"""reduce_scatter_v: every rank gets its own block, of its own size, of the reduction of all ranks' tensors."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from comm_core.catalog.blocks import check_extent, numels, packed, resized, stacked
from comm_core.catalog.rules import Emit, batch_last, partial_derivative
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.extents import check_sizes, normalize_dim
from comm_core.pending import Pending
from comm_core.reduce_ops import REDUCE_OPS, check_dtype, reduce_in_rank_order, reduce_into, reduce_word
from comm_core.transports import Transport


def check(x: torch.Tensor, world: int, rank: int, *, reduce_op: object, dim: int, sizes: Sequence[int]) -> Params:
    word = reduce_word(reduce_op, "reduce_scatter_v")
    check_dtype(word, x.dtype, "reduce_scatter_v")
    dim = normalize_dim(dim, x.ndim, "reduce_scatter_v")
    sizes = check_sizes(sizes, world, "reduce_scatter_v")
    check_extent(x, dim, sum(sizes), "the sum of the sizes", "reduce_scatter_v")
    return {"reduce_op": word, "dim": dim, "sizes": sizes}


def agrees(x: torch.Tensor, *, reduce_op: str, dim: int, sizes: Shape) -> tuple[object, ...]:
    facts = ("device", x.device.type, "dtype", x.dtype, "shape", tuple(x.shape))
    return (*facts, "reduce op", reduce_op, "dim", dim, "sizes", sizes)


def shape(shape: Shape, world: int, rank: int, *, reduce_op: str, dim: int, sizes: Shape) -> Shape:
    return resized(shape, dim, sizes[rank])


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    total = reduce_in_rank_order(params[0]["reduce_op"], inputs)
    parts = total.split(list(params[0]["sizes"]), params[0]["dim"])
    return [part.clone(memory_format=torch.contiguous_format) for part in parts]


def kernel(wire: Transport, x: torch.Tensor, *, reduce_op: str, dim: int, sizes: Shape) -> Pending:
    """Each rank gets all ranks' blocks and reduces them itself: the fewest bytes, and any dtype that moves.

    Along dim 0 nothing is copied before it is sent. Along another dim the other ranks' blocks are, and this rank's own
    goes straight to where the result will be, so that in a group of 2 both ways take the room of one payload.
    """
    rank, world = wire.rank, wire.world
    own, counts = resized(tuple(x.shape), dim, sizes[rank]), numels(x.shape, dim, sizes)
    if dim == 0:
        arrived = wire.all_to_all(stacked(x, dim, sizes), [counts[rank]] * world, counts)
        return arrived.then(functools.partial(_reduce, reduce_op=reduce_op, shape=(world, *own)), own)
    blocks = list(x.split(list(sizes), dim))
    result = blocks.pop(rank).clone(memory_format=torch.contiguous_format)
    receives, sends = [counts[rank]] * world, list(counts)
    receives[rank] = sends[rank] = 0
    beside = functools.partial(_reduce_beside, result, reduce_op=reduce_op, rank=rank, shape=(world - 1, *own))
    return wire.all_to_all(packed(x, blocks), receives, sends).then(beside, own)


def _reduce(row: torch.Tensor, *, reduce_op: str, shape: Shape) -> torch.Tensor:
    """Reduce blocks that lie in a row, into a tensor of its own."""
    first, *others = row.view(shape).unbind(0)
    return reduce_into(reduce_op, [first.clone(), *others], 0)


def _reduce_beside(result: torch.Tensor, row: torch.Tensor, *, reduce_op: str, rank: int, shape: Shape) -> torch.Tensor:
    """Reduce the other ranks' blocks and this one's, into this one's."""
    blocks = list(row.view(shape).unbind(0))
    blocks.insert(rank, result)
    return reduce_into(reduce_op, blocks, rank)


def gradient(emit: Emit, cotangent: torch.Tensor, *, reduce_op: str, dim: int, sizes: Shape) -> torch.Tensor:
    gathered = emit("all_gather_v", cotangent, dim=dim, sizes=sizes)
    return gathered / emit.world if REDUCE_OPS[reduce_op].divides else gathered


def partial(emit: Emit, x: torch.Tensor, y: torch.Tensor, *, reduce_op: str, dim: int, sizes: Shape) -> torch.Tensor:
    return partial_derivative(emit, x, emit("all_gather_v", y, dim=dim, sizes=sizes), reduce_op)


def wire_bytes(input_bytes: int, world: int, rank: int, *, reduce_op: str, dim: int, sizes: Shape) -> int:
    total = sum(sizes)
    return input_bytes * (total - sizes[rank]) // total if total else 0


REDUCE_SCATTER_V = Collective(
    name="reduce_scatter_v",
    summary="Every rank gets its own block, of its own size, of the reduction of all ranks' tensors.",
    schema="reduce_scatter_v(Tensor x, *, str reduce_op, int dim, int[] sizes) -> Tensor",
    check=check,
    agrees=agrees,
    shape=shape,
    oracle=oracle,
    kernel=kernel,
    gradient=gradient,
    identity=gradient,
    partial=partial,
    batch=batch_last,
    twin=missing("torch's reduce-scatter needs equal sizes: it is all_to_all_single and a reduction of what arrives"),
    in_place=missing("the result is smaller than the input"),
    wire_bytes=wire_bytes,
    lowering=Lowering.COMPOSITE,
)
