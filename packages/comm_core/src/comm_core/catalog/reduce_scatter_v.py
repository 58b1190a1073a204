"""reduce_scatter_v: every rank gets its own block, of its own size, of the reduction of all ranks' tensors."""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Callable, Sequence
from typing import cast

import torch

from comm_core.catalog.blocks import Fill, beside, check_extent, copied, numels, packed, resized, stacked
from comm_core.catalog.rules import Emit, batch_last, divided, partial_derivative
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.extents import check_sizes, normalize_dim, total
from comm_core.messages import AllOf
from comm_core.pending import Pending
from comm_core.reduce_ops import defined_word, goes_on, reduce_in_rank_order, reduce_into
from comm_core.rows import reduce_rows
from comm_core.tracing import is_traced
from comm_core.transports import Transport

# Bytes that may be taken above a payload, less than a second exchange is worth:
_PAGE = 4096  # as the blocks arrive
_SPARED = 128 << 10  # where they are copied as well before they are sent, as those of a view along dim 0

_Pack = Callable[..., torch.Tensor]  # `packed` of this rank's tensor, as it is filled


def check(x: torch.Tensor, world: int, rank: int, *, reduce_op: object, dim: int, sizes: Sequence[int]) -> Params:
    word = defined_word(reduce_op, x.dtype, "reduce_scatter_v")
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


class Way(enum.Enum):
    """In how many exchanges the blocks move: the ranks have to agree on it, so nothing of one rank alone decides."""

    AT_ONCE = enum.auto()
    BOTH_SIDES = enum.auto()
    IN_PARTS = enum.auto()


def way(shape: Sequence[int], dim: int, sizes: Sequence[int], dtype: torch.dtype) -> Way:
    """Return how blocks move so that a rank takes the room of one payload at most, and of few exchanges.

    Example:
        >>> [way((12, 2000), 0, sizes, torch.int32).name for sizes in ([4, 4, 4], [3, 4, 5], [2, 2, 8])]
        ['AT_ONCE', 'BOTH_SIDES', 'IN_PARTS']
        >>> [way((12, 80_000), 0, [4, 4, 4], dtype).name for dtype in (torch.int8, torch.float8_e5m2)]
        ['BOTH_SIDES', 'IN_PARTS']
    """
    world, numel, itemsize = len(sizes), math.prod(shape), dtype.itemsize
    if world <= 2 or numel == 0:
        return Way.AT_ONCE
    if math.prod(shape[:dim]) > 1:
        return Way.IN_PARTS
    copied = (world - 2) * max(sizes) * math.prod(beside(shape, dim))  # above a payload, for a rank with a view
    if _above(shape, sizes, dim) * itemsize <= _PAGE and copied * itemsize <= _SPARED:
        return Way.AT_ONCE
    apart = goes_on(dtype) and (world - 1) * max(sizes) <= sum(sizes)  # a view's first side is reduced by itself
    return Way.BOTH_SIDES if apart else Way.IN_PARTS


def _above(shape: Sequence[int], sizes: Sequence[int], dim: int) -> int:
    """Return how many elements more than a payload has the largest block takes, once from each rank."""
    return (len(sizes) * max(sizes) - sum(sizes)) * math.prod(beside(shape, dim))


def kernel(
    wire: Transport, x: torch.Tensor, *, reduce_op: str, dim: int, sizes: Shape, fill: Fill | None = None
) -> Pending:
    """Each rank gets all ranks' blocks and reduces them itself: the fewest bytes, and any dtype that moves.

    Blocks that each lie in one piece, as along dim 0, are sent as they are: all at once where they are small; else this
    rank's own goes straight to where the result will be, and those of the ranks after it apart from those before it.
    A rank whose blocks are those of a view makes the same exchanges, one after the other: it copies them, and reduces
    what has come from the ranks before it to have the room again. Other blocks are copied together, in parts where that
    would take more than the room of one payload.
    """
    rank, shape = wire.rank, tuple(x.shape)
    own, counts = resized(shape, dim, sizes[rank]), numels(shape, dim, sizes)
    if is_traced(x):
        return _all_in_a_row(wire, stacked(x, dim, sizes), counts, own, reduce_op)
    how, lies = way(shape, dim, sizes, x.dtype), fill is None and x.is_contiguous() and math.prod(shape[:dim]) == 1
    if how is Way.AT_ONCE and lies and _above(shape, sizes, dim) * x.element_size() <= _PAGE:
        return _all_in_a_row(wire, x.reshape(-1), counts, own, reduce_op)
    blocks, pack = x.split(list(sizes), dim), functools.partial(packed, x, fill=fill or copied)
    result = pack([blocks[rank]]).view(own)
    if how is Way.AT_ONCE:
        return _exchange(wire, pack, blocks, result, None, reduce_op)
    if how is Way.IN_PARTS:
        return _in_parts(wire, pack, blocks, dim, result, reduce_op)
    if lies:
        return _both_sides(wire, x, blocks, result, reduce_op)
    return _one_side_first(wire, pack, blocks, result, reduce_op)


