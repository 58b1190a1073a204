"""Reductions over the ranks up to one's own.

Dynamo walks this file, so it stays plain. Torch's module has none of these functions. Both conventions of a gradient
agree here, as every rank gets another part of the result.
"""

from __future__ import annotations

import torch

import comm_core
from comm_core import GroupLike
from comm_core.catalog import EXSCAN, SCAN
from functional_collectives.collectives import asked
from functional_collectives.flight import in_flight


def scan(
    x: torch.Tensor,
    reduceOp: object,
    group: GroupLike = None,
    *,
    reverse: bool = False,
    backward: str = "adjoint",
) -> torch.Tensor:
    """Reduce, for each rank, its tensor with those of all ranks before it.

    Args:
        x: this rank's tensor, of the same shape on every rank.
        reduceOp: the reduce op, as a word such as `"sum"` or as a `dist.ReduceOp`; `avg` is the mean of the ranks so
            far.
        group: anything that `comm_core.as_group` takes; None is the default group.
        reverse: count the ranks from the last one.
        backward: the gradient's convention, `"adjoint"` or `"identity"`; here they agree.

    Returns:
        On rank r the reduction over ranks 0 to r, in rank order, in flight. The ranks reduce themselves, so any dtype
        that the transport moves is reduced. It takes two exchanges, the first of which this call waits for.

    Shapes: the input's, on every rank.

    Gradient: for `sum` the scan in the other direction; for `avg` of the cotangents divided by their counts. For
    `product`, `min` and `max` ranks exchange shares of all tensors once more: in backward, or at the call where that is
    traced, transformed or checkpointed. Ties share evenly, and zeros are no special case.

    Raises:
        CommError: a wrong reduce op, dtype or group; at the call.

    Example:
        >>> from comm_core import World
        >>> World(4).run(lambda group: scan(torch.tensor(group.rank + 1), "product", group).item())
        [1, 2, 6, 24]
        >>> World(4).run(lambda group: scan(torch.tensor(group.rank + 1), "product", group, reverse=True).item())
        [24, 24, 12, 4]

    Source: `MPI_Scan`.
    """
    entry = asked(SCAN, "scan", group, backward)
    return comm_core.start(entry, x, in_flight, group, reduce_op=reduceOp, reverse=reverse)


def exscan(
    x: torch.Tensor,
    reduceOp: object,
    group: GroupLike = None,
    *,
    reverse: bool = False,
    backward: str = "adjoint",
) -> torch.Tensor:
    """Reduce, for each rank, the tensors of the ranks before it.

    Args:
        x: this rank's tensor, of the same shape on every rank.
        reduceOp: the reduce op, as a word such as `"sum"` or as a `dist.ReduceOp`.
        group: anything that `comm_core.as_group` takes; None is the default group.
        reverse: count the ranks from the last one.
        backward: the gradient's convention, `"adjoint"` or `"identity"`; here they agree.

    Returns:
        On rank r the reduction over ranks 0 to r - 1, in flight. The first rank gets what changes nothing in this
        reduction: 0 for `sum` and `avg`, 1 for `product`, the largest value of the dtype for `min`, the lowest for
        `max`, all bits for `band`.

    Shapes: the input's, on every rank.

    Gradient: as for `scan`, of the ranks behind this one.

    Raises:
        CommError: a wrong reduce op, dtype or group; at the call.

    Example:
        >>> from comm_core import World
        >>> rows = [3, 1, 4]
        >>> World(3).run(lambda group: exscan(torch.tensor(rows[group.rank]), "sum", group).item())  # where mine start
        [0, 3, 4]

    Source: `MPI_Exscan`, which leaves the first rank's result undefined.
    """
    entry = asked(EXSCAN, "exscan", group, backward)
    return comm_core.start(entry, x, in_flight, group, reduce_op=reduceOp, reverse=reverse)
