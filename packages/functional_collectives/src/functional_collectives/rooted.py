"""Collectives with a root: one rank that gets everything, or gives everything.

Dynamo walks this file, so it stays plain. Torch's module has none of these functions. Ranks are positions in the group,
which in a sub-group are not global ranks. Both conventions of a gradient agree here, as no two ranks get the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

import comm_core
from comm_core import GroupLike
from comm_core.catalog import GATHER, REDUCE, SCATTER
from comm_core.checking import refusing
from comm_core.extents import check_sizes, even_split, normalize_dim
from comm_core.settling import arrived
from functional_collectives.collectives import asked, parsed_group
from functional_collectives.flight import in_flight


def gather(
    x: torch.Tensor,
    dst: int,
    gather_dim: int = 0,
    group: GroupLike = None,
    *,
    sizes: Sequence[int] | None = None,
    backward: str = "adjoint",
) -> torch.Tensor:
    """Concatenate all ranks' tensors along a dim, on one rank.

    Args:
        x: this rank's tensor.
        dst: the rank that gets the concatenation.
        gather_dim: the dim to concatenate along; negative counts from the back.
        group: anything that `comm_core.as_group` takes; None is the default group.
        sizes: every rank's size of that dim, alike on all ranks; None where all have the same.
        backward: the gradient's convention, `"adjoint"` or `"identity"`; here they agree.

    Returns:
        On `dst` the concatenation in rank order, in flight; on the others an empty tensor.

    Shapes: on `dst` the input's, with `gather_dim` the sum of the sizes; elsewhere with `gather_dim` 0.

    Gradient: each rank gets its own block of the cotangent on `dst`. The others' empty results have to reach their
    losses too, for example as `y.sum()`, which is zero.

    Raises:
        CommError: a wrong dim, size, rank or group; at the call.

    Example:
        >>> from comm_core import World
        >>> World(3).run(lambda group: gather(torch.tensor([group.rank]), 1, 0, group).tolist())
        [[], [0, 1, 2], []]
    """
    entry = asked(GATHER, "gather", group, backward)
    return comm_core.start(entry, x, in_flight, group, dst=dst, dim=gather_dim, sizes=sizes)


def reduce(
    x: torch.Tensor, reduceOp: object, dst: int, group: GroupLike = None, *, backward: str = "adjoint"
) -> torch.Tensor:
    """Reduce a tensor over all ranks of a group, on one rank.

    Args:
        x: this rank's tensor, of the same shape on every rank; not changed.
        reduceOp: the reduce op, as a word such as `"sum"` or as a `dist.ReduceOp`.
        dst: the rank that gets the reduction.
        group: anything that `comm_core.as_group` takes; None is the default group.
        backward: the gradient's convention, `"adjoint"` or `"identity"`; here they agree.

    Returns:
        On `dst` the reduction, in flight; on the others zeros.

    Shapes: the input's, on every rank.

    Gradient: each rank gets the cotangent on `dst`; divided by the group size for `avg`, and for `min`, `max` and
    `product` times the derivative of the reduction, as for `all_reduce`. The others' zeros have to reach their losses
    too, for example as `y.sum()`; their cotangents count for nothing.

    Raises:
        CommError: a wrong reduce op, dtype, rank or group; at the call.

    Example:
        >>> from comm_core import World
        >>> World(3).run(lambda group: reduce(torch.tensor([1.0, group.rank]), "sum", 2, group).tolist())
        [[0.0, 0.0], [0.0, 0.0], [3.0, 3.0]]
    """
    entry = asked(REDUCE, "reduce", group, backward)
    return comm_core.start(entry, x, in_flight, group, reduce_op=reduceOp, dst=dst)


def scatter(
    x: torch.Tensor,
    src: int,
    scatter_dim: int = 0,
    group: GroupLike = None,
    *,
    sizes: Sequence[int] | None = None,
    backward: str = "adjoint",
) -> torch.Tensor:
    """Split one rank's tensor along a dim, and give each rank a block.

    Args:
        x: on `src` the tensor to split; elsewhere only its dtype, its device and its other dims matter.
        src: the rank whose tensor is split.
        scatter_dim: the dim to split; negative counts from the back.
        group: anything that `comm_core.as_group` takes; None is the default group.
        sizes: every rank's share of that dim, alike on all ranks. With None all get the same share, and every rank
            passes a tensor of the whole shape.
        backward: the gradient's convention, `"adjoint"` or `"identity"`; here they agree.

    Returns:
        This rank's block, in flight.

    Shapes: the input's, with `scatter_dim` this rank's share.

    Gradient: the concatenation of all ranks' cotangents on `src`, zeros elsewhere.

    Raises:
        CommError: a wrong dim, size, rank or group; at the call.

    Example:
        >>> from comm_core import World
        >>> World(3).run(lambda group: scatter(torch.arange(6) * group.rank, 1, 0, group).tolist())
        [[0, 1], [2, 3], [4, 5]]
        >>> def uneven(group):
        ...     x = torch.arange(6 if group.rank == 1 else 0)
        ...     return scatter(x, 1, 0, group, sizes=[3, 1, 2]).tolist()
        >>> World(3).run(uneven)
        [[0, 1, 2], [3], [4, 5]]
    """
    entry = asked(SCATTER, "scatter", group, backward)
    on, group = parsed_group(group)
    with refusing(group, "scatter"):
        x = arrived(x, "scatter")
        dim = normalize_dim(scatter_dim, x.ndim, "scatter")
        shares = (even_split(x.shape[dim], on.world, "scatter", dim),) * on.world if sizes is None else sizes
        shares = check_sizes(shares, on.world, "scatter")
    given = x if on.rank == src else x.narrow(dim, 0, 0)
    return comm_core.start(entry, given, in_flight, group, src=src, dim=dim, sizes=shares)