def _all_in_a_row(wire: Transport, row: torch.Tensor, counts: Sequence[int], own: Shape, reduce_op: str) -> Pending:
    """Send the blocks as they lie, this rank's own among them."""
    arrived = wire.all_to_all(row, [counts[wire.rank]] * wire.world, counts)
    return arrived.then(functools.partial(_reduce, reduce_op=reduce_op, shape=(wire.world, *own)), own)


def _both_sides(
    wire: Transport, x: torch.Tensor, blocks: Sequence[torch.Tensor], result: torch.Tensor, reduce_op: str
) -> Pending:
    """Send what comes before and what comes after this rank's own block apart, and reduce what arrives."""
    rank, own, row = wire.rank, result.numel(), x.reshape(-1)
    counts, room = [block.numel() for block in blocks], x.new_empty(own * (wire.world - 1))
    before, after = row[: sum(counts[:rank])], row[sum(counts[: rank + 1]) :]
    works = [_to_after(wire, after, counts, room[: own * rank]), _to_before(wire, before, counts, room[own * rank :])]
    both = Pending(room, AllOf(works), what="reduce_scatter_v")
    both.sends(x)
    return both.then(_reducing(wire, result, reduce_op), tuple(result.shape))


def _one_side_first(
    wire: Transport, pack: _Pack, blocks: Sequence[torch.Tensor], result: torch.Tensor, reduce_op: str
) -> Pending:
    """Make the exchanges of `_both_sides` in the same room, one after the other; the second is under way at the end."""
    rank, world, own = wire.rank, wire.world, result.numel()
    counts = [block.numel() for block in blocks]
    before, after, behind = sum(counts[:rank]), sum(counts[rank + 1 :]), own * rank
    room = result.new_empty(max(after + behind, before + own * (world - 1) - behind))
    sent = pack(blocks[rank + 1 :], room)
    first = _to_after(wire, sent, counts, room[after : after + behind]).wait()
    reduce_into(reduce_op, [*first.view(rank, *result.shape).unbind(0), result], rank, among=1)
    sent = pack(blocks[:rank], room)
    second = _to_before(wire, sent, counts, room[before : before + own * (world - 1) - behind])
    rest = (world - 1 - rank, *result.shape)
    return second.then(
        functools.partial(_reduce_onto, result, reduce_op=reduce_op, shape=rest, among=world), tuple(result.shape)
    )


def _to_after(wire: Transport, row: torch.Tensor, counts: Sequence[int], room: torch.Tensor) -> Pending:
    """Send blocks to the ranks after this one, and receive from those before it."""
    rank, rest = wire.rank, wire.world - wire.rank
    return wire.all_to_all(row, [counts[rank]] * rank + [0] * rest, [0] * (rank + 1) + [*counts[rank + 1 :]], room)


def _to_before(wire: Transport, row: torch.Tensor, counts: Sequence[int], room: torch.Tensor) -> Pending:
    """Send blocks to the ranks before this one, and receive from those after it."""
    rank, rest = wire.rank, wire.world - wire.rank
    return wire.all_to_all(row, [0] * (rank + 1) + [counts[rank]] * (rest - 1), [*counts[:rank]] + [0] * rest, room)


