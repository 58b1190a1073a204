"""Transports: what moves contiguous blocks between ranks, along dim 0, and nothing else.

A kernel of the catalogue arranges its input, calls one method of a transport, and arranges the result; so the same
kernel runs over a process group, in a traced graph and in the simulator.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn, Protocol

import torch
import torch.distributed as dist

from comm_core import compat
from comm_core.errors import CommError, ReduceOpError, TransportError, first_line
from comm_core.extents import total
from comm_core.groups import AnyGroup
from comm_core.messages import AllOf, Exchange, Messages, Pieces, exchanged
from comm_core.outbox import OUTBOX, Sent
from comm_core.pending import Pending
from comm_core.reduce_ops import c10d_op

_MOVES_AS = {
    torch.bool: torch.uint8,
    torch.int16: torch.float16,
    torch.uint16: torch.float16,
    torch.uint32: torch.int32,
    torch.uint64: torch.int64,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e4m3fnuz: torch.uint8,
    torch.float8_e5m2: torch.uint8,
    torch.float8_e5m2fnuz: torch.uint8,
    torch.float8_e8m0fnu: torch.uint8,
    torch.float4_e2m1fn_x2: torch.uint8,
}
_SAME = frozenset(  # what every backend reduces and moves as it is
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int8, torch.uint8}
)
_CANNOT_REDUCE = {"gloo": {dtype for dtype in _MOVES_AS if dtype is not torch.bool}}
ON_BYTES = {"sum": "max", "product": "min", "band": "min", "bor": "max"}  # bool as 0 and 1 in a uint8


class Transport(Protocol):
    """What a kernel may ask of the ranks' connection; every method returns at once, with a `Pending`.

    Shapes: inputs are contiguous; `out`, when given, is contiguous and of the result's shape. For `all_reduce` and
    `broadcast` it may be the input itself (in place); for `all_gather` the input may be the rank-th block of it.
    """

    rank: int
    world: int

    def all_reduce(self, x: torch.Tensor, reduce_op: str, out: torch.Tensor | None = None) -> Pending:
        """Reduce over ranks; the result is `x`'s shape on every rank."""
        ...

    def all_gather(self, x: torch.Tensor, out: torch.Tensor | None = None) -> Pending:
        """Concatenate all ranks' blocks along dim 0."""
        ...

    def all_gather_v(self, x: torch.Tensor, sizes: Sequence[int], out: torch.Tensor | None = None) -> Pending:
        """Concatenate all ranks' blocks, of these sizes, along dim 0."""
        ...

    def reduce_scatter(self, x: torch.Tensor, reduce_op: str, out: torch.Tensor | None = None) -> Pending:
        """Reduce over ranks and keep the rank-th of `world` blocks along dim 0."""
        ...

    def all_to_all(
        self,
        x: torch.Tensor,
        output_splits: Sequence[int],
        input_splits: Sequence[int],
        out: torch.Tensor | None = None,
    ) -> Pending:
        """Send the i-th block along dim 0 to rank i and concatenate what arrives in rank order."""
        ...

    def broadcast(self, x: torch.Tensor, src: int, out: torch.Tensor | None = None) -> Pending:
        """Give every rank the tensor of the rank `src` of the group."""
        ...

    def reduce(self, x: torch.Tensor, reduce_op: str, dst: int, out: torch.Tensor | None = None) -> Pending:
        """Reduce over ranks; the result is on the rank `dst` of the group, and zeros are elsewhere."""
        ...

    def batch_p2p(
        self,
        x: torch.Tensor,
        sends: Messages,
        receives: Messages,
        out: torch.Tensor | None = None,
        reverse: bool = False,
    ) -> Pending:
        """Send blocks of rows to other ranks and concatenate what is received, in the order of `receives`.

        Those of one peer and tag meet in the order of the lists, or in the reverse one.
        """
        ...

    def wait(self, x: torch.Tensor) -> Pending:
        """Give a tensor that an earlier collective made, finished."""
        ...


def enlarged(x: torch.Tensor, rows: int) -> tuple[int, ...]:
    """Return `x`'s shape with another size in dim 0."""
    return (rows, *x.shape[1:])


def given_to_all(
    group: AnyGroup, x: torch.Tensor, output_splits: Sequence[int], input_splits: Sequence[int]
) -> tuple[torch.Tensor, Sequence[int]]:
    """Return what a rank hands to an all_to_all, and its splits: what it sends, but for torch's fake group.

    That one moves nothing, and refuses a rank that only receives (2.11 to 2.14); there what would arrive stands for it.
    """
    if group.backend != "fake" or not compat.known(x.shape[0] == 0):
        return x, input_splits
    return x.new_zeros(enlarged(x, 1)).expand(enlarged(x, total(output_splits))), output_splits


