"""The in-place collectives of lists, of which each tensor is for a rank or of one.

Dynamo walks this file, so it stays plain. A gather's result is copied into its places; what is to be scattered is put
into one tensor first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

import comm_core
from comm_core import GroupLike
from comm_core.catalog import ALL_GATHER, REDUCE_SCATTER
from comm_core.checking import refusing
from comm_core.errors import ArgumentError
from comm_core.settling import settled
from functional_collectives.collectives import asked, parsed_group
from functional_collectives.inplace import check_output, written


def all_gather_inplace(
    tensor_list: list[torch.Tensor],
    tensor: torch.Tensor,
    group: GroupLike = None,
    async_op: bool = False,
    tag: str = "",
    *,
    backward: str = "adjoint",
) -> list[torch.Tensor]:
    """Give every rank all ranks' tensors, each in its place of a given list.

    Args:
        tensor_list: one tensor for each rank, which are written.
        tensor: this rank's tensor, of the same shape on every rank.
        group: anything that `comm_core.as_group` takes; None is the default group.
        async_op: must be False; `all_gather_tensor` is asynchronous.
        tag: must be empty; torch's function has it at this place.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        `tensor_list`.

    Shapes: every tensor of the list has the input's.

    Gradient: as `all_gather_tensor`, into the input; what the list held before gets zeros.

    Raises:
        CommError: not one tensor for each rank, shapes or dtypes that do not fit, a wrong group, or a tensor of the
            list that is a leaf that requires grad; at the call.

    Example:
        >>> from comm_core import World
        >>> def body(group):
        ...     places = [torch.empty(1), torch.empty(1)]
        ...     return [x.item() for x in all_gather_inplace(places, torch.ones(1) * group.rank, group)]
        >>> World(2).run(body)
        [[0.0, 1.0], [0.0, 1.0]]
    """
    where = "all_gather_inplace"
    entry = asked(ALL_GATHER, where, group, backward, tag, async_op)
    on, door = parsed_group(group)
    with refusing(door, where):
        x = settled(tensor, where)
        check_places(tensor_list, x, on.world, where)
    gathered = comm_core.run(entry, x.unsqueeze(0), door, dim=0)
    for rank, out in enumerate(tensor_list):
        out.copy_(gathered[rank])
    return tensor_list


def reduce_scatter_inplace(
    output: torch.Tensor,
    input_list: list[torch.Tensor],
    op: object = "sum",
    group: GroupLike = None,
    async_op: bool = False,
    tag: str = "",
    *,
    backward: str = "adjoint",
) -> torch.Tensor:
    """Reduce over all ranks one tensor for each rank, which gets its own, into a given tensor.

    Args:
        output: this rank's result, which is written.
        input_list: one tensor for each rank, of the output's shape.
        op: the reduce op, as a word such as `"sum"` or as a `dist.ReduceOp`.
        group: anything that `comm_core.as_group` takes; None is the default group.
        async_op: must be False; `reduce_scatter_tensor` is asynchronous.
        tag: must be empty; torch's function has it at this place.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        `output`.

    Shapes: every tensor of the list has the output's.

    Gradient: as `reduce_scatter_tensor`, into each tensor of the list; what the output held before gets zeros.

    Raises:
        CommError: a wrong reduce op or group, not one tensor for each rank, shapes or dtypes that do not fit, or an
            output that is a leaf that requires grad; at the call.

    Example:
        >>> from comm_core import World
        >>> def body(group):
        ...     return reduce_scatter_inplace(torch.empty(1), [torch.ones(1), torch.ones(1) * 5], "sum", group).tolist()
        >>> World(2).run(body)
        [[2.0], [10.0]]
    """
    where = "reduce_scatter_inplace"
    entry = asked(REDUCE_SCATTER, where, group, backward, tag, async_op)
    on, door = parsed_group(group)
    with refusing(door, where):
        stack = stacked(input_list, output, on.world, where)
    written(entry, output.unsqueeze(0), stack, door, reduce_op=op, dim=0)
    return output


def check_places(outs: Sequence[torch.Tensor], x: torch.Tensor, world: int, where: str) -> None:
    """Ask for a list of one output for each rank, each like `x`.

    Raises:
        CommError: as `check_output` does, or the list has another length.
    """
    check_list(outs, world, where)
    for out in outs:
        check_output(out, x, tuple(x.shape), where)


def stacked(inputs: Sequence[torch.Tensor], out: torch.Tensor, world: int, where: str) -> torch.Tensor:
    """Return one input for each rank, each like `out`, in one tensor.

    Raises:
        CommError: they do not fit, or the list has another length.
    """
    check_list(inputs, world, where)
    xs = [settled(x, where) for x in inputs]
    for x in xs:
        check_output(out, x, tuple(x.shape), where)
    return torch.stack(xs)


def check_list(tensors: Sequence[torch.Tensor], world: int, where: str) -> None:
    """Ask for a list of one tensor for each rank.

    Raises:
        ArgumentError: it is none, or it has another length.
    """
    if not isinstance(tensors, (list, tuple)) or len(tensors) != world:
        count = f"{len(tensors)} tensors" if isinstance(tensors, (list, tuple)) else "no list"
        raise ArgumentError(where, count, f"a list of {world}, one tensor for each rank")
