"""scan: rank r gets the reduction of the tensors of ranks 0 to r."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from comm_core.catalog.blocks import Fill
from comm_core.catalog.prefix import checked, exchanged, facts, over_ranks, reduced_before, transposed
from comm_core.catalog.rules import Emit, batch_first
from comm_core.collective import Collective, Expansion, Lowering, Params, Shape, missing
from comm_core.pending import Pending
from comm_core.reduce_ops import prefixes_in_rank_order
from comm_core.rows import pull_back_rows, scan_rows
from comm_core.transports import Transport


def check(x: torch.Tensor, world: int, rank: int, *, reduce_op: object, reverse: bool) -> Params:
    return checked(x, reduce_op, reverse, "scan")


def agrees(x: torch.Tensor, *, reduce_op: str, reverse: bool) -> tuple[object, ...]:
    return facts(x, reduce_op, reverse)


def shape(shape: Shape, world: int, rank: int, *, reduce_op: str, reverse: bool) -> Shape:
    return shape


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    return over_ranks(prefixes_in_rank_order, params[0]["reduce_op"], inputs, params[0]["reverse"])


def kernel(wire: Transport, x: torch.Tensor, *, reduce_op: str, reverse: bool, fill: Fill | None = None) -> Pending:
    scanned = functools.partial(scan_rows, reduce_op=reduce_op, exclusive=False, reverse=reverse)
    return exchanged(wire, x, fill, scanned)


def gradient(emit: Emit, cotangent: torch.Tensor, *, reduce_op: str, reverse: bool) -> torch.Tensor:
    return transposed(emit, "scan", cotangent, reduce_op, exclusive=False, reverse=reverse)


def wire_bytes(input_bytes: int, world: int, rank: int, *, reduce_op: str, reverse: bool) -> int:
    """The fewest: one crossing for each rank but the first. The kernel takes twice that, in two steps."""
    return input_bytes * (world - 1) // world


SCAN = Collective(
    name="scan",
    summary="Rank r gets the reduction of the tensors of ranks 0 to r; in reverse, of ranks r to the last.",
    schema="scan(Tensor x, *, str reduce_op, bool reverse) -> Tensor",
    check=check,
    agrees=agrees,
    shape=shape,
    oracle=oracle,
    kernel=kernel,
    gradient=gradient,
    identity=gradient,
    partial=missing("each rank's result depends on an input in its own way: see expanded"),
    batch=batch_first,
    twin=missing("c10d has no prefix reduction: it is traced as two of all_to_all_single and local reductions"),
    in_place=missing("c10d has no prefix reduction to write into the input"),
    wire_bytes=wire_bytes,
    lowering=Lowering.COMPOSITE,
    expanded=Expansion(
        functools.partial(reduced_before, exclusive=False), functools.partial(pull_back_rows, exclusive=False)
    ),
)
