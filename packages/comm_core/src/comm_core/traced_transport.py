"""The transport of traced code: the ops of torch that a graph holds, and ours where torch has none.

Dynamo walks this file, so it stays plain: module-level functions, no closures from factories.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch

from comm_core import inductor_compat, own_ops
from comm_core.groups import AnyGroup
from comm_core.messages import Messages
from comm_core.pending import Pending
from comm_core.transports import ON_BYTES, given_to_all

Step = Callable[[torch.Tensor], torch.Tensor]


class UnderWay(Pending):
    """The result of an op of a graph whose wait, and what follows it, stands where `wait` is called.

    Args:
        tensor: what the op returned.
    """

    __slots__ = ("_finished", "_steps")

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__(tensor)
        self._steps: list[Step] = []
        self._finished = False

    def then(self, finish: Step, shape: tuple[int, ...]) -> Pending:
        """Add a step that makes the result, of the given shape, of what has arrived."""
        self._shape = shape
        self._steps.append(finish)
        return self

    def wait(self) -> torch.Tensor:
        """Emit the wait and the steps, the first time, and return the result."""
        if not self._finished:
            self._finished = True
            self.tensor = torch.ops._c10d_functional.wait_tensor(self.tensor)
            for step in self._steps:
                self.tensor = step(self.tensor)
        return self.tensor


class TracedTransport:
    """The `_c10d_functional` ops: what graphs are made of.

    Args:
        group: the group to run on.
        waits: whether each op has its wait at once, so that overlap is the compiler's work, which moves the waits; else
            `Pending.wait` emits it.
    """

    def __init__(self, group: AnyGroup, waits: bool = True) -> None:
        inductor_compat.keep_reads("tracing")
        self.rank = group.rank
        self.world = group.world
        self._group = group
        self._name = group.name
        self._waits = waits

    def begun(self, started: torch.Tensor, out: torch.Tensor | None) -> Pending:
        """Return what an op started, into `out` where one is given."""
        if self._waits:
            finished = torch.ops._c10d_functional.wait_tensor(started)
            return Pending(finished if out is None else out.copy_(finished))
        pending = UnderWay(started)
        return pending if out is None else pending.then(out.copy_, tuple(out.shape))

    def all_reduce(self, x: torch.Tensor, reduce_op: str, out: torch.Tensor | None = None) -> Pending:
        """Trace `_c10d_functional.all_reduce`."""
        return self.begun(torch.ops._c10d_functional.all_reduce(x, reduce_op, self._name), out)

    def all_gather(self, x: torch.Tensor, out: torch.Tensor | None = None) -> Pending:
        """Trace `_c10d_functional.all_gather_into_tensor`; of bytes for bools, which Inductor would widen (2.13)."""
        if x.dtype is torch.bool:
            return _as_bools(self.all_gather(x.view(torch.uint8)), out)
        return self.begun(torch.ops._c10d_functional.all_gather_into_tensor(x, self.world, self._name), out)

    def all_gather_v(self, x: torch.Tensor, sizes: Sequence[int], out: torch.Tensor | None = None) -> Pending:
        """Trace `_c10d_functional.all_to_all_single` of the block, repeated for each rank."""
        repeated = x.repeat(self.world, *[1] * (x.ndim - 1))
        return self.all_to_all(repeated, sizes, [x.shape[0]] * self.world, out)

    def reduce_scatter(self, x: torch.Tensor, reduce_op: str, out: torch.Tensor | None = None) -> Pending:
        """Trace `_c10d_functional.reduce_scatter_tensor`; of bytes for bools, as `all_gather`."""
        if x.dtype is torch.bool:
            return _as_bools(self.reduce_scatter(x.view(torch.uint8), ON_BYTES.get(reduce_op, reduce_op)), out)
        return self.begun(torch.ops._c10d_functional.reduce_scatter_tensor(x, reduce_op, self.world, self._name), out)

    def all_to_all(
        self,
        x: torch.Tensor,
        output_splits: Sequence[int],
        input_splits: Sequence[int],
        out: torch.Tensor | None = None,
    ) -> Pending:
        """Trace `_c10d_functional.all_to_all_single`; of pairs for complex numbers, which torch's op does not move."""
        x, input_splits = given_to_all(self._group, x, output_splits, input_splits)
        moved = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
        sent = torch.ops._c10d_functional.all_to_all_single(moved, output_splits, input_splits, self._name)
        if not x.is_complex():
            return self.begun(sent, out)
        return _into(self.begun(sent, None).then(torch.view_as_complex, tuple(sent.shape[:-1])), out)

    def broadcast(self, x: torch.Tensor, src: int, out: torch.Tensor | None = None) -> Pending:
        """Trace `_c10d_functional.broadcast`; of bytes for bools, as `all_gather`."""
        if x.dtype is torch.bool:
            return _as_bools(self.broadcast(x.contiguous().view(torch.uint8), src), out)
        return self.begun(torch.ops._c10d_functional.broadcast(x.contiguous(), src, self._name), out)

    def reduce(self, x: torch.Tensor, reduce_op: str, dst: int, out: torch.Tensor | None = None) -> Pending:
        """Trace `comm_core.reduce`, an op of our own, which has finished when it returns; else `start_reduce`."""
        own_ops.register()
        if not self._waits:
            return self.begun(torch.ops.comm_core.start_reduce(x, reduce_op, dst, self._name), out)
        done = torch.ops.comm_core.reduce(x, reduce_op, dst, self._name)
        return Pending(done if out is None else out.copy_(done))

    def batch_p2p(
        self,
        x: torch.Tensor,
        sends: Messages,
        receives: Messages,
        out: torch.Tensor | None = None,
        reverse: bool = False,
    ) -> Pending:
        """Trace `comm_core.batch_p2p`, an op of our own, which has finished when it returns; else `start_batch_p2p`."""
        if reverse:  # which the ops do not know: the blocks are put in the other order
            back = self.batch_p2p(_turned(x, sends), sends[::-1], receives[::-1])
            if receives:
                back = back.then(functools.partial(_turned, messages=receives[::-1]), back.shape)
            return _into(back, out)
        own_ops.register()
        numbers = own_ops.flattened(sends), own_ops.flattened(receives)
        if not self._waits:
            return self.begun(torch.ops.comm_core.start_batch_p2p(x, *numbers, self._name), out)
        done = torch.ops.comm_core.batch_p2p(x, *numbers, self._name)
        return Pending(done if out is None else out.copy_(done))

    def wait(self, x: torch.Tensor) -> Pending:
        """Trace `_c10d_functional.wait_tensor`."""
        return Pending(torch.ops._c10d_functional.wait_tensor(x))


def _turned(x: torch.Tensor, messages: Messages) -> torch.Tensor:
    """Return the blocks of messages in the other order."""
    return torch.cat([x[:0], *x.split([rows for _, rows, _ in messages])[::-1]])


def _as_bools(pending: Pending, out: torch.Tensor | None) -> Pending:
    """Return bools that travelled as bytes."""
    return _into(pending.then(_bools, pending.shape), out)


def _bools(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.bool)


def _into(pending: Pending, out: torch.Tensor | None) -> Pending:
    """Add the step that puts the result into `out`, where one is given."""
    return pending if out is None else pending.then(out.copy_, tuple(out.shape))
