"""From a status of the C core to an error that names the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from comm_core.errors import CommError, MismatchError, RankFailedError, RankTimeoutError, TransportError
from comm_shm.codes import RankState


class Status(IntEnum):
    """What the C core answers; the numbers are those of `shm_status` in csrc/shm.h."""

    OK = 0
    MISMATCH = 1
    TIMED_OUT = 2
    DIED = 3
    LEFT = 4
    INTERRUPTED = 5
    BROKEN = 6
    CLOSED = 7
    FORKED = 8
    SPLITS = 9
    MISFIT = 10
    CUT = 11
    NO_ROOM = 12
    ELSEWHERE = 13


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known when a collective fails.

    Args:
        where: the collective.
        rank: this rank, in the group.
        ranks: the global rank of each rank of the group; empty for the default group.
        timeout_s: how long this rank was ready to wait.
        states: each rank's control block.
        first: status and rank of the failure that broke the group first.
        pair: a rank, another one, what the first sends to it in an all_to_all, and what that one expects.
        awaited: the ranks that were waited for, where not all were.
        announced: where the states are not known, what each rank announced last, as in its state from the serial on.
    """

    where: str
    rank: int
    ranks: Sequence[int]
    timeout_s: float
    states: Sequence[RankState]
    first: tuple[int, int]
    pair: tuple[int, int, int, int] = (0, 0, 0, 0)
    awaited: Sequence[int] = ()
    announced: Sequence[Sequence[int]] = ()

    def name(self, rank: int) -> str:
        """Return `rank 1`, with the global rank where it is another number."""
        if self.ranks and self.ranks[rank] != rank:
            return f"rank {rank} (global rank {self.ranks[rank]})"
        return f"rank {rank}"

    def late(self, rank: int) -> str:
        """Return `rank 1 (its last: barrier, its number 3)`, without the end where nothing is known of that."""
        if rank < len(self.states):
            return f"{self.name(rank)} (its last: {last_of(self.states[rank])})"
        if rank < len(self.announced):
            return f"{self.name(rank)} (its last: {last_of(RankState(0, 0, 0, *self.announced[rank]))})"
        return self.name(rank)

    def missing(self) -> list[int]:
        """Return the ranks that have not arrived."""
        if self.awaited:
            return list(self.awaited)
        return [rank for rank, state in enumerate(self.states) if state.behind > 0]

    def gone(self, how: Literal["dead", "left"]) -> list[int]:
        """Return the missing ranks that are gone; if none is, those that had arrived before, as when joining."""
        every = [rank for rank, state in enumerate(self.states) if getattr(state, how)]
        return [rank for rank in every if rank in self.missing()] or every


_SAME = "the same collective, dtype, size and reduce op on every rank"
_MEETING = "input_splits of each rank that are the output_splits of the others"
REBUILD = "destroy the process group on every rank and create it again"
LEFT = "has destroyed this process group or is ending"  # a process that ends in order closes its groups


def fault(status: int, scene: Scene) -> CommError:
    """Return the error for a status other than OK, naming who said or did what."""
    if not scene.states and status in (Status.TIMED_OUT, Status.DIED, Status.LEFT, Status.BROKEN) and not scene.awaited:
        status = Status.CLOSED  # another thread has destroyed it meanwhile
    match Status(status):
        case Status.MISMATCH:
            return _mismatch(scene)
        case Status.SPLITS:
            return _splits(scene)
        case Status.TIMED_OUT:
            return _timed_out(scene)
        case Status.DIED:
            return _lost(scene, scene.gone("dead"), "has ended")
        case Status.LEFT:
            return _lost(scene, scene.gone("left"), LEFT)
        case Status.BROKEN:
            return _broken(scene)
        case Status.FORKED:
            return TransportError(
                scene.where,
                got="a process group that was made before this process was forked",
                need="a group that this process joined itself",
                hint="call init_process_group in the child, or start it with spawn",
            )
        case Status.INTERRUPTED:
            return RankFailedError(
                scene.where, got="a signal while this rank waited", need="to run to its end", hint=REBUILD
            )
        case _:
            return TransportError(
                scene.where, got="a process group that was destroyed", need="a live one", hint="create it again"
            )


def no_thread(where: str, error: OSError) -> TransportError:
    """Return the error for a call that was to be started where the system gives no further thread.

    Example:
        >>> print(no_thread("all_reduce", OSError(11, "Resource temporarily unavailable")).got)
        no thread to finish what is started: [Errno 11] Resource temporarily unavailable
    """
    return TransportError(
        where,
        got=f"no thread to finish what is started: {error}",
        need="one more thread, or two where callbacks are asked for",
        hint="raise the limit (ulimit -u and -v, pids.max of the control group); collectives that wait need none",
    )


def _mismatch(scene: Scene) -> CommError:
    speakers: dict[str, list[int]] = {}
    for rank, state in enumerate(scene.states):
        speakers.setdefault(state.said(), []).append(rank)
    said = "; ".join(f"{', '.join(map(scene.name, ranks))}: {words}" for words, ranks in speakers.items())
    return MismatchError(scene.where, got=said, need=_SAME, hint="no data was touched; look at who called what")


def _splits(scene: Scene) -> CommError:
    giver, taker, sent, expected = scene.pair
    return MismatchError(
        scene.where,
        got=f"{scene.name(giver)}, which sends {sent} elements to {scene.name(taker)}, which expects {expected}",
        need="the same root on every rank" if scene.where in ("gather", "scatter") else _MEETING,
        hint="no data was touched; look at who called what",
    )


def _timed_out(scene: Scene) -> CommError:
    late = "; ".join(map(scene.late, scene.missing()))
    return RankTimeoutError(
        scene.where,
        got=f"no arrival within {scene.timeout_s:g} s of {late}",
        need="every rank of the group to make this call",
        hint=f"see where that rank is, or give a longer timeout; then {REBUILD}",
    )


def last_of(state: RankState) -> str:
    """Return what a rank announced last, in words."""
    return f"{state.said()}, its number {state.serial}" if state.serial else "nothing yet"


def _lost(scene: Scene, ranks: Sequence[int], happened: str) -> CommError:
    who = ", ".join(map(scene.name, ranks))
    return RankFailedError(
        scene.where,
        got=f"{who}, which {happened}",
        need="every rank of the group",
        hint=f"look at its output; then {REBUILD}",
    )


def _broken(scene: Scene) -> CommError:
    code, rank = scene.first
    by = "this rank" if rank == scene.rank else scene.name(rank)
    need, hint = "a group that has not failed", REBUILD
    match Status(code):
        case Status.TIMED_OUT:
            return RankTimeoutError(scene.where, got=f"a group on which {by} had timed out", need=need, hint=hint)
        case Status.INTERRUPTED:
            return RankFailedError(scene.where, got=f"a group on which {by} was interrupted", need=need, hint=hint)
        case Status.NO_ROOM:
            return TransportError(scene.where, got=f"a group for which {by} had no room", need=need, hint=hint)
        case Status.CLOSED:
            return RankFailedError(scene.where, got=f"a group that {by} has aborted", need=need, hint=hint)
        case _:
            lost = scene.gone("left" if code == Status.LEFT else "dead")
            who = ", ".join(scene.name(one) for one in lost if one != rank) or "a rank"
            return RankFailedError(scene.where, got=f"a group on which {by} found {who} gone", need=need, hint=hint)
