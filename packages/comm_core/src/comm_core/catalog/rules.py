"""Rules that several collectives share, and the type of what gradient rules are handed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch

from comm_core.collective import Batched
from comm_core.errors import ArgumentError, RankError, said
from comm_core.extents import even_sizes, integer
from comm_core.reduce_ops import REDUCE_OPS, mean_of
from comm_core.rows import products_of_others
from comm_core.tracing import is_writable


class Emit(Protocol):
    """Runs another entry of the catalogue, by name, on the group that the forward collective ran on."""

    rank: int
    world: int

    def __call__(self, name: str, x: torch.Tensor, **params: Any) -> torch.Tensor:
        """Return the finished result; differentiable again."""
        ...


def partial_derivative(
    emit: Emit,
    x: torch.Tensor,
    y: torch.Tensor,
    reduce_op: str,
    whole: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return how the reduction over ranks changes with this rank's `x`, element by element.

    min and max: an even share among the ranks that hold the extremum (a NaN counts as one). product: the product of
    the other ranks' elements, which is right where some are zero; each rank computes it for all, of its share of the
    elements. `whole` gives the reduction of what a rank has of it, `y`, and runs on all ranks or none.
    """
    if reduce_op == "product":
        return returned(emit, products_of_others(shared(emit, x)), x)
    reduced = y if whole is None else whole(y)
    holds = (x == reduced) | (x.isnan() & reduced.isnan())
    del reduced  # before there are numbers of its size
    holds = holds.to(x.dtype)
    holders = emit("all_reduce", holds, reduce_op="sum")
    return holds.div_(holders) if is_writable(holds) else holds / holders


def shared(emit: Emit, x: torch.Tensor) -> torch.Tensor:
    """Return this rank's share of all ranks' elements, a row for each rank: a tensor of `x`'s own size or near it."""
    shares = even_sizes(x.numel(), emit.world)
    alike = [shares[emit.rank]] * emit.world
    rows = emit("all_to_all", x.reshape(-1), input_splits=shares, output_splits=alike)
    return rows.view(emit.world, alike[0])


def returned(emit: Emit, rows: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return to each rank its row of what all ranks have made of what `shared` gave them for `x`."""
    shares = even_sizes(x.numel(), emit.world)
    alike = [shares[emit.rank]] * emit.world
    return emit("all_to_all", rows.reshape(-1), input_splits=alike, output_splits=shares).view(x.shape)


def divided(x: torch.Tensor, reduce_op: str, count: int, own: bool = False) -> torch.Tensor:
    """Divide a cotangent as the reduce op divided the sum of so many ranks; in place where it is the rule's `own`."""
    if not REDUCE_OPS[reduce_op].divides or not count:
        return x
    return mean_of(x, count, in_place=own and is_writable(x))


def batch_first(ndim: int, **params: Any) -> Batched:
    """Put the batch in front: the collective treats all elements alike, so one call serves the batch."""
    return Batched(0, params)


def batch_last(ndim: int, **params: Any) -> Batched:
    """Put the batch behind the tensor's own dims, whose numbers then still hold."""
    return Batched(ndim, params)


def as_rank(value: object, world: int) -> int | None:
    """Return the position of a rank in a group of `world`; None where the value is none."""
    rank = integer(value)
    return cast(int, rank) if rank is not None and 0 <= rank < world else None


def check_reverse(reverse: object, where: str) -> bool:
    """Return whether ranks, or messages, come in the reverse order.

    Raises:
        ArgumentError: it is no bool.
    """
    if not isinstance(reverse, bool):
        raise ArgumentError(where, got=f"reverse={said(reverse)}", need="True or False")
    return reverse


def check_root(root: object, world: int, where: str, word: str) -> int:
    """Return the position of a rank in a group.

    Raises:
        RankError: no rank of the group is at that position.
    """
    rank = as_rank(root, world)
    if rank is None:
        raise RankError(
            where,
            got=f"{word}={said(root)}",
            need=f"a rank of the group, from 0 to {world - 1}",
            hint=f"{word} is the position in the group, not the global rank",
        )
    return rank
