"""The simulator: n ranks as threads of one process, real data, no process group.

Each collective is a meeting. The last rank to arrive checks that all ranks called the same thing, applies the
catalogue's definition and hands out the results. Because every rank's state is known, a deadlock is found the moment
it happens instead of at a time limit.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch

from comm_core import compat
from comm_core.catalog import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, BROADCAST, REDUCE_SCATTER
from comm_core.catalog.rules import is_rank
from comm_core.collective import Collective, Params
from comm_core.errors import (
    ArgumentError,
    CommError,
    DeadlockError,
    GroupError,
    MismatchError,
    RankFailedError,
    TransportError,
    first_line,
    said,
)
from comm_core.groups import _simulated
from comm_core.pending import Pending
from comm_core.simulated_process_group import SimulatedProcessGroup

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Call:
    """What one rank brought to a meeting."""

    entry: Collective
    x: torch.Tensor
    params: Params

    def said(self) -> tuple[object, ...]:
        return (self.entry.name, *self.entry.agrees(self.x, **self.params))

    def __str__(self) -> str:
        said = self.said()
        facts = ", ".join(f"{said[i]} {said[i + 1]}" for i in range(1, len(said), 2))
        return f"{self.entry.name}({facts})"


@dataclass(slots=True)
class Meeting:
    """One collective of one group: who came, and what each takes away."""

    calls: dict[int, _Call] = field(default_factory=dict)
    results: list[torch.Tensor] | None = None
    error: CommError | None = None

    @property
    def over(self) -> bool:
        """Whether nobody waits in it any more."""
        return self.results is not None or self.error is not None

    def hold(self, world: int) -> None:
        """Give every rank its result, or all of them an error."""
        calls = [self.calls[rank] for rank in range(world)]
        if len({call.said() for call in calls}) > 1:
            who = "; ".join(f"rank {rank}: {call}" for rank, call in enumerate(calls))
            self.error = MismatchError(
                calls[0].entry.name,
                got=f"different calls: {who}",
                need="the same call on every rank of the group",
            )
            return
        try:
            self.results = calls[0].entry.oracle([call.x for call in calls], [call.params for call in calls])
        except CommError as error:
            self.error = error
        except Exception as error:  # whatever it is, every rank must be told
            self.error = TransportError(calls[0].entry.name, got=f"{type(error).__name__}: {first_line(error)}")


class World:
    """A simulated world of ranks.

    Args:
        size: the number of ranks.

    Raises:
        ArgumentError: the size is not a positive int.

    Example:
        >>> World(3).run(lambda group: group.rank * 10)
        [0, 10, 20]

    `torch.compile` works in simulated ranks; `make_fx` only in one at a time, because torch.fx patches globals.

    Source: JAX runs a mesh of host devices in one process; PyTorch's own tests use a threaded process group.
    """

    def __init__(self, size: int) -> None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ArgumentError("World", got=f"size {said(size)}", need="a positive number of ranks")
        self.size = size

    def run(self, fn: Callable[..., T], *args: Any) -> list[T]:
        """Call `fn(group, *args)` once per rank, at the same time, and return the results in rank order.

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
        self.meetings: dict[tuple[tuple[int, ...], int, int], Meeting] = {}  # of the n-th call on the m-th group
        self.waiting: dict[int, tuple[Meeting, SimulatedGroup, object]] = {}  # the last: what it says it does
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
        group = SimulatedGroup(self, rank, tuple(range(self.size)))
        _simulated.group = group
        try:
            with torch.inference_mode(self.inference), torch.set_grad_enabled(self.grad_enabled):
                self.results[rank] = fn(group, *args)
        except BaseException as error:  # every rank's error is kept and raised by the caller's thread
            self.errors[rank] = error
        finally:
            _simulated.group = None
            with self.changed:
                self.left.add(rank)
                self.end_hopeless_meetings()
                self.changed.notify_all()

    def meet(self, group: SimulatedGroup, call: _Call) -> torch.Tensor:
        with self.changed:
            key = (group.ranks, group.number, group.next_meeting())
            meeting = self.meetings.setdefault(key, Meeting())
            meeting.calls[group.rank] = call
            me = group.ranks[group.rank]
            if len(meeting.calls) == group.world:
                del self.meetings[key]
                meeting.hold(group.world)
                self.changed.notify_all()
            else:
                self.waiting[me] = (meeting, group, call)
                self.end_hopeless_meetings()
                self.changed.wait_for(lambda: meeting.over)
                del self.waiting[me]
        if meeting.error is not None:
            raise meeting.error.again()
        if meeting.results is None:
            raise DeadlockError(call.entry.name, got="a meeting that ended without a result")
        return meeting.results[group.rank]

    def end_hopeless_meetings(self) -> None:
        """End the waits that nobody can end any more, with the same error on each of their ranks."""
        alive = self._ranks_that_can_go_on()
        stuck = {rank: state for rank, state in self.waiting.items() if rank not in alive and not state[0].over}
        if not stuck:
            return
        who = [f"rank {rank} waits in {call} of ranks {list(group.ranks)}" for rank, (_, group, call) in stuck.items()]
        who += [f"rank {rank} {'failed' if rank in self.errors else 'has returned'}" for rank in self.left]
        who += [f"rank {rank} still runs" for rank in alive - self.waiting.keys()]
        error = DeadlockError(
            "collective",
            got="; ".join(sorted(who)),
            need="every rank of a group to make the same calls in the same order",
        )
        for meeting, _, _ in stuck.values():
            meeting.error = error
        self.changed.notify_all()

    def _ranks_that_can_go_on(self) -> set[int]:
        """Return the ranks that run, or wait in a meeting whose missing ranks all can go on (a least fixed point)."""
        alive = {rank for rank in range(self.size) if rank not in self.left and rank not in self.waiting}
        while True:
            freed = {
                rank
                for rank, (meeting, group, _) in self.waiting.items()
                if rank not in alive
                and (meeting.over or {group.ranks[p] for p in range(group.world) if p not in meeting.calls} <= alive)
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
        if not all(is_rank(p, self.world) for p in positions) or len(set(positions)) != len(positions):
            raise GroupError(
                "subgroup", got=f"ranks {said(positions)}", need=f"different ranks from 0 to {self.world - 1}"
            )
        if self.rank not in positions:
            raise GroupError(
                "subgroup", got=f"ranks {positions} on rank {self.rank}", need="a group that this rank is in"
            )
        return SimulatedGroup(self.session, positions.index(self.rank), tuple(self.ranks[p] for p in positions))

    def meet(self, entry: Collective, x: torch.Tensor, params: Params) -> Pending:
        """Take part in a collective whose parameters `check` has parsed; returns when all ranks have."""
        if not entry.agrees(x, **params):
            return Pending(x)
        return Pending(
            self.session.meet(self, _Call(entry, x.detach().clone(memory_format=torch.contiguous_format), params)),
            what=entry.name,
        )


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

    def wait(self, x: torch.Tensor) -> Pending:
        """Return the tensor: simulated collectives have finished when they return."""
        return Pending(x)
