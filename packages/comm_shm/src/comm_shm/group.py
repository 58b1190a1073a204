"""The c10d process group over a shared segment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import torch

from comm_core.errors import CommError, TransportError
from comm_shm import codes, rendezvous, unsupported
from comm_shm.availability import why_not
from comm_shm.faults import Scene, Status, fault
from comm_shm.torch_compat import NamedGroup
from comm_shm.work import FinishedWork

if TYPE_CHECKING:
    from comm_shm.torch_compat import Store

_WHERE = 'backend "shm"'
_OFFERED = "all_reduce (sum, avg, product, min, max) of float32 CPU tensors, and barrier"
_GLOO = 'until shm has it, use new_group(backend="gloo") for this call'
_NOT_YET, _DTYPE, _DEVICE, _LAYOUT, _REDUCE_OP = range(1, 6)  # places in codes.REFUSALS


class BackendOptions(Protocol):
    """What torch hands to a backend that is registered with the extended API."""

    store: Store
    group_rank: int
    group_size: int
    timeout: timedelta
    group_id: str
    global_ranks_in_group: list[int]


def create(options: BackendOptions) -> SharedMemoryGroup:
    """Return the group that this process is a rank of, once every rank of it has joined.

    Raises:
        TransportError: shared memory cannot be used here, or not between these ranks; said on every rank.
        RankTimeoutError: some ranks did not come.
        RankFailedError: a rank ended before it had joined.
    """
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
            memfd = fetch(cards[0])
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


class SharedMemoryGroup(NamedGroup):
    """Ranks of one machine that reduce float32 tensors in memory that all of them map.

    Every collective has finished when its call returns, also with `async_op=True`.

    Args:
        options: store, rank, size, timeout, name and global ranks, as torch hands them to a backend.
        handle: the C core's handle of the mapped segment.
    """

    def __init__(self, options: BackendOptions, handle: Any) -> None:
        from comm_shm import _native

        super().__init__(options.group_rank, options.group_size, options.group_id)
        self._rank = options.group_rank
        self._ranks = list(options.global_ranks_in_group)
        self._store = options.store
        self._timeout_s = options.timeout.total_seconds()
        self._handle = handle
        self._native = _native
        self._all_reduce: Callable[[Any, int, int, int, float], int] = _native.all_reduce

    # -- collectives ---------------------------------------------------------------------------------------------

    def allreduce(
        self, tensors: list[torch.Tensor] | torch.Tensor, opts: Any = None, timeout: timedelta | None = None
    ) -> FinishedWork:
        """Reduce a float32 CPU tensor over all ranks in place, in rank order, with the same bits on every rank.

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
            TransportError: another dtype, device, layout or reduce op, on every rank.
            ReduceOpError: no reduce op at all.
        """
        x = tensors if isinstance(tensors, torch.Tensor) else self._only(tensors)
        code, limit = 0, self._timeout_s
        if opts is not None:
            code = codes.reduce_code(getattr(opts, "reduceOp", opts))
        if timeout is not None:
            limit = timeout.total_seconds()
        if not (x.dtype is torch.float32 and x.is_cpu and x.layout is torch.strided and code < codes.UNKNOWN):
            self._refuse_all_reduce(x, code)
        if x.is_contiguous() and not x.is_neg():
            status = self._all_reduce(self._handle, x.data_ptr(), x.numel(), code, limit)
            if status:
                raise self._fault(status, "all_reduce", limit)
        else:
            self._all_reduce_copied(x, code, limit)
        return FinishedWork([x])

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
        given = timeout if timeout is not None else getattr(opts, "timeout", None)
        limit = given.total_seconds() if given is not None and given > timedelta(0) else self._timeout_s
        self.agree("barrier", timeout_s=limit)
        return FinishedWork([])

    def agree(
        self,
        collective: str,
        tensor: torch.Tensor | None = None,
        *,
        reduce_op: int = 0,
        refusal: int = 0,
        timeout_s: float | None = None,
    ) -> None:
        """Wait for every rank and check that all of them announce the same; move no data.

        Raises:
            MismatchError: they do not.
            RankTimeoutError: ranks did not arrive in time; they are named.
            RankFailedError: a rank died or left; it is named.
        """
        limit = self._timeout_s if timeout_s is None else timeout_s
        dtype = codes.UNKNOWN if tensor is None else codes.DTYPE_CODE.get(tensor.dtype, codes.UNKNOWN)
        numel = 0 if tensor is None else tensor.numel()
        code = codes.COLLECTIVE_CODE[collective]
        status = self._native.agree(self._handle, code, dtype, reduce_op, numel, refusal, limit)
        if status:
            raise self._fault(status, collective, limit)

    # -- what is refused -----------------------------------------------------------------------------------------

    def refuse_together(self, collective: str) -> NoReturn:
        """Refuse a collective of the whole group, on every rank of it.

        Raises:
            TransportError: always, unless the ranks do not agree on what they called.
        """
        self.agree(collective, refusal=_NOT_YET)
        self.refuse_alone(collective)

    def refuse_alone(self, operation: str) -> NoReturn:
        """Refuse an operation that not every rank takes part in.

        Raises:
            TransportError: always.
        """
        raise TransportError(operation, got='a group on backend "shm"', need=_OFFERED, hint=_GLOO)

    def _refuse_all_reduce(self, x: torch.Tensor, code: int) -> NoReturn:
        if not x.is_cpu:
            refusal, got = _DEVICE, f"a tensor on {x.device}"
        elif x.dtype is not torch.float32:
            refusal, got = _DTYPE, f"a tensor of dtype {x.dtype}"
        elif x.layout is not torch.strided:
            refusal, got = _LAYOUT, f"a tensor of layout {x.layout}"
        else:
            refusal, got = _REDUCE_OP, "a reduce op that shm does not compute"
        self.agree("all_reduce", x, reduce_op=code, refusal=refusal)
        raise TransportError("all_reduce", got=got, need=_OFFERED, hint=_GLOO)

    def _only(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        if len(tensors) != 1:
            raise TransportError(
                "all_reduce", got=f"{len(tensors)} tensors", need="one tensor in a call", hint="make one call for each"
            )
        return tensors[0]

    def _all_reduce_copied(self, x: torch.Tensor, code: int, limit: float) -> None:
        if any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True)):
            self.agree("all_reduce", x, reduce_op=code, refusal=_LAYOUT, timeout_s=limit)
            raise TransportError(
                "all_reduce",
                got="an expanded tensor, whose elements share memory",
                need="a tensor that can be written in place",
                hint="pass x.contiguous()",
            )
        with torch.no_grad():
            flat = x.detach().resolve_neg().contiguous()
            status = self._all_reduce(self._handle, flat.data_ptr(), flat.numel(), code, limit)
            if status:
                raise self._fault(status, "all_reduce", limit)
            x.detach().copy_(flat)

    def _fault(self, status: int, where: str, limit: float) -> CommError:
        states = [codes.RankState(*state) for state in self._native.states(self._handle)]
        scene = Scene(where, self._rank, self._ranks, limit, states, self._native.broken(self._handle))
        return fault(Status(status), scene)

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
