"""Shape arithmetic: how a size is split over ranks, and which dim is meant."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any

import torch

from comm_core.compat import always, holds
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
    divides = size % world == 0
    if divides is not True and not holds(divides):
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
    if any(size is None for size in sizes):
        return None
    different = sizes if are_ints(sizes) else [size for _, size in runs(sizes)]
    return sizes if all(holds(size >= 0) for size in different) else None


def runs(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return sizes as pairs of how many follow each other alike, and that size: a graph has some ops for each.

    Symbolic ones are alike where they are the same whatever they are: no graph is compiled again because two meet.

    Example:
        >>> runs([3, 3, 2, 2, 2])
        [(2, 3), (3, 2)]
    """
    found = [(1, sizes[0])]
    for size in sizes[1:]:
        count, last = found[-1]
        if always(size == last):
            found[-1] = (count + 1, last)
        else:
            found.append((1, size))
    return found


def are_ints(sizes: Sequence[int]) -> bool:
    """Tell whether no size is symbolic; Dynamo shows symbolic ones as ints, so there none is taken for sure."""
    return not torch.compiler.is_dynamo_compiling() and all(type(size) is int for size in sizes)


def times(sizes: Sequence[int], factor: int) -> list[int]:
    """Multiply each size; symbolic ones that follow each other alike once, as a graph has an op for each product.

    Example:
        >>> times([3, 3, 2], 4)
        [12, 12, 8]
    """
    if are_ints([*sizes, factor]):
        return [size * factor for size in sizes]
    return [product for count, size in runs(sizes) for product in [size * factor] * count]


def total(sizes: Sequence[int]) -> int:
    """Add sizes, as `times` multiplies them; Dynamo, which has one op for a sum, walks no loop over them.

    Example:
        >>> total([3, 3, 2])
        8
    """
    if torch.compiler.is_dynamo_compiling() or are_ints(sizes):
        return sum(sizes)
    return sum(count * size for count, size in runs(sizes))


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
