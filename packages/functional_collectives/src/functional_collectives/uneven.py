"""Gathers and reductions of blocks whose sizes differ by rank.

Dynamo walks this file, so it stays plain. Torch's module has none of these functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

import comm_core
from comm_core import GroupLike
from comm_core.catalog import ALL_GATHER, ALL_GATHER_V, REDUCE_SCATTER_V
from comm_core.checking import refusing
from comm_core.compat import has_values
from comm_core.errors import ArgumentError
from comm_core.extents import even_sizes, normalize_dim
from comm_core.settling import arrived
from functional_collectives.collectives import asked, parsed_group
from functional_collectives.flight import in_flight


def all_gather_v(
    x: torch.Tensor,
    gather_dim: int,
    group: GroupLike = None,
    *,
    sizes: Sequence[int] | None = None,
    backward: str = "adjoint",
) -> torch.Tensor:
    """Concatenate all ranks' tensors, whose sizes along a dim differ; every rank gets the result.

    Args:
        x: this rank's tensor.
        gather_dim: the dim to concatenate along; negative counts from the back.
        group: anything that `comm_core.as_group` takes; None is the default group.
        sizes: every rank's size of that dim, alike on all ranks. With None the ranks tell each other first, by a gather
            of one number that this call waits for; so give them where they are known.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        The concatenation in rank order, in flight.

    Shapes: the input's, with `gather_dim` the sum of the sizes.

    Gradient: reduce_scatter_v of the cotangents with `sum`, with the same sizes.

    Raises:
        CommError: a wrong dim, size or group; at the call.

    Example:
        >>> from comm_core import World
        >>> World(3).run(lambda group: all_gather_v(torch.full((group.rank,), group.rank), 0, group).tolist())
        [[1, 2, 2], [1, 2, 2], [1, 2, 2]]
    """
    entry = asked(ALL_GATHER_V, "all_gather_v", group, backward)
    if sizes is None:
        with refusing(group, "all_gather_v"):
            x = arrived(x, "all_gather_v")
            dim = normalize_dim(gather_dim, x.ndim, "all_gather_v")
            if not has_values(x):
                got = "sizes=None for a tensor without values, on meta or under FakeTensorMode"
                raise ArgumentError("all_gather_v", got, "every rank's size of the dim", "pass sizes=")
        own = torch.tensor([x.shape[dim]], device=x.device)
        sizes = comm_core.run(ALL_GATHER, own, group, dim=0).tolist()
    return comm_core.start(entry, x, in_flight, group, dim=gather_dim, sizes=sizes)


def reduce_scatter_v(
    x: torch.Tensor,
    reduceOp: object,
    scatter_dim: int,
    group: GroupLike = None,
    *,
    sizes: Sequence[int] | None = None,
    backward: str = "adjoint",
) -> torch.Tensor:
    """Reduce a tensor over all ranks and leave each rank its own block, of its own size.

    Args:
        x: this rank's tensor, of the same shape on every rank.
        reduceOp: the reduce op, as a word such as `"sum"` or as a `dist.ReduceOp`.
        scatter_dim: the dim to split.
        group: anything that `comm_core.as_group` takes; None is the default group.
        sizes: every rank's share of that dim, alike on all ranks. With None the dim is split as `torch.tensor_split`
            does: the shares differ by one at most.
        backward: the gradient's convention, `"adjoint"` or `"identity"`; here they agree.

    Returns:
        This rank's block of the reduction, in flight. The ranks reduce in rank order themselves, so any dtype that the
        transport moves is reduced. That takes the room of one payload beside the result at most; 128 KiB more may be
        taken where the blocks of a view along dim 0 are copied for a single exchange, and 128 KiB to compute float8 in
        float32 (8 MiB on other devices than the CPU, or 8 bytes for each 2048 elements of the block where that is
        more). To stay within that, uneven shares, blocks along another dim and float8 may move in parts, of which the
        last alone is under way when the call returns.

    Shapes: the input's, with `scatter_dim` this rank's share.

    Gradient: all_gather_v of the cotangents; divided by the group size for `avg`, and for `min`, `max` and `product`
    times the derivative of the reduction, as for `all_reduce`.

    Raises:
        CommError: a wrong reduce op, dim, size or group; at the call.

    Example:
        >>> from comm_core import World
        >>> World(2).run(lambda group: reduce_scatter_v(torch.arange(3), "sum", 0, group).tolist())
        [[0, 2], [4]]
    """
    entry = asked(REDUCE_SCATTER_V, "reduce_scatter_v", group, backward)
    if sizes is None:
        on, group = parsed_group(group)
        with refusing(group, "reduce_scatter_v"):
            x = arrived(x, "reduce_scatter_v")
            dim = normalize_dim(scatter_dim, x.ndim, "reduce_scatter_v")
        sizes = even_sizes(x.shape[dim], on.world)
    return comm_core.start(entry, x, in_flight, group, reduce_op=reduceOp, dim=scatter_dim, sizes=sizes)
