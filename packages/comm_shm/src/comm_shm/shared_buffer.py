"""The handle of symmetric memory: how a rank meets the others on a buffer, reads theirs, and runs collectives on all.

What each collective moves is counted in csrc/symmetric.c, which does the work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch

from comm_core.errors import ArgumentError, CommError, RankTimeoutError, ReduceOpError, TransportError
from comm_core.peer_buffer import block_shape, check_channel, check_out, check_peer
from comm_core.reduce_ops import defined_word
from comm_shm.allocation import CHANNELS, Allocation
from comm_shm.codes import COLLECTIVE_CODE, DTYPE_CODE, OFFSETS, REFUSALS, defined, reduce_code
from comm_shm.control import Control
from comm_shm.entrance import OnlyImagined, no_memory, opened, unreachable
from comm_shm.faults import Status
from comm_shm.torch_compat import written

Native = Callable[[Any, int, int, int, int, int, int, int, int, float], int]


class SharedBuffer:
    """A buffer of one size on every rank, as one of them sees it; `comm_core.SymmetricBuffer` says what each part is.

    It keeps the memory mapped, and the ranks' meeting place, also when the group is gone. It cannot be pickled or
    copied, and a forked child can use the tensors but not meet.

    Args:
        control: where the ranks meet.
        allocation: the memory.
        mapping: what keeps it mapped.
        x: this rank's tensor: all of its part, or a contiguous piece of it.
    """

    def __init__(self, control: Control, allocation: Allocation, mapping: Any, x: torch.Tensor) -> None:
        self.rank = control.rank
        self.world = control.world
        self.tensor = x
        self._shape, self._strides = x.shape, x.stride()
        self._control = control
        self._layout = allocation.layout
        self._mapping = mapping
        self._begin = allocation.address
        self._address = _place(x)
        self._offset = self._address - allocation.address - self._layout.part(self.rank)
        self._first = allocation.address + self._layout.part(0) + self._offset
        self._detail = allocation.number * OFFSETS + self._offset
        self._dtype = DTYPE_CODE[x.dtype]

    def __reduce__(self) -> NoReturn:
        raise TransportError(
            "symmetric memory",
            got="a handle to be pickled or copied",
            need="one handle in each rank that maps the memory",
            hint="send a copy of the tensor, x.clone(), or call rendezvous() where it is needed",
        )

    def peer(self, rank: int) -> torch.Tensor:
        """Return a view of a rank's buffer; reading and writing it moves bytes, and nobody waits.

        Raises:
            RankError: the group has no such rank.
        """
        begin = self._layout.part(check_peer("peer", rank, self.world)) + self._offset
        return view_of(self._mapping, self.tensor.dtype, begin, self._shape.numel()).view(self._shape)

    def everyone(self) -> torch.Tensor:
        """Return a view of all ranks' buffers, under a new first dim; contiguous when 64 divides the buffer's bytes."""
        x = self.tensor
        step = self._layout.stride // x.element_size()
        count = (self.world - 1) * step + self._shape.numel()
        begin = self._layout.part(0) + self._offset
        flat = view_of(self._mapping, x.dtype, begin, count)
        return flat.as_strided((self.world, *self._shape), (step, *self._strides))

    def barrier(self, timeout_s: float | None = None) -> None:
        """Wait until every rank has come here; what they wrote before is there.

        Raises:
            MismatchError: another rank called something else, or for another buffer; on every rank.
            RankTimeoutError: ranks did not come in time; they are named.
            RankFailedError: a rank died, or dropped all it had of this memory; it is named.
        """
        self._agree("symmetric barrier", timeout_s=timeout_s)

    def signal(self, rank: int, channel: int = 0, timeout_s: float | None = None) -> None:
        """Let one `wait` of a rank pass; never waits. What this rank wrote before is there for it.

        Raises:
            RankError, ArgumentError: there is no such rank or channel.
            RankFailedError: a meeting of these ranks has failed before.
        """
        at = self._channel("signal", self.rank, rank, channel)
        status = self._control.native.signal(self._control.handle, at, 0.0)
        if status:
            raise self._control.fault(status, "signal", 0.0)

    def wait(self, rank: int, channel: int = 0, timeout_s: float | None = None) -> None:
        """Wait for one signal of a rank and take it; what it wrote before is there.

        Raises:
            RankError, ArgumentError: there is no such rank or channel.
            RankTimeoutError: none came in time; nothing is lost, one that comes later is there for the next wait.
            RankFailedError: the rank died or dropped all it had of this memory; it is named.
        """
        limit, control = self._limit(timeout_s), self._control
        at = self._channel("wait", rank, self.rank, channel)
        status = control.native.take_signal(control.handle, at, rank, limit)
        if status == Status.TIMED_OUT:
            state = control.states()[rank]
            last = f"{state.said()}, its number {state.serial}" if state.serial else "nothing yet"
            got = f"no signal within {limit:g} s from rank {rank} on channel {channel} (it last met in: {last})"
            raise RankTimeoutError("wait", got=got, need=f"signal({self.rank}, {channel}) there", hint="wait longer")
        if status:
            raise control.fault(status, "wait", limit, (rank,))

    def one_shot_all_reduce(
        self, reduce_op: str = "sum", out: torch.Tensor | None = None, timeout_s: float | None = None
    ) -> torch.Tensor:
        """Reduce all ranks' buffers into a tensor of this rank's own: each rank reads all of them.

        Raises:
            MismatchError: the ranks called different things; on every rank, no data was touched.
            ReduceOpError: no reduce op of this dtype.
            ShapeError, DtypeError, ArgumentError: `out` does not fit, or is the buffer itself.
        """
        where = "one_shot_all_reduce"
        code = self._reduction(where, reduce_op)
        result = self._result(where, tuple(self.tensor.shape), out)
        self._run(where, self._control.native.one_shot_all_reduce, self.tensor.numel(), result, code, timeout_s)
        return result

    def two_shot_all_reduce(self, reduce_op: str = "sum", timeout_s: float | None = None) -> torch.Tensor:
        """Reduce all ranks' buffers in place: each rank reads a range of all of them and writes it to all of them.

        Raises:
            MismatchError: the ranks called different things; on every rank, no data was touched.
            ReduceOpError: no reduce op of this dtype.
        """
        where = "two_shot_all_reduce"
        code = self._reduction(where, reduce_op)
        native = self._control.native.two_shot_all_reduce
        self._run(where, native, self.tensor.numel(), self.tensor, code, timeout_s)
        return self.tensor

    def all_gather(self, out: torch.Tensor | None = None, timeout_s: float | None = None) -> torch.Tensor:
        """Return all ranks' buffers under a new first dim: copied to `out`, else as a view, which moves nothing.

        Of a view the ranks must be done before any of them writes its buffer again: `barrier()` says so.

        Raises:
            MismatchError: the ranks called different things; on every rank, no data was touched.
            ShapeError, DtypeError, ArgumentError: `out` does not fit, or is the buffer itself.
        """
        if out is None:
            self._agree("symmetric all_gather", timeout_s=timeout_s)
            return self.everyone()
        self._check_tensor("symmetric all_gather")
        result = self._result("symmetric all_gather", (self.world, *self.tensor.shape), out)
        x, native = self.tensor, self._control.native.symmetric_all_gather
        self._run("symmetric all_gather", native, x.numel(), result, x.element_size(), timeout_s)
        return result

    def reduce_scatter(
        self, reduce_op: str = "sum", out: torch.Tensor | None = None, timeout_s: float | None = None
    ) -> torch.Tensor:
        """Reduce this rank's of `world` blocks along dim 0 of all ranks' buffers.

        Args:
            reduce_op: the word of a reduce op.
            out: where to; a new tensor by default. It may be this rank's block of its own buffer.
            timeout_s: how long to wait for the others; the group's timeout by default.

        Raises:
            MismatchError: the ranks called different things; on every rank, no data was touched.
            ReduceOpError: no reduce op of this dtype.
            ShapeError, DtypeError, ArgumentError: dim 0 does not divide, or `out` does not fit.
        """
        where = "symmetric reduce_scatter"
        code = self._reduction(where, reduce_op)
        try:
            shape = block_shape(self.tensor, self.world)
        except CommError as error:
            self._refuse(where, error)
        result = self._result(where, shape, out, may_be_own=True)
        native = self._control.native.symmetric_reduce_scatter
        self._run(where, native, self.tensor.numel() // self.world, result, code, timeout_s)
        return result

    # -- what all of them do -------------------------------------------------------------------------------------

    def _run(
        self, where: str, native: Native, numel: int, out: torch.Tensor, last: int, timeout_s: float | None
    ) -> None:
        control, limit = self._control, self._limit(timeout_s)
        code, first, stride = COLLECTIVE_CODE[where], self._first, self._layout.stride
        status = native(
            control.handle, code, self._dtype, numel, self._detail, first, stride, out.data_ptr(), last, limit
        )
        if status:
            raise control.fault(status, where, limit)
        written((out,))

    def _agree(self, where: str, refusal: int = 0, timeout_s: float | None = None) -> None:
        control, limit, numel = self._control, self._limit(timeout_s), self.tensor.numel()
        if not refusal:
            self._check_tensor(where)
        status = control.native.agree(
            control.handle, COLLECTIVE_CODE[where], self._dtype, 0, numel, self._detail, refusal, limit
        )
        if status:
            raise control.fault(status, where, limit)

    def _refuse(self, where: str, error: CommError) -> NoReturn:
        """Tell every rank that this one will not do it; raise the error, or the mismatch if others would have."""
        try:
            self._agree(where, REFUSALS.index("not such a call"))
        except CommError as other:
            raise other from error
        raise error

    def _check_tensor(self, where: str) -> None:
        x = self.tensor
        if _place(x) != self._address:
            error = TransportError(
                where,
                got="a tensor that is not in symmetric memory any more",
                need="the memory that empty() gave it",
                hint="share_memory_() and torch.multiprocessing move a tensor; send a clone",
            )
            self._refuse(where, error)
        if x.shape != self._shape or x.stride() != self._strides:
            error = TransportError(
                where,
                got=f"a tensor that has been changed in place, from shape {tuple(self._shape)} to {tuple(x.shape)}",
                need="the shape and strides that it had when the handle was made",
                hint="call rendezvous() again, or change a view of it",
            )
            self._refuse(where, error)

    def _reduction(self, where: str, reduce_op: str) -> int:
        self._check_tensor(where)
        try:
            word = defined_word(reduce_op, self.tensor.dtype, where)
        except ReduceOpError as error:
            self._refuse(where, error)
        code = reduce_code(word)
        if not defined(self.tensor.dtype, code):
            got = f"reduce op {word!r} for {self.tensor.dtype}"
            self._refuse(where, ReduceOpError(where, got=got, need="a dtype that can be reduced", hint="cast it"))
        return code

    def _result(
        self, where: str, shape: tuple[int, ...], out: torch.Tensor | None, may_be_own: bool = False
    ) -> torch.Tensor:
        try:
            out = opened(where, out)
            result = check_out(where, self.tensor, shape, out)
            if unreachable(result):
                raise no_memory(where, result)
        except OnlyImagined:
            got, need = "a FakeTensor", "a tensor with memory"
            self._refuse(where, TransportError(where, got=got, need=need))
        except CommError as error:
            self._refuse(where, error)
        inside = self._begin <= result.data_ptr() < self._begin + self._layout.total_bytes and result.numel()
        own = self._address + self.rank * result.numel() * result.element_size()
        if inside and not (may_be_own and result.data_ptr() == own):
            need = "memory of this rank's own" + (", or its block of its own buffer" if may_be_own else "")
            self._refuse(where, ArgumentError(where, got="an output in the buffers themselves", need=need))
        return result

    def _channel(self, where: str, source: int, target: int, channel: int) -> int:
        check_peer(where, source, self.world)
        check_peer(where, target, self.world)
        return self._begin + self._layout.channel(source, target, check_channel(where, channel, CHANNELS))

    def _limit(self, timeout_s: float | None) -> float:
        return self._control.timeout_s if timeout_s is None else timeout_s


def view_of(mapping: Any, dtype: torch.dtype, begin: int, numel: int) -> torch.Tensor:
    """Return elements of a mapping as a tensor that keeps it; an empty one is in it too."""
    return torch.frombuffer(mapping, dtype=dtype, count=max(numel, 1), offset=begin)[:numel]


def _place(x: torch.Tensor) -> int:
    """Return where a tensor begins, also when it has no elements."""
    return int(x.data_ptr() or x.untyped_storage().data_ptr() + x.storage_offset() * x.element_size())