def _in_parts(
    wire: Transport, pack: _Pack, blocks: Sequence[torch.Tensor], dim: int, result: torch.Tensor, reduce_op: str
) -> Pending:
    """Exchange one part after the other, in the same room; the last is under way when this returns."""
    extents = [block.shape[dim] for block in blocks]
    many = math.ceil((sum(extents) + (wire.world - 2) * max(extents)) / sum(extents))
    cut, [within] = _parts(blocks, dim, many), zip(*_parts([result], dim, many), strict=True)
    pending = room = None
    for part, of in zip(cut, within, strict=True):
        if pending is not None:
            pending.wait()
        if room is None:
            others = sum(block.numel() for block in part) - of.numel()
            room = result.new_empty(others), result.new_empty(of.numel() * (wire.world - 1))
        pending = _exchange(wire, pack, part, of, room, reduce_op)
    return cast(Pending, pending).then(functools.partial(_instead, result=result), tuple(result.shape))


def _parts(blocks: Sequence[torch.Tensor], dim: int, many: int) -> list[list[torch.Tensor]]:
    """Cut each of the blocks into so many parts, or a few more, the largest first.

    They are cut along another dim, best one before `dim`, of which a part takes no copy; or where none has so many
    elements, each in a row.
    """
    shape = blocks[0].shape
    others = [place for place in range(len(shape)) if place != dim and shape[place] >= many]
    if others:
        along = max(others, key=lambda place: (place < dim, shape[place]))
        return [[*part] for part in zip(*(block.split(shape[along] // many, along) for block in blocks), strict=True)]
    rows = [block.reshape(-1) for block in blocks]
    steps = [math.ceil(row.shape[0] / many) for row in rows]
    return [
        [row[place * step : (place + 1) * step] for row, step in zip(rows, steps, strict=True)] for place in range(many)
    ]


def _exchange(
    wire: Transport,
    pack: _Pack,
    blocks: Sequence[torch.Tensor],
    result: torch.Tensor,
    room: tuple[torch.Tensor, torch.Tensor] | None,
    reduce_op: str,
) -> Pending:
    """Send the other ranks' blocks, and reduce what arrives and `result`, which is this rank's own block, into that."""
    rank, world = wire.rank, wire.world
    sends = [block.numel() for block in blocks]
    receives = [result.numel()] * world
    receives[rank] = sends[rank] = 0
    others = [*blocks[:rank], *blocks[rank + 1 :]]
    sent = pack(others) if room is None else pack(others, room[0])
    arriving = None if room is None else room[1][: sum(receives)]
    return wire.all_to_all(sent, receives, sends, arriving).then(
        _reducing(wire, result, reduce_op), tuple(result.shape)
    )


def _reducing(wire: Transport, result: torch.Tensor, reduce_op: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the step that reduces what has arrived from the other ranks, and `result`, into that."""
    shape = (wire.world - 1, *result.shape)
    return functools.partial(_reduce_beside, result, reduce_op=reduce_op, rank=wire.rank, shape=shape)


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


def _reduce_onto(result: torch.Tensor, row: torch.Tensor, *, reduce_op: str, shape: Shape, among: int) -> torch.Tensor:
    """Reduce what has been reduced already and the blocks of the ranks after this one, into the former."""
    return reduce_into(reduce_op, [result, *row.view(shape).unbind(0)], 0, among)


def gradient(emit: Emit, cotangent: torch.Tensor, *, reduce_op: str, dim: int, sizes: Shape) -> torch.Tensor:
    gathered = emit("all_gather_v", cotangent, dim=dim, sizes=sizes)
    return divided(gathered, reduce_op, emit.world, own=True)


def partial(emit: Emit, x: torch.Tensor, y: torch.Tensor, *, reduce_op: str, dim: int, sizes: Shape) -> torch.Tensor:
    return partial_derivative(emit, x, y, reduce_op, functools.partial(emit, "all_gather_v", dim=dim, sizes=sizes))


def weighted(
    emit: Emit, cotangent: torch.Tensor, factors: torch.Tensor, *, reduce_op: str, dim: int, sizes: Shape
) -> torch.Tensor:
    counts = tuple(numels(factors.shape, dim, sizes))
    gathered = emit("all_gather_v", cotangent.reshape(-1), dim=0, sizes=counts)
    for block, row in zip(factors.split(list(sizes), dim), gathered.split(counts), strict=True):
        block.mul_(row.view(block.shape))
    return factors


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
    weighted=weighted,
)