class ProcessGroupTransport:
    """The methods of a c10d process group, called directly: no dispatcher and no wrapper on the way.

    Args:
        group: the group to run on.

    Raises:
        TransportError: at the call, when the process group refuses it; from `Pending.wait`, when it fails later.
    """

    def __init__(self, group: AnyGroup) -> None:
        self.rank = group.rank
        self.world = group.world
        self._group = group
        self._cannot_reduce: Collection[torch.dtype] = _CANNOT_REDUCE.get(group.backend, ())

    def _start(self, what: str, out: torch.Tensor, method: Callable[..., Any], *args: Any) -> Pending:
        """Call a method of the process group and keep its arguments alive until the wait."""
        try:
            work = method(*args)
        except CommError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:
            raise TransportError(
                what,
                got=f"{out.dtype} on {out.device}, which {self._group.backend} refused: {first_line(error)}",
                hint="cast or move the tensor, or use a group of another backend",
            ) from error
        return Pending(out, work, args, what)

    def _refuse_dtype(self, what: str, x: torch.Tensor) -> NoReturn:
        """Refuse at the call what this backend would only refuse at the wait."""
        raise ReduceOpError(
            what,
            got=f"a reduction of {x.dtype}, which {self._group.backend} does not have",
            need="a dtype that the backend reduces",
            hint="cast to a wider type, for example x.int() or x.float()",
        )

    def all_reduce(self, x: torch.Tensor, reduce_op: str, out: torch.Tensor | None = None) -> Pending:
        """Run `ProcessGroup.allreduce` on a copy of `x`, or on `out`."""
        dtype = x.dtype
        if dtype in self._cannot_reduce:
            self._refuse_dtype("all_reduce", x)
        out = _filled(out, x)
        moved, op = (out, reduce_op) if dtype in _SAME else _to_reduce(out, reduce_op)
        return self._start("all_reduce", out, self._group.process_group.allreduce, [moved], _all_reduce_options(op))

    def all_gather(self, x: torch.Tensor, out: torch.Tensor | None = None) -> Pending:
        """Run the process group's gather into one tensor."""
        x = _detached(x)
        if out is None:
            rows, *row = x.shape
            out = x.new_empty(rows * self.world, *row)
        gather = getattr(self._group.process_group, compat.ALL_GATHER)
        pending = self._start("all_gather", out, gather, _to_move(out), _to_move(x))
        pending.sends(x)
        return pending

    def all_gather_coalesced(self, xs: Sequence[torch.Tensor]) -> list[Pending]:
        """Gather several tensors of one dtype in one piece of work, which all results share."""
        ready = [_detached(x).contiguous() for x in xs]
        outs = [x.new_empty(*enlarged(x, x.shape[0] * self.world)) for x in ready]
        gather = self._group.process_group.allgather_into_tensor_coalesced
        moved = [_to_move(out) for out in outs], [_to_move(x) for x in ready]
        together = self._start("all_gather_coalesced", outs[0], gather, *moved)
        pendings = [Pending(out, together, x, "all_gather") for out, x in zip(outs, ready, strict=True)]
        for pending, x in zip(pendings, ready, strict=True):
            pending.sends(x)
        return pendings

    def all_gather_v(self, x: torch.Tensor, sizes: Sequence[int], out: torch.Tensor | None = None) -> Pending:
        """Run a broadcast for each rank, into its part of the result: no copies, and the fewest bytes."""
        x = _detached(x)
        if out is None:
            out = x.new_empty(*enlarged(x, sum(sizes)))
        parts = _to_move(out).split(list(sizes))
        parts[self.rank].copy_(_to_move(x))
        start = self._group.process_group.broadcast
        works = [
            self._start("all_gather_v", out, start, [part], _from(src)) for src, part in enumerate(parts) if sizes[src]
        ]
        return Pending(out, AllOf(works), parts, "all_gather_v")

    def reduce_scatter(self, x: torch.Tensor, reduce_op: str, out: torch.Tensor | None = None) -> Pending:
        """Run the process group's reduce and scatter of one tensor."""
        if x.dtype in self._cannot_reduce:
            self._refuse_dtype("reduce_scatter", x)
        x = _detached(x)
        if out is None:
            rows, *row = x.shape
            out = x.new_empty(rows // self.world, *row)
        moved, into, op = x, out, reduce_op
        if x.dtype not in _SAME:
            moved, op = _to_reduce(x, reduce_op)
            into, _ = _to_reduce(out, reduce_op)
        scatter = getattr(self._group.process_group, compat.REDUCE_SCATTER)
        pending = self._start("reduce_scatter", out, scatter, into, moved, _reduce_scatter_options(op))
        pending.sends(x)
        return pending

    def all_to_all(
        self,
        x: torch.Tensor,
        output_splits: Sequence[int],
        input_splits: Sequence[int],
        out: torch.Tensor | None = None,
    ) -> Pending:
        """Run `ProcessGroup.alltoall_base`."""
        x, input_splits = given_to_all(self._group, _detached(x), output_splits, input_splits)
        if out is None:
            out = x.new_empty(*enlarged(x, sum(output_splits)))
        exchange = self._group.process_group.alltoall_base
        splits = list(output_splits), list(input_splits)
        pending = self._start("all_to_all", out, exchange, _to_move(out), _to_move(x), *splits)
        pending.sends(x)
        return pending

    def broadcast(self, x: torch.Tensor, src: int, out: torch.Tensor | None = None) -> Pending:
        """Run `ProcessGroup.broadcast` on a copy of `x`, or on `out`."""
        out = _filled(out, x)
        return self._start("broadcast", out, self._group.process_group.broadcast, [_to_move(out)], _from(src))

    def reduce(self, x: torch.Tensor, reduce_op: str, dst: int, out: torch.Tensor | None = None) -> Pending:
        """Run `ProcessGroup.reduce` on a copy of `x`, or on `out`."""
        if x.dtype in self._cannot_reduce:
            self._refuse_dtype("reduce", x)
        out = _filled(out, x)
        moved, op = _to_reduce(out, reduce_op)
        pending = self._start("reduce", out, self._group.process_group.reduce, [moved], _to_one(op, dst))
        return pending if self.rank == dst else pending.then(torch.Tensor.zero_, tuple(out.shape))

    def batch_p2p(
        self,
        x: torch.Tensor,
        sends: Messages,
        receives: Messages,
        out: torch.Tensor | None = None,
        reverse: bool = False,
    ) -> Pending:
        """Start all receives, then all sends, and wait for all: so no order of theirs can be a deadlock."""
        OUTBOX.raise_failed(self)
        x = _detached(x)
        if out is None:
            out = x.new_empty(*enlarged(x, sum(rows for _, rows, _ in receives)))
        pieces = Pieces(_to_move(x), sends, reverse), Pieces(_to_move(out), receives, reverse)
        works = exchanged(self._group, *pieces, out, self._start)
        work, name = Exchange(works), self._group.name
        pending = Pending(out, work, pieces, "batch_p2p") if receives else Sent(out, work, pieces, name, self)
        pending.sends(x)
        return pending

    def wait(self, x: torch.Tensor) -> Pending:
        """Wait through torch's registry of works; nothing is registered for a finished tensor."""
        return Pending(torch.ops._c10d_functional.wait_tensor(x))


@functools.cache
def _all_reduce_options(word: str) -> dist.AllreduceOptions:
    """Return c10d's options of a reduce op: made once, as no backend writes to them."""
    options = dist.AllreduceOptions()
    options.reduceOp = c10d_op(word)  # type: ignore[assignment]
    return options


@functools.cache
def _reduce_scatter_options(word: str) -> dist.ReduceScatterOptions:
    """Return c10d's options of a reduce op: made once, as no backend writes to them."""
    options = dist.ReduceScatterOptions()
    options.reduceOp = c10d_op(word)  # type: ignore[assignment]
    return options


@functools.cache
def _to_one(word: str, dst: int) -> dist.ReduceOptions:
    """Return c10d's options of a reduce op and its destination: made once, as no backend writes to them."""
    options = dist.ReduceOptions()
    options.reduceOp = c10d_op(word)  # type: ignore[assignment]
    options.rootRank = dst
    return options


@functools.cache
def _from(src: int) -> dist.BroadcastOptions:
    """Return c10d's options of a source: made once, as no backend writes to them."""
    options = dist.BroadcastOptions()
    options.rootRank = src
    return options


def _detached(x: torch.Tensor) -> torch.Tensor:
    return x.detach() if x.requires_grad else x


def _filled(out: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    if out is None:
        own = x.detach() if x.requires_grad else x
        return own.clone() if own.is_contiguous() else own.clone(memory_format=torch.contiguous_format)
    return out if out is x else out.copy_(x.detach())


def _to_move(x: torch.Tensor) -> torch.Tensor:
    """Show a tensor to the transport in a dtype of the same width that every backend can move."""
    if x.dtype in _SAME:
        return x
    if x.is_complex():
        return torch.view_as_real(x)
    return x.view(_MOVES_AS[x.dtype]) if x.dtype in _MOVES_AS else x


def _to_reduce(x: torch.Tensor, reduce_op: str) -> tuple[torch.Tensor, str]:
    """Show a tensor to the transport so that the reduce op of the word means the same there."""
    if x.dtype in _SAME:
        return x, reduce_op
    if x.dtype is torch.bool:
        return x.view(torch.uint8), ON_BYTES.get(reduce_op, reduce_op)
    return torch.view_as_real(x) if x.is_complex() else x, reduce_op
