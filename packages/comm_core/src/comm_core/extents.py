"""Shape arithmetic: how a size is split over ranks, and which dim is meant."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any

import torch

from comm_core.compat import holds
from comm_core.errors import ShapeError, said


def integer(value: object) -> Any:
    """Return a whole number, known or symbolic, as an int or `SymInt`; None for a bool, a tensor and anything else.

    Example:
        >>> integer(3), integer(3.0), integer(True)
        (3, None, None)
    """
    if isinstance(value, (int, torch.SymInt)):
        return None if isinstance(value, bool) else value
    if isinstance(value, torch.Tensor) or not hasattr(value, "__index__"):
        return None
    return operator.index(value)  # such as numpy's integers


def ceil_div(size: int, parts: int) -> int:
    """Divide and round up.

    Example:
        >>> ceil_div(7, 3)
        3
    """
    return -(-size // parts)


def normalize_dim(dim: int, ndim: int, where: str) -> int:
    """Return the dim counted from the front; negative dims count from the back.

    Raises:
        ShapeError: the tensor has no such dim.

    Example:
        >>> normalize_dim(-1, 3, "all_gather")
        2
    """
    if type(dim) is int and 0 <= dim < ndim:
        return dim
    place = integer(dim)
    if place is None or not -ndim <= place < ndim:
        raise ShapeError(
            where,
            got=f"dim {said(dim)} for a {ndim}-D tensor",
            need=f"an int from {-ndim} to {ndim - 1}" if ndim else "a tensor of at least one dim",
            hint="dim=-1 is the last dim" if ndim else "use x.reshape(1) to give a 0-D tensor a dim",
        )
    return int(place % ndim)


def even_split(size: int, world: int, where: str, dim: int = 0) -> int:
    """Return one rank's share of a size that must divide evenly.

    Raises:
        ShapeError: it does not.

    Example:
        >>> even_split(12, 4, "reduce_scatter")
        3
    """
    if not holds(size % world == 0):
        raise ShapeError(
            where,
            got=f"size {size} in dim {dim}",
            need=f"a multiple of the group size {world}",
            hint=f"pad dim {dim} to {ceil_div(size, world) * world}",
        )
    return size // world


def sizes_of(values: object, world: int) -> tuple[int, ...] | None:
    """Return one size, known or symbolic, for each rank; None where the values are none.

    Example:
        >>> sizes_of([3, 0], 2), sizes_of([3], 2), sizes_of([3, -1], 2), sizes_of([3, True], 2)
        ((3, 0), None, None, None)
    """
    if not isinstance(values, (list, tuple)) or len(values) != world:
        return None
    sizes = tuple(integer(value) for value in values)
    return sizes if all(size is not None and holds(size >= 0) for size in sizes) else None


def check_sizes(sizes: object, world: int, where: str) -> tuple[int, ...]:
    """Return the sizes of all ranks' blocks along a dim.

    Raises:
        ShapeError: not one size for each rank.

    Example:
        >>> check_sizes([3, 0], 2, "all_gather_v")
        (3, 0)
    """
    parsed = sizes_of(sizes, world)
    if parsed is None:
        raise ShapeError(where, got=f"sizes {said(sizes)}", need=f"one size of at least 0 for each of {world} ranks")
    return parsed


def chunk_sizes(size: int, world: int) -> list[int]:
    """Return the sizes that `torch.chunk` gives, with zeros for the ranks that get nothing.

    Example:
        >>> chunk_sizes(10, 4), chunk_sizes(3, 4)
        ([3, 3, 3, 1], [1, 1, 1, 0])
    """
    whole = ceil_div(size, world)
    return [max(0, min(whole, size - rank * whole)) for rank in range(world)]


def even_sizes(size: int, world: int) -> list[int]:
    """Return the sizes that `torch.tensor_split` gives: they differ by one at most.

    Example:
        >>> even_sizes(10, 4), even_sizes(2, 3)
        ([3, 3, 2, 2], [1, 1, 0])
    """
    share, left = size // world, size % world
    return [share + 1 if rank < left else share for rank in range(world)]


def offsets(sizes: Sequence[int]) -> list[int]:
    """Return where each of consecutive blocks starts.

    Example:
        >>> offsets([3, 1, 2])
        [0, 3, 4]
    """
    return list(itertools.accumulate(sizes, initial=0))[:-1]
