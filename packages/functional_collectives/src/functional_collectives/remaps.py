"""The calls of torch.distributed inside compiled code, made ours.

Torch maps some of them (all_reduce, all_gather, reduce_scatter, all_to_all_single) to functions of its own while it
traces, and breaks the graph at the others. `remapped` puts this table in the place of torch's for a while: the calls
then run the collectives of this package, with their gradients and their errors, and there are more of them.

Dynamo walks this file, so it stays plain. Parameters are named as those of torch.distributed: Dynamo passes by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from comm_core import Collective, GroupLike
from comm_core.catalog import ALL_GATHER, ALL_GATHER_V, ALL_REDUCE, ALL_TO_ALL, BARRIER, BROADCAST, REDUCE_SCATTER
from functional_collectives import torch_compat
from functional_collectives.collectives import parsed_group
from functional_collectives.inplace import check_output, fitting, kept
from functional_collectives.lists_inplace import check_places, stacked
from functional_collectives.message_remaps import MESSAGES, place_in
from functional_collectives.rooted_remaps import ROOTED
from functional_collectives.works import Work, called


@contextlib.contextmanager
def remapped() -> Iterator[None]:
    """Have code that is compiled here use this package where it calls torch.distributed.

    The calls are `all_reduce`, `reduce`, `broadcast`, `barrier`, `all_gather`, `all_gather_into_tensor`,
    `reduce_scatter`, `reduce_scatter_tensor`, `all_to_all` and `all_to_all_single`, under all their names; and without
    a gradient `gather`, `scatter` and the messages, `send`, `recv`, `isend`, `irecv` and (torch 2.13)
    `batch_isend_irecv`. With `async_op=True` a call gives back a work, and its output is written where `work.wait()`
    stands. What was compiled outside stays as it is, and what was compiled inside is compiled anew outside. Eager calls
    are torch's.

    Raises:
        CommError: from the compiled code, where an argument is wrong.

    Example:
        >>> import torch.distributed as dist
        >>> from comm_core import World
        >>> def body(group):
        ...     def double(x):
        ...         dist.broadcast(x, group_src=1, group=group.process_group)
        ...         return x * 2
        ...     with remapped():
        ...         return torch.compile(double, fullgraph=True, backend="eager")(torch.tensor([group.rank])).tolist()
        >>> World(2).run(body)
        [[2], [2]]

    Source: torch.distributed._functional_collectives has such a table for Dynamo.
    """
    with torch_compat.collectives_in_graphs(TABLE):
        yield


def called_into(
    entry: Collective, out: torch.Tensor, x: torch.Tensor, group: GroupLike, async_op: bool, **params: Any
) -> Work | None:
    """Run a collective whose result has the shape of `out`, as `called` does."""
    on, door = parsed_group(group)
    x, parsed = fitting(entry, out, x, on, params)
    return called(entry, [out], kept(entry, out, x, parsed), door, async_op, **parsed)


def all_reduce_in_graph(
    tensor: torch.Tensor, op: object = "sum", group: GroupLike = None, async_op: bool = False
) -> Work | None:
    """`dist.all_reduce`."""
    return called_into(ALL_REDUCE, tensor, tensor, group, async_op, reduce_op=op)


def all_gather_tensor_in_graph(
    output_tensor: torch.Tensor, input_tensor: torch.Tensor, group: GroupLike = None, async_op: bool = False
) -> Work | None:
    """`dist.all_gather_into_tensor`, which also stacks where the output has one dim more."""
    if output_tensor.ndim == input_tensor.ndim + 1:
        input_tensor = input_tensor.unsqueeze(0)
    return called_into(ALL_GATHER, output_tensor, input_tensor, group, async_op, dim=0)


def all_gather_in_graph(
    tensor_list: list[torch.Tensor], tensor: torch.Tensor, group: GroupLike = None, async_op: bool = False
) -> Work | None:
    """`dist.all_gather`; the tensors may have different sizes in dim 0."""
    on, door = parsed_group(group)
    if tensor.ndim == 0 or all(out.shape[0] == tensor.shape[0] for out in tensor_list):
        check_places(tensor_list, tensor, on.world, "all_gather")
        return called(ALL_GATHER, tensor_list, tensor.unsqueeze(0), door, async_op, dim=0)
    for out in tensor_list:
        check_output(out, tensor, (out.shape[0], *tensor.shape[1:]), "all_gather")
    sizes = [out.shape[0] for out in tensor_list]
    return called(ALL_GATHER_V, tensor_list, tensor, door, async_op, dim=0, sizes=sizes)


def reduce_scatter_tensor_in_graph(
    output: torch.Tensor, input: torch.Tensor, op: object = "sum", group: GroupLike = None, async_op: bool = False
) -> Work | None:
    """`dist.reduce_scatter_tensor`, which also takes a stack of blocks."""
    if input.ndim == output.ndim + 1:
        input = input.flatten(0, 1) if input.ndim > 1 else input
    return called_into(REDUCE_SCATTER, output, input, group, async_op, reduce_op=op, dim=0)


def reduce_scatter_in_graph(
    output: torch.Tensor,
    input_list: Sequence[torch.Tensor],
    op: object = "sum",
    group: GroupLike = None,
    async_op: bool = False,
) -> Work | None:
    """`dist.reduce_scatter`."""
    on, door = parsed_group(group)
    stack = stacked(input_list, output, on.world, "reduce_scatter")
    return called_into(REDUCE_SCATTER, output.unsqueeze(0), stack, door, async_op, reduce_op=op, dim=0)


def all_to_all_single_in_graph(
    output: torch.Tensor,
    input: torch.Tensor,
    output_split_sizes: Sequence[int] | None = None,
    input_split_sizes: Sequence[int] | None = None,
    group: GroupLike = None,
    async_op: bool = False,
) -> Work | None:
    """`dist.all_to_all_single`, where an empty list of splits means an even split."""
    splits: dict[str, Any] = {
        "output_splits": output_split_sizes or None,
        "input_splits": input_split_sizes or None,
    }
    return called_into(ALL_TO_ALL, output, input, group, async_op, **splits)


def all_to_all_in_graph(
    output_tensor_list: Sequence[torch.Tensor],
    input_tensor_list: Sequence[torch.Tensor],
    group: GroupLike = None,
    async_op: bool = False,
) -> Work | None:
    """`dist.all_to_all`: tensors of any shapes, as one message."""
    sent = torch.cat([x.reshape(-1) for x in input_tensor_list])
    splits: dict[str, Any] = {
        "output_splits": [out.numel() for out in output_tensor_list],
        "input_splits": [x.numel() for x in input_tensor_list],
    }
    for out in output_tensor_list:
        check_output(out, sent, tuple(out.shape), "all_to_all")
    return called(ALL_TO_ALL, output_tensor_list, sent, group, async_op, **splits)


def broadcast_in_graph(
    tensor: torch.Tensor,
    src: int | None = None,
    group: GroupLike = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> Work | None:
    """`dist.broadcast`; `src` counts in the world, `group_src` in the group."""
    root = place_in(group, src, group_src, "broadcast")
    return called_into(BROADCAST, tensor, tensor, group, async_op, src=root)


def barrier_in_graph(
    group: GroupLike = None, async_op: bool = False, device_ids: object = None, timeout: object = None
) -> Work | None:
    """`dist.barrier`."""
    on, door = parsed_group(group)
    device = "cuda" if on.backend == "nccl" else "cpu"
    return called(BARRIER, [], torch.zeros((), device=device), door, async_op)


# By the names in torch.distributed; a name that this torch does not have is left out.
TABLE: dict[str, Any] = {
    "all_reduce": all_reduce_in_graph,
    "all_gather": all_gather_in_graph,
    "all_gather_into_tensor": all_gather_tensor_in_graph,
    "all_gather_single": all_gather_tensor_in_graph,
    "_all_gather_base": all_gather_tensor_in_graph,
    "reduce_scatter": reduce_scatter_in_graph,
    "reduce_scatter_tensor": reduce_scatter_tensor_in_graph,
    "reduce_scatter_single": reduce_scatter_tensor_in_graph,
    "_reduce_scatter_base": reduce_scatter_tensor_in_graph,
    "all_to_all": all_to_all_in_graph,
    "all_to_all_single": all_to_all_single_in_graph,
    "broadcast": broadcast_in_graph,
    "barrier": barrier_in_graph,
    **ROOTED,
    **MESSAGES,
}
