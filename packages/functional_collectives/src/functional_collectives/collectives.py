"""The public collectives.

Dynamo walks this file, so it stays plain: module-level functions, no closures, no decorators, and errors with their
words by position, since of others Dynamo shows none. Names and positions of
the parameters are those of `torch.distributed._functional_collectives`, so a program changes its import and nothing
else. Every function returns at once; its result waits when it is used.

`backward="adjoint"`, the default, is right for any program whose loss is the sum over ranks. `backward="identity"` is
for code where every rank computes the same from the result and the loss is counted once, as in Megatron's layers: a
result that is equal on all ranks then hands its cotangent on as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import comm_core
from comm_core import Collective, GroupLike
from comm_core.catalog import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, BROADCAST, PERMUTE, REDUCE_SCATTER, under
from comm_core.checking import refusing
from comm_core.compiled_groups import compiled_group
from comm_core.errors import ArgumentError
from comm_core.groups import AnyGroup
from comm_core.settling import check_dense
from functional_collectives.async_tensor import AsyncCollectiveTensor
from functional_collectives.flight import in_flight


def all_reduce(
    self: torch.Tensor, reduceOp: object, group: GroupLike = None, tag: str = "", *, backward: str = "adjoint"
) -> torch.Tensor:
    """Reduce a tensor over all ranks of a group; every rank gets the result.

    Args:
        self: this rank's tensor; not changed.
        reduceOp: the reduce op, as a word such as `"sum"` or as a `dist.ReduceOp`.
        group: anything that `comm_core.as_group` takes; None is the default group.
        tag: must be empty; torch's functions have it at this place.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        The reduction, in flight.

    Shapes: the input's, on every rank.

    Gradient: for `sum` and `avg`, all_reduce of the cotangents with the same reduce op. For `min` and `max` their sum
    goes to the ranks that hold the extremum, in even shares; for `product` it is multiplied by the others' factors.

    Raises:
        CommError: a wrong reduce op, dtype or group; at the call.

    Example:
        >>> from comm_core import World
        >>> World(3).run(lambda group: all_reduce(torch.tensor([1.0, group.rank]), "sum", group).tolist())
        [[3.0, 3.0], [3.0, 3.0], [3.0, 3.0]]
    """
    entry = asked(ALL_REDUCE, "all_reduce", group, backward, tag)
    return comm_core.start(entry, self, in_flight, group, reduce_op=reduceOp)


def all_gather_tensor(
    self: torch.Tensor, gather_dim: int, group: GroupLike = None, tag: str = "", *, backward: str = "adjoint"
) -> torch.Tensor:
    """Concatenate all ranks' tensors along a dim; every rank gets the result.

    Args:
        self: this rank's tensor, of the same shape on every rank.
        gather_dim: the dim to concatenate along; negative counts from the back.
        group: anything that `comm_core.as_group` takes; None is the default group.
        tag: must be empty; torch's functions have it at this place.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        The concatenation in rank order, in flight, contiguous.

    Shapes: the input's, with `gather_dim` multiplied by the group size.

    Gradient: reduce_scatter of the cotangents with `sum`, along the same dim.

    Raises:
        CommError: the tensor has no such dim, or the group is wrong; at the call.

    Example:
        >>> from comm_core import World
        >>> World(2).run(lambda group: all_gather_tensor(torch.tensor([[group.rank]]), 1, group).tolist())
        [[[0, 1]], [[0, 1]]]
    """
    entry = asked(ALL_GATHER, "all_gather_tensor", group, backward, tag)
    return comm_core.start(entry, self, in_flight, group, dim=gather_dim)


def reduce_scatter_tensor(
    self: torch.Tensor,
    reduceOp: object,
    scatter_dim: int,
    group: GroupLike = None,
    tag: str = "",
    *,
    backward: str = "adjoint",
) -> torch.Tensor:
    """Reduce a tensor over all ranks and leave each rank its own block along a dim.

    Args:
        self: this rank's tensor, of the same shape on every rank.
        reduceOp: the reduce op, as a word such as `"sum"` or as a `dist.ReduceOp`.
        scatter_dim: the dim to split; its size must be a multiple of the group size.
        group: anything that `comm_core.as_group` takes; None is the default group.
        tag: must be empty; torch's functions have it at this place.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        This rank's block of the reduction, in flight.

    Shapes: the input's, with `scatter_dim` divided by the group size.

    Gradient: all_gather of the cotangents along the same dim; for `avg`, divided by the group size; for `min`, `max`
    and `product`, times the derivative of the reduction, as for `all_reduce`.

    Raises:
        CommError: a wrong reduce op, dim, size or group; at the call.

    Example:
        >>> from comm_core import World
        >>> World(2).run(lambda group: reduce_scatter_tensor(torch.arange(4), "sum", 0, group).tolist())
        [[0, 2], [4, 6]]
    """
    entry = asked(REDUCE_SCATTER, "reduce_scatter_tensor", group, backward, tag)
    return comm_core.start(entry, self, in_flight, group, reduce_op=reduceOp, dim=scatter_dim)


def all_to_all_single(
    self: torch.Tensor,
    output_split_sizes: Sequence[int] | None,
    input_split_sizes: Sequence[int] | None,
    group: GroupLike = None,
    tag: str = "",
    *,
    backward: str = "adjoint",
) -> torch.Tensor:
    """Send the i-th block of rows to rank i, and concatenate the blocks that arrive, in rank order.

    Args:
        self: this rank's tensor.
        output_split_sizes: how many rows arrive from each rank; None, with the next one None, splits evenly.
        input_split_sizes: how many rows go to each rank.
        group: anything that `comm_core.as_group` takes; None is the default group.
        tag: must be empty; torch's functions have it at this place.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        What arrived, in flight.

    Shapes: the input's, with dim 0 the sum of `output_split_sizes`.

    Gradient: all_to_all of the cotangents with the two split lists swapped.

    Raises:
        CommError: split lists that do not fit the tensor or the group; at the call.

    Example:
        >>> from comm_core import World
        >>> body = lambda group: all_to_all_single(torch.arange(2) + 10 * group.rank, None, None, group).tolist()
        >>> World(2).run(body)
        [[0, 10], [1, 11]]
    """
    entry = asked(ALL_TO_ALL, "all_to_all_single", group, backward, tag)
    splits: dict[str, Any] = {"output_splits": output_split_sizes, "input_splits": input_split_sizes}
    return comm_core.start(entry, self, in_flight, group, **splits)


def broadcast(
    self: torch.Tensor, src: int, group: GroupLike = None, tag: str = "", *, backward: str = "adjoint"
) -> torch.Tensor:
    """Give every rank the source rank's tensor.

    Args:
        self: this rank's tensor, of the same shape on every rank; only the source's values matter.
        src: the source's position in the group, which in a sub-group is not its global rank.
        group: anything that `comm_core.as_group` takes; None is the default group.
        tag: must be empty; torch's functions have it at this place.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        The source's tensor, in flight.

    Shapes: the input's.

    Gradient: the sum of all ranks' cotangents on the source, zero elsewhere.

    Raises:
        CommError: no such rank, or a wrong group; at the call.

    Example:
        >>> from comm_core import World
        >>> World(3).run(lambda group: broadcast(torch.tensor(group.rank), 2, group).item())
        [2, 2, 2]
    """
    entry = asked(BROADCAST, "broadcast", group, backward, tag)
    return comm_core.start(entry, self, in_flight, group, src=src)


def permute_tensor(
    self: torch.Tensor, src_dst: Sequence[int], group: GroupLike = None, tag: str = "", *, backward: str = "adjoint"
) -> torch.Tensor:
    """Send each rank's tensor to the rank that a list names.

    Args:
        self: this rank's tensor, of any number of dims and of the same shape on every rank.
        src_dst: for each rank, the rank that receives its tensor, or -1 for none; no rank may receive two.
        group: anything that `comm_core.as_group` takes; None is the default group.
        tag: must be empty; torch's functions have it at this place.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        What arrived, in flight; zeros on a rank that receives nothing.

    Shapes: the input's.

    Gradient: the inverse permutation of the cotangents.

    Raises:
        CommError: the list is not a partial permutation of the group's ranks, or a wrong group; at the call.

    Example:
        >>> from comm_core import World
        >>> World(3).run(lambda group: permute_tensor(torch.tensor([group.rank]), [1, 2, 0], group).tolist())
        [[2], [0], [1]]
    """
    entry = asked(PERMUTE, "permute_tensor", group, backward, tag)
    return comm_core.start(entry, self, in_flight, group, destinations=src_dst)


def wait_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return the finished tensor of a collective's result; a plain tensor comes back as it is.

    Args:
        tensor: what a collective returned, of this package or of torch's.

    Shapes: the input's.

    Gradient: the identity.

    Raises:
        DtypeError: not a dense tensor.
        TransportError: the collective failed.

    Example:
        >>> wait_tensor(torch.ones(2))
        tensor([1., 1.])
    """
    if isinstance(tensor, AsyncCollectiveTensor):
        return tensor.wait()
    check_dense(tensor, "wait_tensor")
    return comm_core.wait(tensor)


def asked(
    entry: Collective, where: str, group: GroupLike, backward: str = "adjoint", tag: str = "", async_op: bool = False
) -> Collective:
    """Return an entry with the gradient rule that a call asks for, and refuse what only torch's functions can do.

    Raises:
        ArgumentError: no such convention, a tag (groups are named by the group argument alone), or async_op.
    """
    if backward == "adjoint" and not tag and not async_op:
        return entry
    with refusing(group, where):
        if tag:
            raise ArgumentError(where, f"tag {tag!r}", "no tag", "pass the group itself as group=")
        if async_op:
            raise ArgumentError(
                where,
                "async_op=True",
                "async_op=False: the output is finished when the call returns",
                "the functions without _inplace return at once and wait when the result is used",
            )
        return under(entry, backward)


def parsed_group(group: GroupLike) -> tuple[AnyGroup, GroupLike]:
    """Return a group parsed, and what to pass on: in a graph what was given, since Dynamo guards on that each time."""
    if torch.compiler.is_compiling():
        return compiled_group(group), group
    on = comm_core.as_group(group)
    return on, on
