"""reduce_scatter_v: every rank gets its own block, of its own size, of the reduction of all ranks' tensors."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import cast

import torch

from comm_core.catalog.blocks import beside, check_extent, numels, packed, resized, stacked
from comm_core.catalog.rules import Emit, batch_last, divided, partial_derivative
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.extents import check_sizes, normalize_dim, total
from comm_core.messages import AllOf
from comm_core.pending import Pending
from comm_core.reduce_ops import check_dtype, reduce_in_rank_order, reduce_into, reduce_word
from comm_core.rows import reduce_rows
from comm_core.tracing import is_traced
from comm_core.transports import Transport

_PAGE = 4096  # bytes that blocks may take above a payload as they arrive: less than a second exchange is worth


def check(x: torch.Tensor, world: int, rank: int, *, reduce_op: object, dim: int, sizes: Sequence[int]) -> Params:
    word = reduce_word(reduce_op, "reduce_scatter_v")
    check_dtype(word, x.dtype, "reduce_scatter_v")
    dim = normalize_dim(dim, x.ndim, "reduce_scatter_v")
    sizes = check_sizes(sizes, world, "reduce_scatter_v")
    check_extent(x, dim, total(sizes), "the sum of the sizes", "reduce_scatter_v")
    return {"reduce_op": word, "dim": dim, "sizes": sizes}


def agrees(x: torch.Tensor, *, reduce_op: str, dim: int, sizes: Shape) -> tuple[object, ...]:
    facts = ("device", x.device.type, "dtype", x.dtype, "shape", tuple(x.shape))
    return (*facts, "reduce op", reduce_op, "dim", dim, "sizes", sizes)


def shape(shape: Shape, world: int, rank: int, *, reduce_op: str, dim: int, sizes: Shape) -> Shape:
    return resized(shape, dim, sizes[rank])


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    reduced = reduce_in_rank_order(params[0]["reduce_op"], inputs)
    parts = reduced.split(list(params[0]["sizes"]), params[0]["dim"])
    return [part.clone(memory_format=torch.contiguous_format) for part in parts]


def kernel(wire: Transport, x: torch.Tensor, *, reduce_op: str, dim: int, sizes: Shape) -> Pending:
    """Each rank gets all ranks' blocks and reduces them itself: the fewest bytes, and any dtype that moves.

    It takes the room of one payload at most, beside the result. Blocks that each lie in one piece, as along dim 0, are
    sent as they are: all at once where they are nearly even; else this rank's own goes straight to where the result
    will be, and those of the ranks after it apart from those before it. Other blocks are copied together, in parts
    where that would take more.
    """
    rank, world = wire.rank, wire.world
    own, counts = resized(tuple(x.shape), dim, sizes[rank]), numels(x.shape, dim, sizes)
    in_pieces = not is_traced(x) and x.is_contiguous() and math.prod(x.shape[:dim]) == 1
    if is_traced(x) or (in_pieces and (world * max(counts) - x.numel()) * x.element_size() <= _PAGE):
        row = stacked(x, dim, sizes) if is_traced(x) else x.reshape(-1)
        arrived = wire.all_to_all(row, [counts[rank]] * world, counts)
        return arrived.then(functools.partial(_reduce, reduce_op=reduce_op, shape=(world, *own)), own)
    blocks = x.split(list(sizes), dim)
    result = blocks[rank].clone(memory_format=torch.contiguous_format)
    if world <= 2 or x.numel() == 0:
        return _exchange(wire, x, blocks, result, None, reduce_op)
    if in_pieces and (world - 1) * max(sizes) <= sum(sizes):
        return _both_sides(wire, x, counts, result, reduce_op)
    return _in_parts(wire, blocks, dim, result, in_pieces, reduce_op)


def _both_sides(
    wire: Transport, x: torch.Tensor, counts: Sequence[int], result: torch.Tensor, reduce_op: str
) -> Pending:
    """Send what comes before and what comes after this rank's own block, each as it lies, and reduce what arrives."""
    rank, world, own = wire.rank, wire.world, result.numel()
    row, room = x.reshape(-1), x.new_empty(own * (world - 1))
    start, end, before = sum(counts[:rank]), sum(counts[: rank + 1]), [peer < rank for peer in range(world)]
    after = [peer > rank for peer in range(world)]
    works = [
        wire.all_to_all(row[end:], _where(before, [own] * world), _where(after, counts), room[: own * rank]),
        wire.all_to_all(row[:start], _where(after, [own] * world), _where(before, counts), room[own * rank :]),
    ]
    shape = (world - 1, *result.shape)
    beside = functools.partial(_reduce_beside, result, reduce_op=reduce_op, rank=rank, shape=shape)
    return Pending(room, AllOf(works), what="reduce_scatter_v").then(beside, tuple(result.shape))


