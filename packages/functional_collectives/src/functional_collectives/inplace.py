"""Collectives that write into a tensor they are given: torch.distributed's calls, as functions that a graph can hold.

Dynamo walks this file, so it stays plain. Each form is derived from the catalogue's entry. In eager code without a
gradient the transport writes into the output itself, with no copy; otherwise the functional form runs and its result is
copied in. All have finished when they return.

To autograd each is an in-place write of a differentiable result: the output gets the collective's history, as with
`output.copy_(all_gather_tensor(x))`. An output that autograd cannot write to is refused before anything moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import comm_core
from comm_core import Collective, GroupLike, Missing, SimulatedGroup
from comm_core.catalog import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, REDUCE_SCATTER
from comm_core.checking import refusing
from comm_core.collective import Params
from comm_core.derivatives import is_linear
from comm_core.errors import ArgumentError, CommError, DtypeError, GradientError, ShapeError
from comm_core.groups import AnyGroup
from comm_core.premul import premultiplied
from comm_core.settling import settled
from comm_core.tracing import is_traced
from functional_collectives import torch_compat
from functional_collectives.collectives import asked, parsed_group
from functional_collectives.into import Into


def all_reduce_inplace(
    tensor: torch.Tensor,
    op: object = "sum",
    group: GroupLike = None,
    async_op: bool = False,
    tag: str = "",
    *,
    backward: str = "adjoint",
) -> torch.Tensor:
    """Reduce a tensor over all ranks of a group, into the tensor itself.

    Args:
        tensor: this rank's tensor, and the result.
        op: the reduce op, as a word such as `"sum"` or as a `dist.ReduceOp`.
        group: anything that `comm_core.as_group` takes; None is the default group.
        async_op: must be False; `all_reduce` is asynchronous.
        tag: must be empty; torch's function has it at this place.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        `tensor`.

    Shapes: any, the same on every rank.

    Gradient: as `all_reduce`, into the tensor's history before the call.

    Raises:
        CommError: a wrong reduce op, dtype or group, or a leaf that requires grad; at the call.

    Example:
        >>> from comm_core import World
        >>> World(3).run(lambda group: all_reduce_inplace(torch.tensor([group.rank]), "max", group).tolist())
        [[2], [2], [2]]
    """
    entry = asked(ALL_REDUCE, "all_reduce_inplace", group, backward, tag, async_op)
    return written(entry, tensor, tensor, group, reduce_op=op)


def all_gather_tensor_inplace(
    output_tensor: torch.Tensor,
    input_tensor: torch.Tensor,
    group: GroupLike = None,
    async_op: bool = False,
    tag: str = "",
    gather_dim: int = 0,
    *,
    backward: str = "adjoint",
) -> torch.Tensor:
    """Concatenate all ranks' tensors along a dim, into a given tensor.

    Args:
        output_tensor: the result; the input may be this rank's block of it.
        input_tensor: this rank's tensor, of the same shape on every rank.
        group: anything that `comm_core.as_group` takes; None is the default group.
        async_op: must be False; `all_gather_tensor` is asynchronous.
        tag: must be empty; torch's function has it at this place.
        gather_dim: the dim to concatenate along.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        `output_tensor`.

    Shapes: the output has the input's shape with `gather_dim` multiplied by the group size.

    Gradient: as `all_gather_tensor`, into the input; what the output was before gets zeros.

    Raises:
        CommError: shapes or dtypes that do not fit, no such dim, a wrong group, or an output that is a leaf that
            requires grad; at the call.

    Example:
        >>> from comm_core import World
        >>> def body(group):
        ...     out = torch.empty(2, dtype=torch.int64)
        ...     all_gather_tensor_inplace(out, torch.tensor([group.rank]), group)
        ...     return out.tolist()
        >>> World(2).run(body)
        [[0, 1], [0, 1]]
    """
    entry = asked(ALL_GATHER, "all_gather_tensor_inplace", group, backward, tag, async_op)
    return written(entry, output_tensor, input_tensor, group, dim=gather_dim)


def reduce_scatter_tensor_inplace(
    output: torch.Tensor,
    input: torch.Tensor,
    op: object = "sum",
    group: GroupLike = None,
    async_op: bool = False,
    scatter_dim: int = 0,
    tag: str = "",
    *,
    backward: str = "adjoint",
) -> torch.Tensor:
    """Reduce a tensor over all ranks and leave each rank its own block along a dim, in a given tensor.

    Args:
        output: the result.
        input: this rank's tensor, of the same shape on every rank.
        op: the reduce op, as a word such as `"sum"` or as a `dist.ReduceOp`.
        group: anything that `comm_core.as_group` takes; None is the default group.
        async_op: must be False; `reduce_scatter_tensor` is asynchronous.
        scatter_dim: the dim to split; its size must be a multiple of the group size.
        tag: must be empty; torch's function has it at this place.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        `output`.

    Shapes: the output has the input's shape with `scatter_dim` divided by the group size.

    Gradient: as `reduce_scatter_tensor`, into the input; what the output was before gets zeros.

    Raises:
        CommError: a wrong reduce op, dim, group or dtype, shapes that do not fit, or an output that is a leaf that
            requires grad; at the call.

    Example:
        >>> from comm_core import World
        >>> def body(group):
        ...     return reduce_scatter_tensor_inplace(torch.empty(1), torch.ones(2), "sum", group).tolist()
        >>> World(2).run(body)
        [[2.0], [2.0]]
    """
    entry = asked(REDUCE_SCATTER, "reduce_scatter_tensor_inplace", group, backward, tag, async_op)
    return written(entry, output, input, group, reduce_op=op, dim=scatter_dim)


def all_to_all_inplace(
    output: torch.Tensor,
    input: torch.Tensor,
    output_split_sizes: Sequence[int] | None = None,
    input_split_sizes: Sequence[int] | None = None,
    group: GroupLike = None,
    async_op: bool = False,
    tag: str = "",
    *,
    backward: str = "adjoint",
) -> torch.Tensor:
    """Send the i-th block of rows to rank i, and put the blocks that arrive into a given tensor, in rank order.

    Args:
        output: the result.
        input: this rank's tensor.
        output_split_sizes: how many rows arrive from each rank; None, with the next one None, splits evenly.
        input_split_sizes: how many rows go to each rank.
        group: anything that `comm_core.as_group` takes; None is the default group.
        async_op: must be False; `all_to_all_single` is asynchronous.
        tag: must be empty; torch's function has it at this place.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        `output`.

    Shapes: the output has the input's shape with dim 0 the sum of `output_split_sizes`.

    Gradient: as `all_to_all_single`, into the input; what the output was before gets zeros.

    Raises:
        CommError: splits, shapes or dtypes that do not fit, a wrong group, or an output that is a leaf that requires
            grad; at the call.

    Example:
        >>> from comm_core import World
        >>> def body(group):
        ...     x = torch.arange(2) + 10 * group.rank
        ...     return all_to_all_inplace(torch.empty_like(x), x, group=group).tolist()
        >>> World(2).run(body)
        [[0, 10], [1, 11]]
    """
    entry = asked(ALL_TO_ALL, "all_to_all_inplace", group, backward, tag, async_op)
    splits: dict[str, Any] = {"output_splits": output_split_sizes, "input_splits": input_split_sizes}
    return written(entry, output, input, group, **splits)


def written(entry: Collective, out: torch.Tensor, x: torch.Tensor, group: GroupLike, **params: Any) -> torch.Tensor:
    """Run a collective to its end with its result in `out`, which may be its input."""
    in_place = out is x and not isinstance(entry.in_place, Missing)
    on, door = parsed_group(group)
    with refusing(door, entry.name):
        x, parsed = fitting(entry, out, x, on, params)
    if is_direct(out, x, on, in_place):
        result = entry.kernel(Into(comm_core.transport(on), out), x, **parsed).wait()
        if result is not out:
            return out.copy_(result)
        if not out.is_inference():
            torch.autograd.graph.increment_version(out)  # the transport wrote behind autograd's back
        return out
    return out.copy_(comm_core.run(entry, kept(entry, out, x, parsed), door, **parsed))


def fitting(
    entry: Collective, out: torch.Tensor, x: torch.Tensor, on: AnyGroup, params: dict[str, Any]
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Return the input settled and the parameters parsed, where the result fits into `out`.

    Raises:
        CommError: it does not, or an argument is wrong.
    """
    x, params = premultiplied(settled(x, entry.name), params, entry.name, written=True)
    try:
        parsed = entry.check(x, on.world, on.rank, **params)
    except CommError as error:  # anew, by position: of an error's arguments Dynamo shows only those
        raise type(error)(error.where, error.got, error.need, error.hint) from None
    check_output(out, x, entry.shape(tuple(x.shape), on.world, on.rank, **parsed), entry.name)
    return x, parsed


