"""Blocks of uneven sizes along a dim: what the entries share whose ranks hold or get different sizes.

On the wire a block is its elements in a row, so that no dim has to be moved to the front: whoever gets several blocks
joins them along the dim in the one copy that this takes anyway, and needs none for dim 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch

from comm_core.collective import Shape
from comm_core.compat import holds
from comm_core.errors import ShapeError
from comm_core.extents import runs, times, total
from comm_core.pending import Pending
from comm_core.tracing import is_traced

Fill = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Writes a block, however it lies, to a row of as many elements, and returns that in the block's shape.

A kernel that is given one may send nothing of its tensor as it lies: what is sent is what the fill writes.
"""
_COPIED_IN_A_ROW = {
    torch.float4_e2m1fn_x2,
    *(getattr(torch, f"{kind}{bits}") for kind in ("int", "uint") for bits in range(1, 8)),
}


def copied(row: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    """Copy a block: the fill of a tensor whose memory holds other values, such as their conjugates."""
    into = row.view(block.shape)
    if block.dtype in _COPIED_IN_A_ROW:
        into.view(torch.uint8).copy_(block.detach().view(torch.uint8))
        return into
    return into.copy_(block.detach())


def multiplied(row: torch.Tensor, block: torch.Tensor, *, factor: complex | torch.Tensor) -> torch.Tensor:
    """Multiply a block while it is copied.

    Example:
        >>> multiplied(torch.empty(4), torch.ones(2, 2), factor=3.0).tolist()
        [[3.0, 3.0], [3.0, 3.0]]
    """
    factor = factor.detach() if isinstance(factor, torch.Tensor) else factor
    if block.is_conj() or block.is_neg():  # which torch would first copy
        return copied(row, block).mul_(factor)
    return torch.mul(block.detach(), factor, out=row.view(block.shape))


def ready(x: torch.Tensor, fill: Fill | None = None) -> torch.Tensor:
    """Return a contiguous tensor to send: the one that is given, where it lies so and there is no fill."""
    if fill is None:
        return x.contiguous()
    return fill(torch.empty(x.numel(), dtype=x.dtype, device=x.device), x)


def beside(shape: Sequence[int], dim: int) -> Shape:
    """Return the shape without a dim."""
    return (*shape[:dim], *shape[dim + 1 :])


def resized(shape: Sequence[int], dim: int, size: int) -> Shape:
    """Return the shape with another size of a dim."""
    return (*shape[:dim], size, *shape[dim + 1 :])


def check_extent(x: torch.Tensor, dim: int, need: int, said: str, where: str) -> None:
    """Refuse a tensor that has not the size along a dim which the sizes say.

    Raises:
        ShapeError: it has another.
    """
    if not holds(x.shape[dim] == need):
        raise ShapeError(where, got=f"size {x.shape[dim]} in dim {dim}", need=f"size {need}, {said}")


def numels(shape: Sequence[int], dim: int, sizes: Sequence[int]) -> list[int]:
    """Return how many elements blocks of these sizes have."""
    return times(sizes, math.prod(beside(shape, dim)))


def stacked(x: torch.Tensor, dim: int, sizes: Sequence[int], fill: Fill | None = None) -> torch.Tensor:
    """Return the blocks of `x` along a dim as one row of elements: one copy, none for dim 0 of a contiguous tensor."""
    if dim == 0:
        return ready(x, fill).reshape(-1)
    if not is_traced(x):
        return packed(x, x.split(list(sizes), dim), fill=fill or copied)
    alike = runs(sizes)
    parts = x.split([count * size for count, size in alike], dim)
    rows = [
        part.reshape(-1) if count == 1 else part.unflatten(dim, (count, size)).movedim(dim, 0).reshape(-1)
        for part, (count, size) in zip(parts, alike, strict=True)
    ]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def packed(
    like: torch.Tensor, blocks: Sequence[torch.Tensor], room: torch.Tensor | None = None, fill: Fill = copied
) -> torch.Tensor:
    """Return blocks as one row of elements, at the begin of `room` where it is given: one copy, however they lie."""
    count = sum(block.numel() for block in blocks)
    row = torch.empty(count, dtype=like.dtype, device=like.device) if room is None else room[:count]
    start = 0
    for block in blocks:
        fill(row[start : start + block.numel()], block)
        start += block.numel()
    return row


def in_place(
    x: torch.Tensor, dim: int, counts: Sequence[int], rank: int, fill: Fill | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a rank's block to send and, where it was copied into its place there, the room to gather all blocks in.

    So a block that is not contiguous takes no room of its own. Along dim 0 the room would be the result's, which may be
    given: the copy stands alone there.

    Args:
        x: the block.
        dim: what blocks are gathered along, in the end.
        counts: how many elements of each rank arrive here.
        rank: this rank.
        fill: how the block is copied, where it has to be.
    """
    if dim == 0 or counts[rank] != x.numel() or is_traced(x) or (fill is None and x.is_contiguous()):
        return ready(x, fill), None
    room = torch.empty(sum(counts), dtype=x.dtype, device=x.device)
    return (fill or copied)(room.split(list(counts))[rank], x), room


def viewed(pending: Pending, shape: Shape) -> Pending:
    """Add the step that gives a row of elements a shape."""
    return pending.then(functools.partial(_view, shape=shape), shape)


def _view(row: torch.Tensor, *, shape: Shape) -> torch.Tensor:
    return row.view(shape)


def joined(pending: Pending, shape: Sequence[int], dim: int, sizes: Sequence[int]) -> Pending:
    """Add the step that makes of a row of elements the blocks of these sizes, side by side along a dim."""
    whole = resized(shape, dim, total(sizes))
    return pending.then(functools.partial(_join, shape=whole, dim=dim, sizes=tuple(sizes)), whole)


def _join(row: torch.Tensor, *, shape: Shape, dim: int, sizes: Shape) -> torch.Tensor:
    if dim == 0:
        return row.view(shape)
    alike = runs(sizes) if is_traced(row) else [(1, size) for size in sizes]
    parts = row.split(numels(shape, dim, [count * size for count, size in alike]))
    blocks = [
        part.view(resized(shape, dim, size)) if count == 1 else side_by_side(part, shape, dim, count, size)
        for part, (count, size) in zip(parts, alike, strict=True)
    ]
    return blocks[0].contiguous() if len(blocks) == 1 else concatenated(blocks, dim)


def concatenated(blocks: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    """Concatenate tensors along a dim; as bytes where torch has no copies of the dtype but in a row.

    Example:
        >>> concatenated([torch.tensor([[1], [2]]), torch.tensor([[3], [4]])], 1).tolist()
        [[1, 3], [2, 4]]
    """
    dtype = blocks[0].dtype
    if dtype not in _COPIED_IN_A_ROW:
        return torch.cat(list(blocks), dim)
    return torch.cat([block.view(torch.uint8) for block in blocks], dim).view(dtype)


def side_by_side(row: torch.Tensor, shape: Sequence[int], dim: int, count: int, size: int) -> torch.Tensor:
    """Return blocks of one size that lie one behind the other as one tensor, side by side along a dim."""
    return row.view(count, *resized(shape, dim, size)).movedim(0, dim).reshape(resized(shape, dim, count * size))