def _in_parts(
    wire: Transport, blocks: Sequence[torch.Tensor], dim: int, result: torch.Tensor, in_pieces: bool, reduce_op: str
) -> Pending:
    """Exchange one part after the other, in the same room; the last is under way when this returns."""
    extents, x = [block.shape[dim] for block in blocks], blocks[0]
    many = math.ceil((sum(extents) + (wire.world - 2) * max(extents)) / sum(extents))
    in_rows = in_pieces or math.prod(beside(x.shape, dim)) == 1
    cut = _pieces(blocks, many) if in_rows else _slices(blocks, dim, many)
    within = _pieces([result], many) if in_rows else _slices([result], dim, many)
    pending = room = None
    for part, [of] in zip(cut, within, strict=True):
        if pending is not None:
            pending.wait()
        if room is None:
            others = sum(block.numel() for block in part) - of.numel()
            room = x.new_empty(others), x.new_empty(of.numel() * (wire.world - 1))
        pending = _exchange(wire, x, part, of, room, reduce_op)
    return cast(Pending, pending).then(functools.partial(_instead, result=result), tuple(result.shape))


def _where(these: Sequence[bool], counts: Sequence[int]) -> list[int]:
    """Return the counts of these ranks, and none of the others."""
    return [count if this else 0 for this, count in zip(these, counts, strict=True)]


def _pieces(blocks: Sequence[torch.Tensor], many: int) -> list[list[torch.Tensor]]:
    """Cut blocks, each of which lies in one piece, into so many parts, the largest first."""
    rows = [block.reshape(-1) for block in blocks]
    steps = [math.ceil(row.shape[0] / many) for row in rows]
    return [
        [row[place * step : (place + 1) * step] for row, step in zip(rows, steps, strict=True)] for place in range(many)
    ]


def _slices(blocks: Sequence[torch.Tensor], dim: int, many: int) -> list[list[torch.Tensor]]:
    """Cut blocks along another dim, one before `dim` if there is one, into so many parts or more, the largest first.

    Where it has fewer rows, there are as many parts.
    """
    shape = blocks[0].shape
    others = [place for place in range(len(shape)) if place != dim]
    along = max(others, key=lambda place: (place < dim and shape[place] > 1, shape[place]))
    step = max(1, shape[along] // many)
    return [[*part] for part in zip(*(block.split(step, along) for block in blocks), strict=True)]


def _exchange(
    wire: Transport,
    x: torch.Tensor,
    blocks: Sequence[torch.Tensor],
    result: torch.Tensor,
    room: tuple[torch.Tensor, torch.Tensor] | None,
    reduce_op: str,
) -> Pending:
    """Send the other ranks' blocks, and reduce what arrives and `result`, which is this rank's own block, into that."""
    rank, world = wire.rank, wire.world
    own, sends = tuple(result.shape), [block.numel() for block in blocks]
    receives = [result.numel()] * world
    receives[rank] = sends[rank] = 0
    others = [*blocks[:rank], *blocks[rank + 1 :]]
    sent = packed(x, others) if room is None else packed(x, others, room[0])
    arriving = None if room is None else room[1][: sum(receives)]
    beside = functools.partial(_reduce_beside, result, reduce_op=reduce_op, rank=rank, shape=(world - 1, *own))
    return wire.all_to_all(sent, receives, sends, arriving).then(beside, own)


def _instead(part: torch.Tensor, *, result: torch.Tensor) -> torch.Tensor:
    return result


def _reduce(row: torch.Tensor, *, reduce_op: str, shape: Shape) -> torch.Tensor:
    """Reduce blocks that lie in a row, into a tensor of its own."""
    return reduce_rows(row.view(shape), reduce_op)


def _reduce_beside(result: torch.Tensor, row: torch.Tensor, *, reduce_op: str, rank: int, shape: Shape) -> torch.Tensor:
    """Reduce the other ranks' blocks and this one's, into this one's."""
    blocks = list(row.view(shape).unbind(0))
    blocks.insert(rank, result)
    return reduce_into(reduce_op, blocks, rank)


def gradient(emit: Emit, cotangent: torch.Tensor, *, reduce_op: str, dim: int, sizes: Shape) -> torch.Tensor:
    gathered = emit("all_gather_v", cotangent, dim=dim, sizes=sizes)
    return divided(gathered, reduce_op, emit.world)


def partial(emit: Emit, x: torch.Tensor, y: torch.Tensor, *, reduce_op: str, dim: int, sizes: Shape) -> torch.Tensor:
    return partial_derivative(emit, x, emit("all_gather_v", y, dim=dim, sizes=sizes), reduce_op)


def wire_bytes(input_bytes: int, world: int, rank: int, *, reduce_op: str, dim: int, sizes: Shape) -> int:
    extent = sum(sizes)
    return input_bytes * (extent - sizes[rank]) // extent if extent else 0


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
