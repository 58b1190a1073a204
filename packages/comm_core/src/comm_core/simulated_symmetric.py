"""Symmetric memory of simulated ranks: threads of one process reach each other's tensors anyway.

The barrier is a collective of the simulator and a wait is listed beside its meetings, so that ranks that cannot go on
are told at once.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

from comm_core.catalog import ALL_REDUCE
from comm_core.errors import ArgumentError, CommError, MismatchError, said
from comm_core.meetings import Meeting, Part
from comm_core.peer_buffer import PeerBuffer, check_channel, check_peer

if TYPE_CHECKING:
    from comm_core.groups import AnyGroup
    from comm_core.simulate import SimulatedGroup

CHANNELS = 16


@dataclass(slots=True)
class Shared:
    """What the ranks of a group share of one allocation.

    Args:
        tensors: each rank's.
        wishes: what each rank asked for.
        signals: how many are waiting to be taken, by source, target and channel.
        waits: the wait of a target, by the same.
    """

    tensors: dict[int, torch.Tensor] = field(default_factory=dict)
    wishes: dict[int, str] = field(default_factory=dict)
    signals: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    waits: dict[tuple[int, int, int], Meeting] = field(default_factory=dict)


def memory_of(group: AnyGroup) -> SimulatedMemory:
    """Return a simulated rank's memory of its group; the same one each time."""
    mine = cast("SimulatedGroup", group)
    session = mine.session
    with session.changed:
        shared = session.memories.setdefault((mine.ranks, mine.number), {})
        memory = session.memories.get(mine.name)
        if memory is None:
            memory = session.memories[mine.name] = SimulatedMemory(mine, shared)
    return cast(SimulatedMemory, memory)


class SimulatedMemory:
    """The symmetric memory of one rank of a simulated group.

    Args:
        group: the rank's group.
        shared: the allocations of all its ranks, by number.
    """

    def __init__(self, group: SimulatedGroup, shared: dict[int, Shared]) -> None:
        self.rank = group.rank
        self.world = group.world
        self._group = group
        self._shared = shared
        self._numbers = itertools.count()
        self._mine: dict[int, int] = {}  # of a storage's address, the number of its allocation

    def empty(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return this rank's tensor of a new allocation, once all ranks asked for the same.

        Raises:
            MismatchError: they did not; on every rank.
            ArgumentError: this is no shape; the other ranks get a `MismatchError`.
        """
        number = next(self._numbers)
        with self._group.session.changed:
            allocation = self._shared.setdefault(number, Shared())
        refused: Exception | None = None
        x = torch.empty(0)
        try:
            x = torch.empty(tuple(shape), dtype=dtype)
        except (TypeError, RuntimeError) as error:
            refused = error
        wish = f"{list(x.shape)} {x.dtype}" if refused is None else f"a refusal of shape {said(shape)}"
        allocation.tensors[self.rank], allocation.wishes[self.rank] = x, wish
        self._meet()
        wishes = [allocation.wishes[rank] for rank in range(self.world)]
        if refused is not None:
            need = "sizes of 0 or more, and a dtype"
            raise ArgumentError("symmetric empty", got=f"shape {said(shape)}", need=need) from refused
        if len(set(wishes)) > 1:
            raise disagreement(wishes)
        self._mine[x.untyped_storage().data_ptr()] = number
        return x

    def rendezvous(self, x: torch.Tensor) -> SimulatedBuffer:
        """Return the handle of a tensor made by `empty`, or of a contiguous part of it.

        Raises:
            ArgumentError: this memory did not make it.
        """
        number = self._mine.get(x.untyped_storage().data_ptr())
        if number is None or not x.is_contiguous():
            raise ArgumentError("rendezvous", got=said(x), need="a contiguous tensor that this memory's empty made")
        return SimulatedBuffer(self._group, self._shared[number], x)

    def _meet(self) -> None:
        self._group.meet(ALL_REDUCE, torch.zeros(()), {"reduce_op": "sum"}).wait()


def disagreement(wishes: Sequence[str]) -> CommError:
    """Return the error for ranks that asked for different buffers.

    Example:
        >>> print(disagreement(["[2] torch.int8", "[3] torch.int8"]).got)
        rank 0: [2] torch.int8; rank 1: [3] torch.int8
    """
    who = "; ".join(f"rank {rank}: {wish}" for rank, wish in enumerate(wishes))
    need, hint = "the same shape and dtype on every rank", "nothing was allocated"
    return MismatchError("symmetric empty", got=who, need=need, hint=hint)


class SimulatedBuffer(PeerBuffer):
    """One rank's view of an allocation of a simulated group."""

    def __init__(self, group: SimulatedGroup, shared: Shared, x: torch.Tensor) -> None:
        super().__init__(group.rank, group.world, x)
        self._group = group
        self._shared = shared

    def peer(self, rank: int) -> torch.Tensor:
        """Return a view of a rank's buffer."""
        whole, x = self._shared.tensors[check_peer("peer", rank, self.world)], self.tensor
        return whole.detach().as_strided(x.shape, x.stride(), x.storage_offset())

    def barrier(self, timeout_s: float | None = None) -> None:
        """Meet; ranks that can never meet are told so."""
        self._group.meet(ALL_REDUCE, torch.zeros(()), {"reduce_op": "sum"}).wait()

    def signal(self, rank: int, channel: int = 0, timeout_s: float | None = None) -> None:
        """Let one wait of a rank pass."""
        key = self._key("signal", self.rank, rank, channel)
        with self._group.session.changed:
            self._shared.signals[key] += 1
            if key in self._shared.waits:
                self._shared.waits[key].results = []
                self._group.session.changed.notify_all()

    def wait(self, rank: int, channel: int = 0, timeout_s: float | None = None) -> None:
        """Wait for one signal of a rank.

        Raises:
            DeadlockError: it can never come.
        """
        key, shared, session = self._key("wait", rank, self.rank, channel), self._shared, self._group.session
        with session.baton.passed_on(), session.changed:
            if not shared.signals[key]:
                # A meeting at which everybody is but the source, so that the session sees whom this rank waits for.
                others: dict[int, Any] = {peer: None for peer in range(self.world) if peer != rank}
                meeting = shared.waits[key] = Meeting(others)
                me = self._group.ranks[self.rank]
                session.waiting[me] = Part(session, self._group, meeting, f"wait(rank {rank}, channel {channel})")
                session.end_hopeless_meetings()
                session.changed.wait_for(lambda: meeting.over)
                del session.waiting[me], shared.waits[key]
                if meeting.error is not None:
                    raise meeting.error.again()
            shared.signals[key] -= 1

    def _key(self, where: str, source: int, target: int, channel: int) -> tuple[int, int, int]:
        check_peer(where, source, self.world)
        check_peer(where, target, self.world)
        return (source, target, check_channel(where, channel, CHANNELS))
