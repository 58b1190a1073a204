"""The calls of torch.distributed with a root, inside compiled code: reduce, gather and scatter.

`reduce` carries a gradient. `gather` and `scatter` carry none, as the ranks without a list have nothing that a backward
could start from; `fc.gather` and `fc.scatter` have one. Dynamo walks this file, so it stays plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from comm_core import GroupLike
from comm_core.catalog import GATHER, REDUCE, SCATTER
from comm_core.errors import ArgumentError
from functional_collectives.collectives import parsed_group
from functional_collectives.inplace import check_output, fitting, kept
from functional_collectives.lists_inplace import check_places
from functional_collectives.message_remaps import place_in
from functional_collectives.works import Contribution, Work, called


def reduce_in_graph(
    tensor: torch.Tensor,
    dst: int | None = None,
    op: object = "sum",
    group: GroupLike = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> Work | None:
    """`dist.reduce`; on the other ranks than the destination the tensor stays as it is."""
    on, door = parsed_group(group)
    root = place_in(group, dst, group_dst, "reduce")
    x, parsed = fitting(REDUCE, tensor, tensor, on, {"reduce_op": op, "dst": root})
    kind = Work if on.rank == root else Contribution
    return called(REDUCE, [tensor], kept(REDUCE, tensor, x, parsed), door, async_op, kind, **parsed)


def gather_in_graph(
    tensor: torch.Tensor,
    gather_list: list[torch.Tensor] | None = None,
    dst: int | None = None,
    group: GroupLike = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> Work | None:
    """`dist.gather`: tensors of one shape."""
    on, door = parsed_group(group)
    root = root_of(group, dst, group_dst, "gather")
    outs = listed(gather_list, on.rank == root, "gather", "gather_list", "destination")
    if on.rank == root:
        check_places(outs, tensor, on.world, "gather")
    stack = tensor.detach().unsqueeze(0)
    return called(GATHER, outs, stack, door, async_op, dst=root, dim=0, sizes=None)


def scatter_in_graph(
    tensor: torch.Tensor,
    scatter_list: list[torch.Tensor] | None = None,
    src: int | None = None,
    group: GroupLike = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> Work | None:
    """`dist.scatter`: tensors of one shape."""
    on, door = parsed_group(group)
    root = root_of(group, src, group_src, "scatter")
    blocks = listed(scatter_list, on.rank == root, "scatter", "scatter_list", "source")
    if on.rank == root:
        check_places(blocks, tensor, on.world, "scatter")
    check_output(tensor, tensor, tuple(tensor.shape), "scatter")
    sent = torch.stack([block.detach() for block in blocks]) if blocks else tensor.new_empty((0, *tensor.shape))
    return called(SCATTER, [tensor], sent, door, async_op, src=root, dim=0, sizes=[1] * on.world)


def root_of(group: GroupLike, rank: int | None, group_rank: int | None, where: str) -> int:
    """Return the root's place in the group; where none is named it is rank 0 of the world, as c10d says.

    Raises:
        RankError: it is not in the group.
    """
    return place_in(group, 0 if rank is None and group_rank is None else rank, group_rank, where)


def listed(given: list[torch.Tensor] | None, here: bool, where: str, name: str, root: str) -> Sequence[torch.Tensor]:
    """Return the root's list, and an empty one on the other ranks.

    Raises:
        ArgumentError: the root has none, or another rank has one.
    """
    if here and not given:
        raise ArgumentError(where, f"no {name} on the {root}", "a list of one tensor for each rank")
    if given and not here:
        raise ArgumentError(where, f"a {name} on another rank than the {root}", f"{name}=None there")
    return given or []


# By the names in torch.distributed.
ROOTED: dict[str, Any] = {"reduce": reduce_in_graph, "gather": gather_in_graph, "scatter": scatter_in_graph}
