"""Reductions, on one rank, of what arrived from all ranks: a row for each, in rank order.

Dynamo walks this file, so it stays plain. In traced code each is one op of our own, whatever the number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch

from comm_core import own_ops
from comm_core.reduce_ops import preceding_into, prefixes_into, reduce_into
from comm_core.tracing import is_traced, is_writable

_PIECE = 64 << 10  # bytes of rows that are pulled back at once: little room beside them, and they stay in cache


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


def pull_back_rows(
    rows: torch.Tensor, cotangents: torch.Tensor, reduce_op: str, exclusive: bool, reverse: bool
) -> torch.Tensor:
    """Return the gradient of `scan_rows` of a product, min or max, written over the cotangents and the rows.

    With `y` the scan and `c` its cotangents. product: `u[i] = c[i] + x[i+1] u[i+1]`, from the last row on, and the
    gradient is `u[i]` times the product of the rows before it: no quotient, so zeros are no special case. min and max:
    `c[r] / n[r]` goes to each of the `n[r]` rows up to `r` that hold `y[r]`, summed in rank order, as in a graph; where
    the last `y` is NaN the gradients of all rows are, as by torch's own rule.

    Shapes: the input's; rows and cotangents are of one shape.

    Example:
        >>> rows, ones = torch.tensor([[2.0], [3.0]]), torch.ones(2, 1)
        >>> pull_back_rows(rows.clone(), ones.clone(), "product", exclusive=False, reverse=False).tolist()
        [[4.0], [2.0]]
        >>> pull_back_rows(rows, ones, "max", exclusive=False, reverse=False).tolist()
        [[1.0], [1.0]]

    Source: reverse accumulation (Griewank and Walther, 2008).
    """
    step = max(1, _PIECE // (rows.shape[0] * rows.element_size()))
    in_rank_order = slice(None, None, -1 if reverse else 1)
    for xs, of_ys in zip(rows.split(step, 1), cotangents.split(step, 1), strict=True):
        order, of_order = list(xs.unbind(0))[in_rank_order], list(of_ys.unbind(0))[in_rank_order]
        inputs, of_inputs = (order[:-1], of_order[1:]) if exclusive else (order, of_order)
        if inputs and reduce_op == "product":
            _pull_back_products(inputs, of_inputs)
        elif inputs:
            _pull_back_extrema(inputs, of_inputs, torch.maximum if reduce_op == "max" else torch.minimum, in_rank_order)
        if exclusive:
            for later, of_x in zip(of_inputs, of_order, strict=False):
                of_x.copy_(later)
            of_order[-1].zero_()
    return cotangents


def _pull_back_products(xs: list[torch.Tensor], of_ys: list[torch.Tensor]) -> None:
    for place in range(len(xs) - 2, -1, -1):
        of_ys[place].addcmul_(xs[place + 1], of_ys[place + 1])
    preceding_into("product", xs)
    for of_y, before in zip(of_ys[1:], xs[1:], strict=True):
        of_y.mul_(before)


def _pull_back_extrema(
    xs: list[torch.Tensor], of_ys: list[torch.Tensor], extremum: Callable[..., torch.Tensor], in_rank_order: slice
) -> None:
    ys, holders, holds = [xs[0]], torch.ones_like(xs[0]), torch.empty_like(xs[0])  # ones and zeros: branches cost more
    for x, of_y in zip(xs[1:], of_ys[1:], strict=True):
        ys.append(extremum(ys[-1], x))
        holders.mul_(torch.eq(ys[-1], ys[-2], out=holds)).add_(torch.eq(x, ys[-1], out=holds))
        of_y.div_(holders)
    pulled = holders
    for place, x in enumerate(xs):
        pulled.zero_()
        for other in range(place, len(xs))[in_rank_order]:
            pulled.addcmul_(of_ys[other], torch.eq(x, ys[other], out=holds))
        x.copy_(pulled.masked_fill_(ys[-1].isnan(), torch.nan))
    for x, of_y in zip(xs, of_ys, strict=True):
        of_y.copy_(x)


def _products_before(rows: torch.Tensor) -> torch.Tensor:
    """Multiply, for each row, those before it, in as many steps as their number has bits: a graph stays small."""
    made, reach = torch.cat([torch.ones_like(rows[:1]), rows[:-1]]), 1
    while reach < rows.shape[0]:
        made = torch.cat([made[:reach], made[reach:] * made[:-reach]])
        reach *= 2
    return made
