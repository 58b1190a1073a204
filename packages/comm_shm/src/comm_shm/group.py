"""The c10d process group over a shared segment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from comm_core import compat
from comm_core.errors import ArgumentError, TransportError
from comm_shm import in_torch, rendezvous
from comm_shm.agreement import BackendOptions, JoinOptions, Refused, acquainted
from comm_shm.availability import why_not
from comm_shm.calls import Step
from comm_shm.codes import RankState
from comm_shm.delegation import DelegatingGroup, delegated, watched
from comm_shm.doors import Door
from comm_shm.entrance import OnlyImagined
from comm_shm.faults import Status
from comm_shm.hosts import split
from comm_shm.room import NoRoom
from comm_shm.terms import Terms, terms
from comm_shm.torch_compat import prefixed, tensors_for_c, written
from comm_shm.watching_compat import shown, watched_now
from comm_shm.work import FinishedWork

if TYPE_CHECKING:
    from comm_shm.symmetric import SharedMemory
    from comm_shm.torch_compat import Store

NO_TIME = timedelta(0)
DONE = FinishedWork([])  # for whoever asked for no work to wait for


def create(options: BackendOptions) -> SharedMemoryGroup:
    """Return the group that this process is a rank of, once every rank of it has joined.

    Raises:
        TransportError: shared memory cannot be used here, or not between these ranks; said on every rank.
        RankTimeoutError: some ranks did not come.
        RankFailedError: a rank ended before it had joined.
    """
    in_torch.install()
    missing = why_not()
    world = options.group_size
    if missing is None and world == 1:
        cards: list[rendezvous.Card] = [rendezvous.own_card(None)]
        return _join(options, cards, _create_segment(world)[0])
    with Door(world) as door:
        return _met(options, missing, door)


def _met(options: BackendOptions, missing: str | None, door: Door) -> SharedMemoryGroup:
    memfd, name = -1, ""
    rank, world = options.group_rank, options.group_size
    try:
        if missing is None:
            memfd, name = _create_segment(world) if rank == 0 else (_kept_place(), "")
        card = rendezvous.own_card(missing, memfd if rank == 0 else -1, name, door.address)
    except (TransportError, OSError) as error:
        card = rendezvous.own_card(str(error))
    try:
        cards = rendezvous.exchange(options.store, rank, world, card, options.timeout, acquainted(options))
        impossible = rendezvous.unable(cards)
        if impossible is not None:
            raise impossible
        several = len(split(cards)) > 1
    except BaseException:
        if memfd >= 0:
            os.close(memfd)
        raise
    if not several:
        return _join(options, cards, memfd)
    if memfd >= 0:
        os.close(memfd)
    from comm_shm.spanning_group import create as create_spanning  # it builds on this module

    return create_spanning(options, cards, door)


def _create_segment(world: int) -> tuple[int, str]:
    from comm_shm.segment import create as create_segment  # needs the extension

    return create_segment(world)


def _kept_place() -> int:
    """Return a descriptor that keeps the place of the segment's: a rank that has none left can say so on its card."""
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _join(options: BackendOptions, cards: Sequence[rendezvous.Card], memfd: int) -> SharedMemoryGroup:
    """Map the segment, wait until every rank has, and only then give the descriptor back."""
    from comm_shm.segment import attach, fetch

    try:
        if options.group_rank != 0:
            os.close(memfd)
            memfd = -1
            try:
                memfd = fetch(cards[0])
            except TransportError:
                # Rank 0 gives its segment up when it sees that a rank has ended: then say who.
                rendezvous.check_alive(cards, options.group_rank)
                raise
        group = SharedMemoryGroup(options, attach(memfd, cards, options.group_rank))
        try:
            joined(group, options)
        except BaseException:
            group.shutdown()
            raise
    finally:
        if memfd >= 0:
            os.close(memfd)
    return group


def joined(group: SharedMemoryGroup, options: BackendOptions) -> None:
    """Wait until every rank has joined; then take back what they left in the store, before any of them can come again.

    Raises:
        RankTimeoutError: ranks did not arrive in time; they are named.
        RankFailedError: a rank died or left; it is named.
    """
    group.agree("join")
    if options.group_size > 1:
        rendezvous.forget(options.store, options.group_rank)
        group.agree("join")


