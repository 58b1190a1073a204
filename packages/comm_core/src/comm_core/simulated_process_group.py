"""A simulated group as a c10d process group, so that graphs and torch's own ops run on simulated ranks too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from comm_core import compat
from comm_core.pending import Pending
from comm_core.reduce_ops import reduce_word
from comm_core.traced_transport import TracedTransport
from comm_core.transports import Transport


@compat.opaque
class FinishedWork(dist.Work):
    """The work of a collective that has finished when it returns."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._tensors = list(tensors)

    def wait(self, timeout: Any = None) -> bool:
        """Return at once."""
        return True

    def is_completed(self) -> bool:
        """Return True."""
        return True

    def get_future(self) -> Any:
        """Return a future that holds the tensors."""
        future: torch.futures.Future[list[torch.Tensor]] = torch.futures.Future()
        future.set_result(self._tensors)
        return future


@compat.opaque
class SimulatedProcessGroup(dist.ProcessGroup):
    """The c10d methods that `_c10d_functional` ops call, on a simulated transport.

    Args:
        wire: the transport of the simulated group.
        simulated: the simulated group, which `as_group` gives back for this process group and its name.
    """

    def __init__(self, wire: Transport, simulated: object) -> None:
        super().__init__(wire.rank, wire.world)  # type: ignore[call-arg]
        self._wire = wire
        self.simulated = simulated
        self._name = ""

    @property
    def group_name(self) -> str:  # type: ignore[override]
        """The name it was registered under; torch keeps none for a Python group (2.13)."""
        return self._name

    def _set_group_name(self, name: str) -> None:
        self._name = name

    def allreduce(  # type: ignore[override]
        self, tensors: list[torch.Tensor], options: Any = None
    ) -> dist.Work:
        """Reduce each tensor in place."""
        for tensor in tensors:
            self._wire.all_reduce(tensor, reduce_word(options.reduceOp), out=tensor)
        return FinishedWork(tensors)

    def broadcast(  # type: ignore[override]
        self, tensors: list[torch.Tensor], options: Any = None
    ) -> dist.Work:
        """Broadcast each tensor in place."""
        for tensor in tensors:
            self._wire.broadcast(tensor, options.rootRank, out=tensor)
        return FinishedWork(tensors)

    def allgather_into_tensor_coalesced(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], options: Any = None
    ) -> dist.Work:
        """Gather each tensor along dim 0."""
        for output, tensor in zip(outputs, inputs, strict=True):
            self._wire.all_gather(tensor, out=output)
        return FinishedWork(outputs)

    def reduce_scatter_tensor_coalesced(
        self, outputs: list[torch.Tensor], inputs: list[torch.Tensor], options: Any = None
    ) -> dist.Work:
        """Reduce and scatter each tensor along dim 0."""
        for output, tensor in zip(outputs, inputs, strict=True):
            self._wire.reduce_scatter(tensor, reduce_word(options.reduceOp), out=output)
        return FinishedWork(outputs)

    def alltoall_base(
        self, output: torch.Tensor, input: torch.Tensor, received: list[int], sent: list[int], options: Any = None
    ) -> dist.Work:
        """Exchange blocks of rows."""
        even = [input.shape[0] // self._wire.world] * self._wire.world
        self._wire.all_to_all(input, received or even, sent or even, out=output)
        return FinishedWork([output])

    def barrier(self, options: Any = None) -> dist.Work:
        """Meet."""
        self._wire.all_reduce(torch.zeros(()), "sum")
        return FinishedWork([])


class SimulatedTracedTransport(TracedTransport):
    """What graphs of a simulated group are made of: torch calls a Python group's coalesced forms only (2.13)."""

    def all_gather(self, x: torch.Tensor, out: torch.Tensor | None = None) -> Pending:
        """Trace `_c10d_functional.all_gather_into_tensor_coalesced` of one tensor."""
        ops = torch.ops._c10d_functional
        return self.begun(ops.all_gather_into_tensor_coalesced([x], self.world, self._name)[0], out)

    def reduce_scatter(self, x: torch.Tensor, reduce_op: str, out: torch.Tensor | None = None) -> Pending:
        """Trace `_c10d_functional.reduce_scatter_tensor_coalesced` of one tensor."""
        ops = torch.ops._c10d_functional
        return self.begun(ops.reduce_scatter_tensor_coalesced([x], reduce_op, self.world, self._name)[0], out)
