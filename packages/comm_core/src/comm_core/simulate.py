"""The simulator: n ranks as threads of one process, real data, no process group.

Each collective is a meeting. A rank leaves its call there and goes on; the last rank to arrive checks that all ranks
called the same thing, applies the catalogue's definition and lays out the results, which each rank picks up when it
waits. Because every rank's state is known, a deadlock is found the moment it happens instead of at a time limit.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import torch

from comm_core import compat
from comm_core.baton import Baton
from comm_core.catalog import ALL_GATHER, ALL_GATHER_V, ALL_REDUCE, ALL_TO_ALL, BROADCAST, REDUCE, REDUCE_SCATTER
from comm_core.catalog.rules import as_rank
from comm_core.collective import Collective, Lowering, Params
from comm_core.errors import (
    ArgumentError,
    CommError,
    DeadlockError,
    GroupError,
    RankFailedError,
    said,
)
from comm_core.groups import _simulated
from comm_core.meetings import Call, Meeting, Part
from comm_core.pending import Pending
from comm_core.simulated_messages import Messages, exchange
from comm_core.simulated_process_group import SimulatedProcessGroup

T = TypeVar("T")


class World:
    """A simulated world of ranks.

    A collective is in flight there as it is over a process group: it waits for the other ranks when its result is used.

    Args:
        size: the number of ranks.

    Raises:
        ArgumentError: the size is not a positive int.

    Example:
        >>> World(3).run(lambda group: group.rank * 10)
        [0, 10, 20]

    `torch.compile` and `torch.func` work in simulated ranks; `make_fx` and forward mode (`jvp`, `jacfwd`) only in one
    at a time, because torch.fx patches globals, and torch counts the levels of forward mode for the whole process.

    Source: JAX runs a mesh of host devices in one process; PyTorch's own tests use a threaded process group.
    """

    def __init__(self, size: int) -> None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ArgumentError("World", got=f"size {said(size)}", need="a positive number of ranks")
        self.size = size

    def run(self, fn: Callable[..., T], *args: Any) -> list[T]:
        """Call `fn(group, *args)` once per rank and return the results in rank order.

        Each rank has a thread, and they take turns: one runs until it waits for another.

        Raises:
            RankFailedError: a rank raised an error of the user's; it is the cause, and the rank is named.
            CommError: the ranks' collectives do not fit together; raised as it is.
        """
        session = _Session(self.size)
        try:
            session.run(fn, args)
        finally:
            session.close()
        session.raise_first_error()
        return session.results


_numbers_in_use: set[int] = set()  # of the sessions now running, so that the names of their groups differ
_numbers_lock = threading.Lock()


class _Session:
    """The state of one `World.run`: the meetings under way and what each rank is doing."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.results: list[Any] = [None] * size
        self.changed = threading.Condition()
        self.baton = Baton()
        self.meetings: dict[tuple[tuple[int, ...], int, int], Meeting] = {}  # of the n-th call on the m-th group
        self.open: dict[int, list[Part]] = {rank: [] for rank in range(size)}  # what each rank has not picked up
        self.waiting: dict[int, Part] = {}
        self.memories: dict[object, Any] = {}  # simulated_symmetric: what the ranks of a group share
        self.left: set[int] = set()
        self.errors: dict[int, BaseException] = {}
        self.grad_enabled = torch.is_grad_enabled()
        self.inference = torch.is_inference_mode_enabled()
        self.groups_made: Counter[tuple[int, tuple[int, ...]]] = Counter()
        self.registered: dict[str, SimulatedProcessGroup] = {}  # torch's registry holds weak references
        with _numbers_lock:
            self.number = next(number for number in itertools.count() if number not in _numbers_in_use)
            _numbers_in_use.add(self.number)

    def run(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        threads = [
            threading.Thread(target=self.rank_main, args=(rank, fn, args), name=f"rank {rank}", daemon=True)
            for rank in range(self.size)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self) -> None:
        for meeting in self.meetings.values():  # nobody else will come; a result of it may be waited for later
            meeting.error = DeadlockError("collective", got="a run that is over", need="every rank to take part")
        for name in self.registered:
            compat.unregister_group(name)
        with _numbers_lock:
            _numbers_in_use.discard(self.number)

    def register(self, group: SimulatedGroup) -> str:
        """Make a c10d group of a simulated one, under a name that a later run of the same shape has again."""
        ranks = ",".join(map(str, group.ranks))
        name = f"simulated {self.number}, ranks {ranks}, group {group.number}, rank {group.rank}"
        process_group = SimulatedProcessGroup(SimulatedTransport(group), group)
        compat.register_group(name, process_group)
        with self.changed:
            self.registered[name] = process_group
        return name

    def rank_main(self, rank: int, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        with self.baton.turn():
            self.rank_turns(rank, fn, args)

    def rank_turns(self, rank: int, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        group = SimulatedGroup(self, rank, tuple(range(self.size)))
        _simulated.group = group
        try:
            with torch.inference_mode(self.inference), torch.set_grad_enabled(self.grad_enabled):
                self.results[rank] = fn(group, *args)
                while self.open[rank]:  # an error that nobody has waited for is told, too
                    self.open[rank][0].wait()
        except BaseException as error:  # every rank's error is kept and raised by the caller's thread
            self.errors[rank] = error
        finally:
            _simulated.group = None
            with self.changed:
                self.left.add(rank)
                self.end_hopeless_meetings()
                self.changed.notify_all()

    def join(self, group: SimulatedGroup, call: Call) -> Part:
        """Leave a rank's call at the meeting that it is for; the last one to come holds it."""
        with self.changed:
            key = (group.ranks, group.number, group.next_meeting())
            meeting = self.meetings.setdefault(key, Meeting())
            meeting.calls[group.rank] = call
            part = Part(self, group, meeting, call)
            me = group.ranks[group.rank]
            self.open[me] = [one for one in self.open[me] if one.meeting.results is None] + [part]
            if len(meeting.calls) == group.world:
                del self.meetings[key]
                meeting.hold(group.world)
                self.changed.notify_all()
        return part

    def wait(self, part: Part) -> None:
        """Block until a meeting is over: held, or hopeless. Meanwhile other ranks have their turns."""
        me = part.group.ranks[part.group.rank]
        with self.changed:
            if part in self.open[me]:
                self.open[me].remove(part)
            if part.meeting.over:
                return
        with self.baton.passed_on(), self.changed:
            self.waiting[me] = part
            self.end_hopeless_meetings()
            self.changed.wait_for(lambda: part.meeting.over)
            self.waiting.pop(me, None)

    def end_hopeless_meetings(self) -> None:
        """End the waits that nobody can end any more, with the same error on each of their ranks."""
        alive = self._ranks_that_can_go_on()
        stuck = {rank: part for rank, part in self.waiting.items() if rank not in alive and not part.meeting.over}
        if not stuck:
            return
        who = [f"rank {rank} waits in {part.what} of ranks {list(part.group.ranks)}" for rank, part in stuck.items()]
        who += [f"rank {rank} {'failed' if rank in self.errors else 'has returned'}" for rank in self.left]
        who += [f"rank {rank} still runs" for rank in alive - self.waiting.keys()]
        error = DeadlockError(
            "collective",
            got="; ".join(sorted(who)),
            need="every rank of a group to make the same calls in the same order",
        )
        for part in stuck.values():
            part.meeting.error = error
        self.changed.notify_all()

    def _ranks_that_can_go_on(self) -> set[int]:
        """Return the ranks that run, or wait in a meeting whose missing ranks all can go on (a least fixed point)."""
        alive = {rank for rank in range(self.size) if rank not in self.left and rank not in self.waiting}
        while True:
            freed = {
                rank
                for rank, part in self.waiting.items()
                if rank not in alive and (part.meeting.over or part.missing() <= alive)
            }
            if not freed:
                return alive
            alive |= freed

    def raise_first_error(self) -> None:
        own = {rank: error for rank, error in self.errors.items() if not isinstance(error, (DeadlockError,))}
        for rank, error in sorted((own or self.errors).items()):
            if isinstance(error, CommError) or not isinstance(error, Exception):
                error.add_note(f"raised on simulated rank {rank} of {self.size}")
                raise error
            raise RankFailedError(f"rank {rank} of {self.size}", got=f"{type(error).__name__}: {error}") from error


class SimulatedGroup:
    """One rank's view of a group of a simulated world; accepted wherever a group is.

    Args:
        session: the run that the rank belongs to.
        rank: the position in the group.
        ranks: the ranks of the world that form the group.
    """

    is_simulated = True
    backend = "simulated"

    def __init__(self, session: _Session, rank: int, ranks: tuple[int, ...]) -> None:
        self.rank = rank
        self.world = len(ranks)
        self.ranks = ranks
        self.session = session
        self.number = session.groups_made[ranks[rank], ranks]  # the n-th group of these ranks, alike on its members
        session.groups_made[ranks[rank], ranks] += 1
        self.name = session.register(self)
        self._meetings = 0

    def __repr__(self) -> str:
        return f"SimulatedGroup(rank={self.rank}, ranks={list(self.ranks)})"

    @property
    def process_group(self) -> SimulatedProcessGroup:
        """It as torch's own functional ops take it, while the run lasts."""
        return self.session.registered[self.name]

    def next_meeting(self) -> int:
        """Number this rank's collectives on the group, so that the n-th of each rank meet."""
        self._meetings += 1
        return self._meetings

    def subgroup(self, ranks: Iterable[int]) -> SimulatedGroup:
        """Return this rank's view of a sub-group, given by positions in this group; its members call this alike.

        Raises:
            GroupError: this rank is not in it, or the ranks are not different ranks of this group.

        Example:
            >>> World(4).run(lambda group: group.subgroup([0, 2]).ranks if group.rank in (0, 2) else None)
            [(0, 2), None, (0, 2), None]
        """
        positions: list[int] = list(ranks) if isinstance(ranks, (list, tuple, range)) else [cast(int, ranks)]
        if any(as_rank(p, self.world) is None for p in positions) or len(set(positions)) != len(positions):
            raise GroupError(
                "subgroup", got=f"ranks {said(positions)}", need=f"different ranks from 0 to {self.world - 1}"
            )
        if self.rank not in positions:
            raise GroupError(
                "subgroup", got=f"ranks {positions} on rank {self.rank}", need="a group that this rank is in"
            )
        return SimulatedGroup(self.session, positions.index(self.rank), tuple(self.ranks[p] for p in positions))

    def meet(self, entry: Collective, x: torch.Tensor, params: Params) -> Pending:
        """Take part in a collective whose parameters `check` has parsed; the result waits for the others."""
        if not entry.agrees(x, **params):  # nothing that all ranks do together
            return entry.kernel(SimulatedTransport(self), x, **params)
        sent = x.detach().clone(memory_format=torch.contiguous_format)
        part = self.session.join(self, Call(entry, sent, params))
        shape = entry.shape(tuple(x.shape), self.world, self.rank, **params)
        pending = Pending(sent.new_empty(shape), part, what=entry.name).then(part.result, shape)
        if entry.lowering is Lowering.OUT_OF_PLACE and x.is_contiguous() and params.get("dim", 0) == 0:
            pending.sends(
                x.detach(), watches_parts=True
            )  # as a process group, which would read what is written meanwhile
        return pending


class SimulatedTransport:
    """The catalogue's definitions as a transport: each method is the entry of that name along dim 0.

    Args:
        group: the simulated group.
    """

    def __init__(self, group: SimulatedGroup) -> None:
        self.rank = group.rank
        self.world = group.world
        self._group = group

    def _meet(self, entry: Collective, x: torch.Tensor, out: torch.Tensor | None, **params: Any) -> Pending:
        parsed = entry.check(x, self.world, self.rank, **params)
        pending = self._group.meet(entry, x, parsed)
        if out is not None:
            out.copy_(pending.wait())
            pending = Pending(out, what=entry.name)
        return pending

    def all_reduce(self, x: torch.Tensor, reduce_op: str, out: torch.Tensor | None = None) -> Pending:
        """Meet for all_reduce."""
        return self._meet(ALL_REDUCE, x, out, reduce_op=reduce_op)

    def all_gather(self, x: torch.Tensor, out: torch.Tensor | None = None) -> Pending:
        """Meet for all_gather along dim 0."""
        return self._meet(ALL_GATHER, x, out, dim=0)

    def all_gather_v(self, x: torch.Tensor, sizes: Sequence[int], out: torch.Tensor | None = None) -> Pending:
        """Meet for all_gather_v along dim 0."""
        return self._meet(ALL_GATHER_V, x, out, dim=0, sizes=sizes)

    def reduce_scatter(self, x: torch.Tensor, reduce_op: str, out: torch.Tensor | None = None) -> Pending:
        """Meet for reduce_scatter along dim 0."""
        return self._meet(REDUCE_SCATTER, x, out, reduce_op=reduce_op, dim=0)

    def all_to_all(
        self,
        x: torch.Tensor,
        output_splits: Sequence[int],
        input_splits: Sequence[int],
        out: torch.Tensor | None = None,
    ) -> Pending:
        """Meet for all_to_all."""
        return self._meet(ALL_TO_ALL, x, out, output_splits=output_splits, input_splits=input_splits)

    def broadcast(self, x: torch.Tensor, src: int, out: torch.Tensor | None = None) -> Pending:
        """Meet for broadcast."""
        return self._meet(BROADCAST, x, out, src=src)

    def reduce(self, x: torch.Tensor, reduce_op: str, dst: int, out: torch.Tensor | None = None) -> Pending:
        """Meet for reduce."""
        return self._meet(REDUCE, x, out, reduce_op=reduce_op, dst=dst)

    def batch_p2p(
        self,
        x: torch.Tensor,
        sends: Messages,
        receives: Messages,
        out: torch.Tensor | None = None,
        reverse: bool = False,
    ) -> Pending:
        """Send and receive; only the two ends of a message meet."""
        pending = exchange(self._group, x, sends, receives, reverse)
        return pending if out is None else pending.then(out.copy_, tuple(out.shape))

    def wait(self, x: torch.Tensor) -> Pending:
        """Return the tensor: simulated collectives have finished when they return."""
        return Pending(x)