def is_direct(out: torch.Tensor, x: torch.Tensor, on: AnyGroup, in_place: bool) -> bool:
    """Tell whether the transport may write into the output: no graph, no gradient, no other view of what is sent."""
    if is_traced(out) or is_traced(x) or x.is_meta or isinstance(on, SimulatedGroup):
        return False
    if torch_compat.is_transformed(x) or torch_compat.forward_ad_active():
        return False
    if torch.is_grad_enabled() and (x.requires_grad or out.requires_grad):
        return False
    if out.is_conj() or out.is_neg():  # its memory has other values
        return False
    return out.is_contiguous() and (in_place or not torch_compat.shares_storage(out, x))


def kept(entry: Collective, out: torch.Tensor, x: torch.Tensor, params: Params) -> torch.Tensor:
    """Return the input, or a copy of it where backward looks at its values and the result is written over them."""
    if is_linear(entry, params) or not (torch.is_grad_enabled() and x.requires_grad):
        return x
    watched = is_traced(x) or torch_compat.is_transformed(x)  # then no storage tells
    return x.clone() if watched or torch_compat.shares_storage(out, x) else x


def is_expanded(out: torch.Tensor) -> bool:
    """Tell whether several elements of a tensor are one in memory, as `expand` makes them.

    Example:
        >>> is_expanded(torch.ones(1).expand(3)), is_expanded(torch.ones(3))
        (True, False)
    """
    return any(stride == 0 and size > 1 for stride, size in zip(out.stride(), out.shape, strict=True))


