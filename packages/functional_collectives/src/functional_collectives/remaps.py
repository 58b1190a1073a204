"""The calls of torch.distributed inside compiled code, made ours.

Torch maps some of them (all_reduce, all_gather, reduce_scatter, all_to_all_single) to functions of its own while it
traces, and breaks the graph at the others. `remapped` puts this table in the place of torch's for a while: the calls
are then the in-place forms of this package, with their gradients and their errors, and there are more of them.

Dynamo walks this file, so it stays plain. Parameters are named as those of torch.distributed: Dynamo passes by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

import comm_core
from comm_core import GroupLike
from comm_core.catalog import ALL_TO_ALL, BROADCAST
from functional_collectives import torch_compat
from functional_collectives.barriers import barrier
from functional_collectives.inplace import (
    all_gather_inplace,
    all_gather_tensor_inplace,
    all_reduce_inplace,
    all_to_all_inplace,
    check_call,
    check_output,
    reduce_scatter_tensor_inplace,
    written,
)
from functional_collectives.message_remaps import MESSAGES, place_in
from functional_collectives.uneven import all_gather_v


@contextlib.contextmanager
def remapped() -> Iterator[None]:
    """Have code that is compiled here use this package where it calls torch.distributed.

    The calls are `all_reduce`, `broadcast`, `barrier`, `all_gather`, `all_gather_into_tensor`, `reduce_scatter`,
    `reduce_scatter_tensor`, `all_to_all` and `all_to_all_single`, under all their names, without `async_op`; and the
    messages, `send`, `recv`, `isend`, `irecv` and (torch 2.13) `batch_isend_irecv`, which carry no gradient. What was
    compiled outside stays as it is, and what was compiled inside is compiled anew outside. Eager calls are torch's.

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


def all_reduce_in_graph(
    tensor: torch.Tensor, op: object = "sum", group: GroupLike = None, async_op: bool = False
) -> None:
    """`dist.all_reduce`."""
    all_reduce_inplace(tensor, op, group, async_op)


def all_gather_tensor_in_graph(
    output_tensor: torch.Tensor, input_tensor: torch.Tensor, group: GroupLike = None, async_op: bool = False
) -> None:
    """`dist.all_gather_into_tensor`, which also stacks where the output has one dim more."""
    if output_tensor.ndim == input_tensor.ndim + 1:
        input_tensor = input_tensor.unsqueeze(0)
    all_gather_tensor_inplace(output_tensor, input_tensor, group, async_op)


def all_gather_in_graph(
    tensor_list: list[torch.Tensor], tensor: torch.Tensor, group: GroupLike = None, async_op: bool = False
) -> None:
    """`dist.all_gather`; the tensors may have different sizes in dim 0."""
    if tensor.ndim == 0 or all(out.shape[0] == tensor.shape[0] for out in tensor_list):
        all_gather_inplace(tensor_list, tensor, group, async_op)
        return
    check_call(async_op, "", "all_gather")
    sizes = [out.shape[0] for out in tensor_list]
    gathered = all_gather_v(tensor, 0, group, sizes=sizes)
    for out, block in zip(tensor_list, gathered.split(sizes), strict=True):
        check_output(out, tensor, tuple(block.shape), "all_gather")
        out.copy_(block)


def reduce_scatter_tensor_in_graph(
    output: torch.Tensor, input: torch.Tensor, op: object = "sum", group: GroupLike = None, async_op: bool = False
) -> None:
    """`dist.reduce_scatter_tensor`, which also takes a stack of blocks."""
    if input.ndim == output.ndim + 1:
        input = input.flatten(0, 1) if input.ndim > 1 else input
    reduce_scatter_tensor_inplace(output, input, op, group, async_op)


def reduce_scatter_in_graph(
    output: torch.Tensor,
    input_list: Sequence[torch.Tensor],
    op: object = "sum",
    group: GroupLike = None,
    async_op: bool = False,
) -> None:
    """`dist.reduce_scatter`."""
    row = output.unsqueeze(0)
    row.copy_(reduce_scatter_tensor_inplace(torch.empty_like(row), torch.stack(list(input_list)), op, group, async_op))


def all_to_all_single_in_graph(
    output: torch.Tensor,
    input: torch.Tensor,
    output_split_sizes: Sequence[int] | None = None,
    input_split_sizes: Sequence[int] | None = None,
    group: GroupLike = None,
    async_op: bool = False,
) -> None:
    """`dist.all_to_all_single`, where an empty list of splits means an even split."""
    all_to_all_inplace(output, input, output_split_sizes or None, input_split_sizes or None, group, async_op)


def all_to_all_in_graph(
    output_tensor_list: Sequence[torch.Tensor],
    input_tensor_list: Sequence[torch.Tensor],
    group: GroupLike = None,
    async_op: bool = False,
) -> None:
    """`dist.all_to_all`: tensors of any shapes, as one message."""
    check_call(async_op, "", "all_to_all")
    sent = torch.cat([x.reshape(-1) for x in input_tensor_list])
    splits = {
        "output_splits": [out.numel() for out in output_tensor_list],
        "input_splits": [x.numel() for x in input_tensor_list],
    }
    arrived = comm_core.run(ALL_TO_ALL, sent, group, **splits)
    for out, block in zip(output_tensor_list, arrived.split(splits["output_splits"]), strict=True):
        check_output(out, sent, tuple(out.shape), "all_to_all")
        out.copy_(block.view(out.shape))


def broadcast_in_graph(
    tensor: torch.Tensor,
    src: int | None = None,
    group: GroupLike = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> None:
    """`dist.broadcast`; `src` counts in the world, `group_src` in the group."""
    check_call(async_op, "", "broadcast")
    written(BROADCAST, tensor, tensor, group, src=place_in(group, src, group_src, "broadcast"))


def barrier_in_graph(
    group: GroupLike = None, async_op: bool = False, device_ids: object = None, timeout: object = None
) -> None:
    """`dist.barrier`."""
    check_call(async_op, "", "barrier")
    barrier(group)


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
    **MESSAGES,
}
