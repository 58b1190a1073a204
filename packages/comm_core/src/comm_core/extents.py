"""Shape arithmetic: how a size is split over ranks, and which dim is meant."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from comm_core.compat import holds
from comm_core.errors import ShapeError, said


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
    if not isinstance(dim, int) or isinstance(dim, bool) or not -ndim <= dim < ndim:
        raise ShapeError(
            where,
            got=f"dim {said(dim)} for a {ndim}-D tensor",
            need=f"an int from {-ndim} to {ndim - 1}" if ndim else "a tensor of at least one dim",
            hint="dim=-1 is the last dim" if ndim else "use x.reshape(1) to give a 0-D tensor a dim",
        )
    return int(dim % ndim)


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


def is_size(size: object) -> bool:
    """Tell whether a value is a size, known or symbolic.

    Example:
        >>> is_size(0), is_size(-1), is_size(True)
        (True, False, False)
    """
    return isinstance(size, (int, torch.SymInt)) and not isinstance(size, bool) and holds(size >= 0)


def check_sizes(sizes: object, world: int, where: str) -> tuple[int, ...]:
    """Return the sizes of all ranks' blocks along a dim.

    Raises:
        ShapeError: not one size for each rank.

    Example:
        >>> check_sizes([3, 0], 2, "all_gather_v")
        (3, 0)
    """
    if not isinstance(sizes, (list, tuple)) or len(sizes) != world or any(not is_size(size) for size in sizes):
        raise ShapeError(where, got=f"sizes {said(sizes)}", need=f"one size of at least 0 for each of {world} ranks")
    return tuple(sizes)


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
