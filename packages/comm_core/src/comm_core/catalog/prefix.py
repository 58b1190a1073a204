"""Prefix reductions over ranks: what scan and exscan share.

The work is spread evenly: every rank reduces its share of the elements for all ranks, in rank order, between two
exchanges. So it takes two steps and not one for each rank, and twice the fewest bytes, as an all_reduce does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from comm_core.catalog.blocks import Fill, ready, viewed
from comm_core.catalog.rules import Emit, check_reverse, divided, returned, shared
from comm_core.collective import Params
from comm_core.extents import even_sizes
from comm_core.pending import Pending
from comm_core.reduce_ops import REDUCE_OPS, defined_word, neutral
from comm_core.rows import scan_rows
from comm_core.tracing import is_traced, is_writable
from comm_core.transports import Transport

Prefixes = Callable[[str, Sequence[torch.Tensor]], Sequence[torch.Tensor]]


def checked(x: torch.Tensor, reduce_op: object, reverse: object, where: str) -> Params:
    """Parse the parameters of a scan.

    Raises:
        ReduceOpError: an unknown reduce op, or one that means nothing for the dtype.
        ArgumentError: `reverse` is no bool.
    """
    word = defined_word(reduce_op, x.dtype, where)
    return {"reduce_op": word, "reverse": check_reverse(reverse, where)}


def facts(x: torch.Tensor, reduce_op: str, reverse: bool) -> tuple[object, ...]:
    """Return what all ranks must say alike."""
    tensor = ("device", x.device.type, "dtype", x.dtype, "shape", tuple(x.shape))
    return (*tensor, "reduce op", reduce_op, "reverse", reverse)


def over_ranks(
    prefixes: Prefixes, reduce_op: str, tensors: Sequence[torch.Tensor], reverse: bool
) -> list[torch.Tensor]:
    """Return every rank's result; in reverse the last rank comes first."""
    if not reverse:
        return list(prefixes(reduce_op, tensors))
    return list(prefixes(reduce_op, tensors[::-1])[::-1])


def exchanged(
    wire: Transport, x: torch.Tensor, fill: Fill | None, scanned: Callable[[torch.Tensor], torch.Tensor]
) -> Pending:
    """Give each rank its share of all ranks' elements, reduce there, and give each rank its own results.

    Eager, the results are written over what arrived, and take no room of their own; where the input had to be copied,
    they arrive in that copy.
    """
    shape = tuple(x.shape)
    row = ready(x, fill).reshape(-1)
    own = None if is_traced(x) or (fill is None and x.is_contiguous()) else row
    shares = even_sizes(row.shape[0], wire.world)
    alike = [shares[wire.rank]] * wire.world
    arrived = wire.all_to_all(row, alike, shares).wait()
    done = scanned(arrived.view(wire.world, alike[0]))
    return viewed(wire.all_to_all(done.view(-1), shares, alike, own), shape)


def transposed(
    emit: Emit, name: str, cotangent: torch.Tensor, reduce_op: str, exclusive: bool, reverse: bool
) -> torch.Tensor:
    """Return the gradient of a linear scan, one in the other direction, of what `avg` has divided first.

    Where that may be written over, each rank divides its share of all ranks' elements, which takes no room.
    """
    counts = range(not exclusive, emit.world + (not exclusive))
    of_rank = counts[::-1] if reverse else counts
    if not (REDUCE_OPS[reduce_op].divides and is_writable(cotangent)):
        return emit(name, divided(cotangent, reduce_op, of_rank[emit.rank]), reduce_op="sum", reverse=not reverse)
    rows = shared(emit, cotangent)
    for row, count in zip(rows, of_rank, strict=True):
        divided(row, reduce_op, count, own=True)
    return returned(emit, scan_rows(rows, "sum", exclusive, reverse=not reverse), cotangent)


def reduced_before(rows: torch.Tensor, reduce_op: str, exclusive: bool, reverse: bool) -> torch.Tensor:
    """Reduce, for each rank's row, those before it with torch's differentiable ops, and itself unless `exclusive`.

    Ties are shared evenly, and zeros are no special case. Each row's are reduced by themselves; but in a graph all are
    in one step, whatever their number, among what changes nothing in the place of those that come after it.
    """
    world, nothing = rows.shape[0], neutral(reduce_op, rows.dtype)
    if is_traced(rows):
        place = torch.arange(world, device=rows.device)
        counts = place[:, None] > place if exclusive else place[:, None] >= place
        kept = (counts.t() if reverse else counts).unsqueeze(-1)
        return _reduced(torch.where(kept, rows, nothing), reduce_op, 1)
    # A select of rows that are there: alone in its group, too, a rank has a result that depends on its tensor.
    made = [torch.where(torch.full((), False, device=rows.device), rows[0], nothing)] if exclusive else []
    for count in range(1, world + (not exclusive)):
        made.append(_reduced(rows[world - count :] if reverse else rows[:count], reduce_op, 0))
    return torch.stack(made[::-1] if reverse else made)


def _reduced(rows: torch.Tensor, reduce_op: str, dim: int) -> torch.Tensor:
    if reduce_op == "product":
        return rows.prod(dim)
    return rows.amin(dim) if reduce_op == "min" else rows.amax(dim)