@compat.opaque
class SharedMemoryGroup(DelegatingGroup):
    """Ranks of one machine that reduce and exchange CPU tensors in memory that all of them map.

    A call that waits (`async_op=False`) has finished when it returns. One that does not has been started: it runs in
    its turn, and its work says when it has finished.

    Args:
        options: store, rank, size, timeout, name and global ranks, as torch hands them to a backend.
        handle: the C core's handle of the mapped segment.
    """

    def __init__(self, options: BackendOptions, handle: Any) -> None:
        super().__init__(options, handle)
        self._all_reduce = self._native.all_reduce_tensor
        api = tensors_for_c()
        if api is not None:
            self._native.know_tensors(api, torch.Tensor, torch.nn.Parameter, NO_TIME)

    # -- collectives ---------------------------------------------------------------------------------------------

    def allreduce(  # type: ignore[override]  # one signature for all overloads
        self,
        tensors: list[torch.Tensor] | torch.Tensor,
        opts: Any = None,
        timeout: timedelta | None = None,
        *,
        op: Any = None,
    ) -> dist.Work:
        """Reduce a CPU tensor over all ranks in place, in rank order, with the same bits on every rank.

        float16 and bfloat16 are accumulated in float32 and rounded once; integers wrap around; a sum of bools says
        whether any is true, a product whether all are.

        Args:
            tensors: the tensor, or a list that holds just it; of any strides, or sparse (COO), which is summed only.
            opts: `dist.AllreduceOptions`, or a `dist.ReduceOp`; a sum by default.
            timeout: how long to wait for the other ranks; the group's timeout by default.
            op: the `dist.ReduceOp`, by name.

        Shapes:
            Any shape, the same number of elements on every rank; the result has the tensor's own shape. Sparse tensors
            have one shape on all ranks, any number of elements that are set, and come out coalesced.

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
        if watched_now():
            given = terms(opts, timeout, op)
            return shown("allreduce", lambda: self._reduce_all(tensors, given), (tensors,))
        status = self._all_reduce(self._handle, tensors, opts, self._timeout_s) if timeout is None else -1
        if status > 0:
            raise self._fault(status, "all_reduce", self._timeout_s)
        if status == 0:
            written(tensors if type(tensors) is list else (tensors,))  # type: ignore[arg-type]  # no tensor of tensors
            if self._open:
                self._sweep()
            return DONE
        return self._reduce_all(tensors, terms(opts, timeout, op))

    def _reduce_all(self, tensors: list[torch.Tensor] | torch.Tensor, given: Terms) -> dist.Work:
        try:
            x = tensors if isinstance(tensors, torch.Tensor) else self._only("all_reduce", tensors)
            other = self._other(x)
            if other is not None:
                return other.allreduce([x], self._options_of(dist.AllreduceOptions(), given))
            x = self.open("all_reduce", x)
            if x.layout is torch.sparse_coo:
                return self.sum_sparse(x, given)
            return self.run([self._reduce_in_place("all_reduce", x, given.op)], [x], given)
        except OnlyImagined:
            return FinishedWork([x])
        except Refused as refused:
            self.tell(refused, given.later)
        except NoRoom as none:
            self.tell_of_room("all_reduce", none, given.later)

    def allreduce_coalesced(self, tensors: list[torch.Tensor], *given: Any, **named: Any) -> dist.Work:
        """Reduce several tensors in place; as many calls of `allreduce` that know of each other.

        Raises:
            MismatchError: also when the ranks bring different numbers of tensors.
        """
        asked, where = terms(*given, **named), "all_reduce_coalesced"
        steps = [self._reduce_in_place(where, x, asked.op, len(tensors)) for x in self._some(where, tensors)]
        return self.run(steps, tensors, asked)

    def barrier(self, *given: Any, **named: Any) -> dist.Work:
        """Wait until every rank has come here.

        Args:
            given: `dist.BarrierOptions`, or a timeout; the group's timeout by default.
            named: the same by name.

        Raises:
            MismatchError: another rank called something else.
            RankTimeoutError: ranks did not arrive in time; they are named.
            RankFailedError: a rank died or left; it is named.
        """
        return self.run([Step("announce", "barrier", 0, 0)], [], terms(*given, **named))

    def monitored_barrier(self, timeout: timedelta | None = None, wait_all_ranks: bool = False) -> None:
        """Wait until every rank has come here; every rank that did learns which ranks did not.

        Args:
            timeout: how long to wait; the group's timeout by default.
            wait_all_ranks: for c10d's sake: all missing ranks are named in either case.

        Raises:
            MismatchError: another rank called something else.
            RankTimeoutError: ranks did not arrive in time; all of them are named.
            RankFailedError: a rank died or left; it is named.
        """
        self.run([Step("announce", "monitored_barrier", 0, 0)], [], Terms(timeout=timeout, later=False))

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
        """Set how long a collective waits for the other ranks, also on the groups of other devices."""
        self._timeout_s = timeout.total_seconds()
        self._options.timeout = timeout
        for other in self._others.values():
            if other is not None:
                other.set_timeout(timeout)

    def split_group(  # type: ignore[override]
        self,
        ranks: Sequence[int],
        timeout: timedelta | None = None,
        opts: object = None,
        group_name: str | None = None,
        **named: Any,
    ) -> SharedMemoryGroup | None:
        """Return a group of some ranks of this one, None on the others; those that are in it call this.

        Args:
            ranks: ranks of this group, in the order of the new one.
            timeout: how long a collective of the new group waits; this group's by default.
            opts: nothing that shared memory knows.
            group_name: what the new group is called, and the ranks meet under.
            named: `group_desc`, and what shared memory does not know.

        Raises:
            ArgumentError: there is no such rank, or one twice.
        """
        if len(set(ranks)) != len(ranks) or not set(ranks) <= set(range(self._world)):
            raise ArgumentError("split_group", got=f"ranks {list(ranks)}", need=f"different ranks below {self._world}")
        if self._rank not in ranks:
            return None
        name = group_name or f"{self.group_name}:split:{','.join(map(str, ranks))}"
        above = [self._ranks[rank] if self._ranks else rank for rank in ranks]
        return self._joined(name, (self._store, list(ranks).index(self._rank), len(ranks)), above, timeout, named)

    def merge_remote_group(  # type: ignore[override]
        self,
        store: Store,
        size: int,
        timeout: timedelta | None = None,
        group_name: str | None = None,
        **named: Any,
    ) -> SharedMemoryGroup:
        """Return a group of all ranks, of whichever group, that call this with the same store.

        Args:
            store: where they meet; their ranks are in the order in which they come.
            size: how many they are.
            timeout: how long a collective of the new group waits; this group's by default.
            group_name: what the new group is called, and the ranks meet under.
            named: `group_desc`.
        """
        name = group_name or "merged"
        rank = store.add(f"{name}/joined", 1) - 1
        return self._joined(name, (store, rank % size, size), [], timeout, named)

    def _joined(
        self, name: str, place: tuple[Store, int, int], above: list[int], timeout: timedelta | None, named: Any
    ) -> SharedMemoryGroup:
        store, rank, world = place
        limit = timeout if timeout is not None else timedelta(seconds=self._timeout_s)
        made = create(JoinOptions(prefixed(name, store), rank, world, limit, name, above))
        made._set_group_desc(named.get("group_desc") or "undefined")
        return made

    def _get_sequence_number_for_group(self) -> int:
        """Return how many collectives this rank has announced; 0 once the group was destroyed."""
        states = self._native.states(self._handle)
        return RankState(*states[self._rank]).serial if states else 0

    def _wait_for_pending_works(self) -> None:
        """Run what was started, and write what was sent."""
        self._native.drain(self._handle, self._timeout_s)

    def shutdown(self) -> None:
        """Run what was started, then give the memory back; ranks that wait for this one are told that it has left."""
        self._drain()
        self._close()

    def _close(self) -> None:
        self._native.close_group(self._handle)
        self._sweep()
        self._close_others()

    def abort(self) -> None:
        """Give the memory back at once; what waits or was started fails, in every thread and on the other ranks."""
        with contextlib.suppress(Exception):
            self._native.break_group(self._handle, Status.CLOSED)
            self._close()


# Each collective, as the ranks announce it, and the methods that run it.
for _where, _methods in {
    "broadcast": ("broadcast",),
    "all_gather": ("all_gather_single", "allgather"),
    "all_gather_coalesced": ("all_gather_single_coalesced", "allgather_coalesced"),
    "reduce_scatter": ("reduce_scatter_single", "reduce_scatter"),
    "reduce_scatter_coalesced": ("reduce_scatter_single_coalesced",),
    "all_to_all": ("all_to_all_single", "alltoall"),
    "all_reduce_coalesced": ("allreduce_coalesced",),
    "reduce": ("reduce",),
    "gather": ("gather",),
    "scatter": ("scatter",),
}.items():
    for _method in _methods:
        setattr(SharedMemoryGroup, _method, delegated(getattr(SharedMemoryGroup, _method), _where))

for _method in ("barrier", "send", "recv", "recv_anysource"):
    setattr(SharedMemoryGroup, _method, watched(getattr(SharedMemoryGroup, _method)))

# What torch 2.11 and 2.12 call, and 2.13 for backward compatibility.
for _old, _method in {
    "_allgather_base": "all_gather_single",
    "allgather_into_tensor_coalesced": "all_gather_single_coalesced",
    "_reduce_scatter_base": "reduce_scatter_single",
    "reduce_scatter_tensor_coalesced": "reduce_scatter_single_coalesced",
    "alltoall_base": "all_to_all_single",
}.items():
    setattr(SharedMemoryGroup, _old, getattr(SharedMemoryGroup, _method))
