"""Reductions, on one rank, of what arrived from all ranks: a row for each, in rank order.

Dynamo walks this file, so it stays plain. In traced code each is one op of our own, whatever the number of ranks.
"""

from __future__ import annotations

from typing import cast

import torch

from comm_core import own_ops
from comm_core.reduce_ops import preceding_into, prefixes_into, reduce_into
from comm_core.tracing import is_traced, is_writable


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


def products_of_others(rows: torch.Tensor) -> torch.Tensor:
    """Multiply, for each row, all others, differentiably; where nothing is differentiated, rows may be overwritten.

    Shapes: the input's.

    Example:
        >>> products_of_others(torch.tensor([[2.0, 0.0], [3.0, 5.0], [4.0, 6.0]])).tolist()
        [[12.0, 30.0], [8.0, 0.0], [6.0, 0.0]]
    """
    if not is_writable(rows):
        return _products_before(rows) * _products_before(rows.flip(0)).flip(0)
    made = scan_rows(rows.clone(), "product", exclusive=True, reverse=False)
    return made.mul_(scan_rows(rows, "product", exclusive=True, reverse=True))


def _products_before(rows: torch.Tensor) -> torch.Tensor:
    """Multiply, for each row, those before it, in as many steps as their number has bits: a graph stays small."""
    made, reach = torch.cat([torch.ones_like(rows[:1]), rows[:-1]]), 1
    while reach < rows.shape[0]:
        made = torch.cat([made[:reach], made[reach:] * made[:-reach]])
        reach *= 2
    return made
