"""Several tensors in one call.

Dynamo walks this file, so it stays plain. Each function is derived from the catalogue's entry for one tensor: the
whole list is checked before anything moves; reductions pack what has one dtype and device into one buffer, so that
it is one message instead of many (and one in backward); a gather, which would have to copy twice for that, starts
one collective for each tensor, all in flight together.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

import comm_core
from comm_core import Collective, GroupLike
from comm_core.catalog import ALL_GATHER, ALL_REDUCE, REDUCE_SCATTER
from comm_core.checking import agree_on_list, refusing
from comm_core.errors import ArgumentError, CommError, DtypeError, said
from comm_core.filling import is_copied
from comm_core.groups import AnyGroup
from comm_core.premul import parted, premul_sum
from comm_core.recordings import with_gradient
from comm_core.settling import arrived, resolved
from comm_core.wires import process_transport
from functional_collectives.async_tensor import AsyncCollectiveTensor
from functional_collectives.collectives import asked, parsed_group
from functional_collectives.flight import in_flight
from functional_collectives.inplace import is_direct
from functional_collectives.into import Into
from functional_collectives.packing import side_by_side

Tensors = Sequence[torch.Tensor]

LARGE = 1 << 20  # bytes of a tensor, from which the copy into a common message costs more than a message of its own


def all_reduce_coalesced(
    self: Iterable[torch.Tensor], reduceOp: object, group: GroupLike = None, tag: str = "", *, backward: str = "adjoint"
) -> list[torch.Tensor]:
    """Reduce each tensor of a list over all ranks of a group; every rank gets all results.

    Args:
        self: this rank's tensors; neither they nor the list is changed. Every rank passes as many of the same shapes.
        reduceOp: the reduce op for all of them, as a word such as `"sum"` or as a `dist.ReduceOp`.
        group: anything that `comm_core.as_group` takes; None is the default group.
        tag: must be empty; torch's functions have it at this place.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        The reductions, in flight, in the order of the list. Those of one dtype are views of one buffer.

    Shapes: each result has its input's.

    Gradient: as `all_reduce`, with one message for all cotangents of a dtype. Where one input of a dtype requires grad,
    all results of that dtype do; only their clones may be written in place then.

    Raises:
        CommError: not a list of tensors, or a wrong reduce op, dtype or group; before anything moves.

    Example:
        >>> from comm_core import World
        >>> def body(group):
        ...     ys = all_reduce_coalesced([torch.ones(2), torch.tensor(group.rank)], "sum", group)
        ...     return [y.tolist() for y in ys]
        >>> World(3).run(body)
        [[[3.0, 3.0], 3], [[3.0, 3.0], 3], [[3.0, 3.0], 3]]
    """
    where = "all_reduce_coalesced"
    entry = asked(ALL_REDUCE, where, group, backward, tag)
    with refusing(group, where):
        given = listed(self, where)
        params = [{"reduce_op": reduceOp} for _ in given]
    xs, parsed, factors = checked(entry, given, params, group, where)
    return reduced(entry, xs, parsed, factors, group)


def all_gather_into_tensor_coalesced(
    self: Iterable[torch.Tensor], group: GroupLike = None, tag: str = "", *, backward: str = "adjoint"
) -> list[torch.Tensor]:
    """Concatenate all ranks' tensors along dim 0, for each tensor of a list; every rank gets all results.

    Args:
        self: this rank's tensors; every rank passes as many, of the same shapes.
        group: anything that `comm_core.as_group` takes; None is the default group.
        tag: must be empty; torch's functions have it at this place.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        The concatenations in rank order, in flight, in the order of the list.

    Shapes: each result has its input's, with dim 0 multiplied by the group size.

    Gradient: as `all_gather_tensor`.

    Raises:
        CommError: not a list of tensors, a tensor without dims, or a wrong group; before anything moves.

    Example:
        >>> from comm_core import World
        >>> def body(group):
        ...     ys = all_gather_into_tensor_coalesced([torch.tensor([group.rank]), torch.ones(1, 1)], group)
        ...     return [y.tolist() for y in ys]
        >>> World(2).run(body)
        [[[0, 1], [[1.0], [1.0]]], [[0, 1], [[1.0], [1.0]]]]
    """
    where = "all_gather_into_tensor_coalesced"
    entry = asked(ALL_GATHER, where, group, backward, tag)
    with refusing(group, where):
        given = listed(self, where)
        params = [{"dim": 0} for _ in given]
    xs, parsed, _ = checked(entry, given, params, group, where)
    on, door = parsed_group(group)
    if on.backend == "gloo" and all(map(is_at_hand, xs)):
        return gathered_together(entry, xs, on)
    return [comm_core.start(entry, x, in_flight, door, **own) for x, own in zip(xs, parsed, strict=True)]


def reduce_scatter_tensor_coalesced(
    inputs: Iterable[torch.Tensor],
    reduceOp: object,
    scatter_dim: Sequence[int],
    group: GroupLike = None,
    tag: str = "",
    *,
    backward: str = "adjoint",
) -> list[torch.Tensor]:
    """Reduce each tensor of a list over all ranks and leave each rank its own block of each.

    Args:
        inputs: this rank's tensors; neither they nor the list is changed. Every rank passes as many of the same shapes.
        reduceOp: the reduce op for all of them, as a word such as `"sum"` or as a `dist.ReduceOp`.
        scatter_dim: for each tensor, the dim to split; its size must be a multiple of the group size.
        group: anything that `comm_core.as_group` takes; None is the default group.
        tag: must be empty; torch's functions have it at this place.
        backward: the gradient's convention, `"adjoint"` or `"identity"`.

    Returns:
        This rank's blocks, in flight, in the order of the list. Those of one dtype are views of one buffer; eager, and
        where the tensors have 1 MiB or more on average, they have messages and buffers of their own.

    Shapes: each result has its input's, with its `scatter_dim` divided by the group size.

    Gradient: as `reduce_scatter_tensor`, with one message for all cotangents of a buffer. Where one input of those that
    share a buffer requires grad, all their results do; only their clones may be written in place then.

    Raises:
        CommError: not a list of tensors, not one dim for each, or a wrong reduce op, dim, size or group; before
            anything moves.

    Example:
        >>> from comm_core import World
        >>> def body(group):
        ...     ys = reduce_scatter_tensor_coalesced([torch.arange(2), torch.ones(1, 4)], "sum", [0, 1], group)
        ...     return [y.tolist() for y in ys]
        >>> World(2).run(body)
        [[[0], [[2.0, 2.0]]], [[2], [[2.0, 2.0]]]]
    """
    where = "reduce_scatter_tensor_coalesced"
    entry = asked(REDUCE_SCATTER, where, group, backward, tag)
    with refusing(group, where):
        given = listed(inputs, where)
        dims = one_for_each(scatter_dim, given, where)
    params = [{"reduce_op": reduceOp, "dim": dim} for dim in dims]
    xs, parsed, factors = checked(entry, given, params, group, where)
    if all(map(is_at_hand, xs, factors)) and sum(x.nbytes for x in xs) >= LARGE * len(xs):
        return [alone(entry, *of_one, group) for of_one in zip(xs, parsed, factors, strict=True)]
    return reduced(entry, xs, parsed, factors, group)


def listed(xs: Iterable[torch.Tensor], where: str) -> Tensors:
    """Return tensors as a list; a single tensor is refused, whose rows would be taken for it.

    Raises:
        DtypeError: a tensor, or nothing that can be gone through.
    """
    if isinstance(xs, (list, tuple)):
        return xs
    if isinstance(xs, torch.Tensor) or not hasattr(xs, "__iter__"):
        raise DtypeError(where, f"a {type(xs).__name__}", "a list of tensors", "put it in a list: [x]")
    return list(xs)


def one_for_each(dims: Sequence[int], xs: Tensors, where: str) -> Sequence[int]:
    """Return the dims, one for each tensor.

    Raises:
        ArgumentError: not a list, or one of another length.
    """
    if not isinstance(dims, (list, tuple)) or len(dims) != len(xs):
        raise ArgumentError(where, f"scatter_dim {said(dims)}", f"a list of {len(xs)} dims, one for each tensor")
    return dims


def checked(
    entry: Collective, xs: Tensors, params: Sequence[dict[str, Any]], group: GroupLike, where: str
) -> tuple[list[torch.Tensor], list[dict[str, Any]], list[Any]]:
    """Settle all tensors and parse all parameters, and compare them in checked mode, before any collective starts.

    Raises:
        CommError: naming which tensor of the list is wrong.
    """
    on, _ = parsed_group(group)
    with refusing(group, where):
        ready, parsed, factors = parsed_list(entry, xs, params, on, where)
    if not torch.compiler.is_dynamo_compiling():
        agree_on_list(on, entry, ready, parsed, where)
    return ready, parsed, factors


def parsed_list(
    entry: Collective, xs: Tensors, params: Sequence[dict[str, Any]], on: AnyGroup, where: str
) -> tuple[list[torch.Tensor], list[dict[str, Any]], list[Any]]:
    """Settle all tensors and parse all parameters; of a premultiplied sum, return each tensor's factor apart.

    Raises:
        CommError: naming which tensor of the list is wrong.
    """
    ready, parsed, factors = [], [], []
    for place, x in enumerate(xs):
        try:
            x = arrived(x, where)
            factor, own = parted(x, params[place], where)
            parsed.append(entry.check(x, on.world, on.rank, **own))
        except CommError as error:
            raise type(error)(f"{where}, tensor {place}", error.got, error.need, error.hint) from None
        ready.append(x)
        factors.append(factor)
    return ready, parsed, factors


def alone(entry: Collective, x: torch.Tensor, params: dict[str, Any], factor: Any, group: GroupLike) -> torch.Tensor:
    """Start a reduction of one tensor."""
    of_one = params if factor is None else {**params, "reduce_op": premul_sum(factor)}
    _, door = parsed_group(group)
    return comm_core.start(entry, x, in_flight, door, **of_one)


def reduced(
    entry: Collective, xs: Tensors, parsed: Sequence[dict[str, Any]], factors: Sequence[Any], group: GroupLike
) -> list[torch.Tensor]:
    """Start a reduction of every tensor: one for all of a dtype and device, over a buffer of theirs."""
    on, door = parsed_group(group)
    results = list(xs)
    for places in by_kind(xs):
        first = places[0]
        if len(places) == 1:
            results[first] = alone(entry, xs[first], parsed[first], factors[first], group)
            continue
        cut = [blocks(xs[place], on.world, parsed[place].get("dim")) for place in places]
        matrix = side_by_side(cut, factors[first])
        together = {name: 0 if name == "dim" else value for name, value in parsed[first].items()}
        if entry is ALL_REDUCE and is_direct(matrix, matrix, on, in_place=True):  # nobody else has the matrix
            whole = in_flight(entry.kernel(Into(comm_core.transport(on), matrix), matrix, **together))
        else:
            whole = comm_core.start(entry, matrix, in_flight, door, **together)
        shapes = [entry.shape(tuple(xs[place].shape), on.world, on.rank, **parsed[place]) for place in places]
        for place, piece in zip(places, pieces(whole, shapes), strict=True):
            results[place] = piece
    return results


def pieces(whole: torch.Tensor, shapes: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    """Return the tensors that lie in a result one behind the other; of one in flight, by one view each."""
    sizes = [math.prod(shape) for shape in shapes]
    if type(whole) is not AsyncCollectiveTensor or whole.requires_grad:
        return [part.view(shape) for part, shape in zip(whole.view(sum(sizes)).split(sizes), shapes, strict=True)]
    starts = itertools.accumulate(sizes[:-1], initial=0)
    return [whole.as_strided(shape, row_major(shape), start) for shape, start in zip(shapes, starts, strict=True)]


def row_major(shape: tuple[int, ...]) -> list[int]:
    """Return the strides of a contiguous tensor.

    Example:
        >>> row_major((2, 3, 4))
        [12, 4, 1]
    """
    return [math.prod(shape[place + 1 :]) for place in range(len(shape))]


def is_at_hand(x: torch.Tensor, factor: Any = None) -> bool:
    """Tell whether nothing but autograd looks at a tensor and its factor; ranks may want gradients or not."""
    return is_copied(x, factor) and not x.is_meta


def gathered_together(entry: Collective, xs: Tensors, on: AnyGroup) -> list[torch.Tensor]:
    """Start the gather of all tensors of a dtype as one piece of work: over gloo several cost several round trips."""
    wire = process_transport(on)
    results = list(xs)
    for places in by_kind(xs):
        sent = [resolved(xs[place]) for place in places]
        for place, x, pending in zip(places, sent, wire.all_gather_coalesced(sent), strict=True):
            results[place] = with_gradient(entry, x, on, {"dim": 0}, functools.partial(in_flight, pending))
    return results


def by_kind(xs: Tensors) -> list[list[int]]:
    """Return the places of the tensors that can share a buffer: those of one dtype and device.

    Example:
        >>> by_kind([torch.ones(1), torch.tensor(1), torch.ones(2)])
        [[0, 2], [1]]
    """
    kinds: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for place, x in enumerate(xs):
        kinds.setdefault((x.dtype, x.device), []).append(place)
    return list(kinds.values())


def blocks(x: torch.Tensor, world: int, dim: int | None) -> torch.Tensor:
    """Return a view of each rank's block of `x` along a dim, in front; without a dim, one block of all of it.

    Example:
        >>> blocks(torch.arange(8).view(2, 4), 2, 1).tolist()
        [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    """
    return x.unsqueeze(0) if dim is None else x.unflatten(dim, (world, x.shape[dim] // world)).movedim(dim, 0)
