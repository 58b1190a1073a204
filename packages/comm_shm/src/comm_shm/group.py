"""The c10d process group over a shared segment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from comm_core.errors import TransportError
from comm_shm import rendezvous, unsupported
from comm_shm.agreement import BackendOptions
from comm_shm.availability import why_not
from comm_shm.codes import DEFINED, DTYPE_CODE, PREMUL_SUM, reduce_code
from comm_shm.functional_compat import install
from comm_shm.rooted import RootedGroup
from comm_shm.work import FinishedWork

if TYPE_CHECKING:
    from comm_shm.symmetric import SharedMemory
    from comm_shm.torch_compat import Store

# What the C core reduces as it is: a premultiplied sum is scaled before.
PLAIN = {(dtype, op): DTYPE_CODE[dtype] for dtype, op in DEFINED if op != PREMUL_SUM}


def create(options: BackendOptions) -> SharedMemoryGroup:
    """Return the group that this process is a rank of, once every rank of it has joined.

    Raises:
        TransportError: shared memory cannot be used here, or not between these ranks; said on every rank.
        RankTimeoutError: some ranks did not come.
        RankFailedError: a rank ended before it had joined.
    """
    install()
    missing = why_not()
    rank, world = options.group_rank, options.group_size
    if missing is None and world == 1:
        cards: list[rendezvous.Card] = [rendezvous.own_card(None)]
        return _join(options, cards, _create_segment(world)[0])
    memfd = -1
    card = rendezvous.own_card(missing)
    if missing is None and rank == 0:
        try:
            memfd, name = _create_segment(world)
            card = rendezvous.own_card(None, memfd, name)
        except TransportError as error:
            card = rendezvous.own_card(str(error))
    try:
        cards = rendezvous.exchange(options.store, rank, world, card, options.timeout)
        impossible = rendezvous.refusal(cards)
        if impossible is not None:
            raise impossible
    except BaseException:
        if memfd >= 0:
            os.close(memfd)
        raise
    return _join(options, cards, memfd)


def _create_segment(world: int) -> tuple[int, str]:
    from comm_shm.segment import create as create_segment  # needs the extension

    return create_segment(world)


def _join(options: BackendOptions, cards: Sequence[rendezvous.Card], memfd: int) -> SharedMemoryGroup:
    """Map the segment, wait until every rank has, and only then give the descriptor back."""
    from comm_shm.segment import attach, fetch

    try:
        if memfd < 0:
            try:
                memfd = fetch(cards[0])
            except TransportError:
                # Rank 0 gives its segment up when it sees that a rank has ended: then say who.
                for pidfd in rendezvous.open_pidfds(cards, options.group_rank):
                    if pidfd >= 0:
                        os.close(pidfd)
                raise
        group = SharedMemoryGroup(options, attach(memfd, cards, options.group_rank))
        try:
            group.agree("join")
        except BaseException:
            group.shutdown()
            raise
    finally:
        if memfd >= 0:
            os.close(memfd)
    return group


class SharedMemoryGroup(RootedGroup):
    """Ranks of one machine that reduce and exchange CPU tensors in memory that all of them map.

    Every collective has finished when its call returns, also with `async_op=True`.

    Args:
        options: store, rank, size, timeout, name and global ranks, as torch hands them to a backend.
        handle: the C core's handle of the mapped segment.
    """

    def __init__(self, options: BackendOptions, handle: Any) -> None:
        super().__init__(options, handle)
        self._all_reduce: Callable[[Any, int, int, int, int, float], int] = self._native.all_reduce

    # -- collectives ---------------------------------------------------------------------------------------------

    def allreduce(
        self, tensors: list[torch.Tensor] | torch.Tensor, opts: Any = None, timeout: timedelta | None = None
    ) -> FinishedWork:
        """Reduce a CPU tensor over all ranks in place, in rank order, with the same bits on every rank.

        float16 and bfloat16 are accumulated in float32 and rounded once; integers wrap around; a sum of bools says
        whether any is true, a product whether all are.

        Args:
            tensors: the tensor, or a list that holds just it; of any strides.
            opts: `dist.AllreduceOptions`, or a `dist.ReduceOp`; a sum by default.
            timeout: how long to wait for the other ranks; the group's timeout by default.

        Shapes:
            Any shape, the same number of elements on every rank; the result has the tensor's own shape.

        Gradient:
            None here: autograd does not look into process groups. `functional_collectives.all_reduce` has one.

        Source:
            Two buffers a rank in place of a closing barrier: DeepSpeed's csrc/cpu/comm/shm.cpp.

        Raises:
            MismatchError: the ranks called different things; raised on all of them, no data was touched.
            RankTimeoutError: ranks did not arrive in time; they are named.
            RankFailedError: a rank died or left; it is named.
            TransportError: another device or layout, on every rank.
            ReduceOpError: no reduce op, or one that is not defined for the dtype, on every rank.
        """
        x = tensors if isinstance(tensors, torch.Tensor) else self._only("all_reduce", tensors)
        code, limit = 0, self._timeout_s
        op = getattr(opts, "reduceOp", opts)
        if opts is not None:
            code = reduce_code(op)
        if timeout is not None:
            limit = timeout.total_seconds()
        dtype = PLAIN.get((x.dtype, code))
        if dtype is not None and x.is_cpu and x.is_contiguous() and not x.is_neg() and not x.is_conj():
            status = self._all_reduce(self._handle, x.data_ptr(), x.numel(), dtype, code, limit)
            if status:
                raise self._fault(status, "all_reduce", limit)
        else:
            self._reduce_in_place("all_reduce", x, op, limit)
        return FinishedWork([x])

    def allreduce_coalesced(
        self, tensors: list[torch.Tensor], opts: Any = None, timeout: timedelta | None = None
    ) -> FinishedWork:
        """Reduce several tensors in place; as many calls of `allreduce` that know of each other.

        Raises:
            MismatchError: also when the ranks bring different numbers of tensors.
        """
        for x in tensors:
            self._reduce_in_place(
                "all_reduce_coalesced", x, getattr(opts, "reduceOp", None), self._limit(opts, timeout), len(tensors)
            )
        return FinishedWork(tensors)

    def barrier(self, opts: Any = None, timeout: timedelta | None = None) -> FinishedWork:  # type: ignore[override]
        """Wait until every rank has come here.

        Args:
            opts: `dist.BarrierOptions`; its timeout is used when it has one.
            timeout: how long to wait; the group's timeout by default.

        Raises:
            MismatchError: another rank called something else.
            RankTimeoutError: ranks did not arrive in time; they are named.
            RankFailedError: a rank died or left; it is named.
        """
        self.agree("barrier", timeout_s=self._limit(opts, timeout))
        return FinishedWork([])

    def symmetric_memory(self) -> SharedMemory:
        """Return the memory of this group that all its ranks have mapped; for `comm_core.symmetric_memory`."""
        from comm_shm.symmetric import memory_of

        return memory_of(self)

    # -- what torch asks of a group ------------------------------------------------------------------------------

    def getBackendName(self) -> str:
        """Return `shm`; torch calls this when it prints the group."""
        return "shm"

    def get_group_store(self) -> Store:
        """Return the store that the ranks met through."""
        return self._store

    def set_timeout(self, timeout: timedelta) -> None:
        """Set how long a collective waits for the other ranks."""
        self._timeout_s = timeout.total_seconds()

    def shutdown(self) -> None:
        """Give the memory back; ranks that still wait for this one are told that it has left."""
        self._native.close_group(self._handle)

    def abort(self) -> None:
        """Give the memory back; ranks that still wait for this one are told that it has left."""
        with contextlib.suppress(Exception):
            self.shutdown()


for _name, _refused in unsupported.METHODS.items():
    setattr(SharedMemoryGroup, _name, _refused)
