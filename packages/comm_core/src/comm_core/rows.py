"""Reductions, on one rank, of what arrived from all ranks: a row for each, in rank order.

Dynamo walks this file, so it stays plain. In traced code each is one op of our own, whatever the number of ranks.
"""

from __future__ import annotations

from typing import cast

import torch

from comm_core import own_ops
from comm_core.reduce_ops import preceding_into, prefixes_into, reduce_into
from comm_core.tracing import is_traced


def reduce_rows(rows: torch.Tensor, reduce_op: str) -> torch.Tensor:
    """Combine rows, the first one first, into a tensor of its own; they may be overwritten.

    Shapes: those of a row.

    Example:
        >>> reduce_rows(torch.tensor([[1, 2], [3, 4]]), "sum")
        tensor([4, 6])
    """
    if is_traced(rows):
        own_ops.register()
        return cast(torch.Tensor, torch.ops.comm_core.reduce_rows(rows, reduce_op))
    first, *others = rows.unbind(0)
    return reduce_into(reduce_op, [first.clone(), *others], 0)


def scan_rows(rows: torch.Tensor, reduce_op: str, exclusive: bool, reverse: bool) -> torch.Tensor:
    """Combine each row with those before it, or those before it alone; the rows may be overwritten with the result.

    Shapes: the input's.

    Example:
        >>> scan_rows(torch.tensor([[1, 2], [3, 4]]), "sum", exclusive=False, reverse=False)
        tensor([[1, 2],
                [4, 6]])
        >>> scan_rows(torch.tensor([[1, 2], [3, 4]]), "sum", exclusive=True, reverse=True)
        tensor([[3, 4],
                [0, 0]])
    """
    if is_traced(rows):
        own_ops.register()
        return cast(torch.Tensor, torch.ops.comm_core.scan_rows(rows, reduce_op, exclusive, reverse))
    order = list(rows.unbind(0))
    (preceding_into if exclusive else prefixes_into)(reduce_op, order[::-1] if reverse else order)
    return rows