def check_output(out: torch.Tensor, x: torch.Tensor, shape: tuple[int, ...], where: str) -> None:
    """Refuse an output that the result does not fit into, or that torch would refuse after the ranks have met.

    Raises:
        DtypeError, ShapeError, ArgumentError, GradientError: as said.
    """
    if not isinstance(out, torch.Tensor) or out.dtype != x.dtype or out.device != x.device:
        got = f"{out.dtype} on {out.device}" if isinstance(out, torch.Tensor) else f"a {type(out).__name__}"
        raise DtypeError(where, f"an output that is {got}", f"a tensor of {x.dtype} on {x.device}")
    if tuple(out.shape) != shape:
        raise ShapeError(where, f"an output of shape {tuple(out.shape)}", f"one of shape {shape}")
    if not torch.compiler.is_compiling() and is_expanded(out):
        raise ArgumentError(
            where,
            f"an output of strides {tuple(out.stride())}, of which several elements are one",
            "an output with a place of its own for each element",
            "pass out.clone()",
        )
    if torch.is_grad_enabled() and out.requires_grad and torch_compat.is_leaf_or_view_of_one(out):
        raise GradientError(
            where,
            "an output that is a leaf that requires grad, or a view of one",
            "an output that autograd may write to",
            "call it under torch.no_grad(), or pass out.detach()",
        )
