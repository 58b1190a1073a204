"""Calls of the C core: made here and now, or started and waited for later."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from comm_core.errors import ArgumentError, CommError, RankTimeoutError
from comm_shm.agreement import AgreeingGroup
from comm_shm.codes import COLLECTIVE_CODE, DTYPE_CODE, REFUSALS, UNKNOWN, RankState
from comm_shm.faults import Scene, Status, fault, no_thread
from comm_shm.terms import Terms
from comm_shm.torch_compat import note_work, written
from comm_shm.work import FinishedWork, ManyWorks, Started, StartedWork

FOREVER_S = 1e9
SWEEP_AT = 32


class Step(NamedTuple):
    """One call of the C core."""

    native: str
    """Its name there."""
    where: str
    """The collective, as the ranks announce it."""
    numel: int
    """Elements of one rank's part."""
    detail: int
    """The root, the number of tensors, or the address of the splits, behind which it stands then."""
    tensors: tuple[torch.Tensor, torch.Tensor] | None = None
    """What is read, and what is written; None when no data moves."""
    reduce_op: int | None = None
    """The code of the reduction, None where nothing is reduced."""
    finish: Callable[[], None] | None = None
    """What is done once it has run."""
    keep: object = None
    """What else has to stay alive until the call has been made."""
    said: torch.dtype | None = None
    """The dtype that the ranks announce where no data moves."""
    unsaid: bool = False
    """Whether dtype and size are not announced: the ranks have compared those of the whole call before."""
    late: Callable[[], Step] | None = None
    """What makes the step when its turn comes, where that needs what the steps before it have brought."""

    def arguments(self) -> tuple[int, int, int, int, int, int, int]:
        """Return what the C core is given besides the group and the time."""
        code = COLLECTIVE_CODE[self.where]
        if self.tensors is None:
            said = UNKNOWN if self.said is None else DTYPE_CODE[self.said]
            return code, said, self.numel, self.detail, 0, 0, 1
        x, out = self.tensors
        last = x.element_size() if self.reduce_op is None else self.reduce_op
        dtype = UNKNOWN if self.unsaid else DTYPE_CODE.get(x.dtype, UNKNOWN)
        return code, dtype, self.numel, self.detail, x.data_ptr(), out.data_ptr(), last


class CallingGroup(AgreeingGroup):
    """A group that runs the steps of a collective at once, or starts them.

    What is started runs in its order, before anything that is called later: in the thread that waits for it, or, left
    alone for 100 us, in one of the C core's.
    """

    def __init__(self, options: Any, handle: Any) -> None:
        super().__init__(options, handle)
        self._open: set[StartedWork] = set()
        self._sweep_at = SWEEP_AT
        self._together: list[StartedWork] | None = None
        self.settling = threading.Lock()

    def run(self, steps: list[Step], tensors: list[torch.Tensor], given: Terms) -> dist.Work:
        """Run the steps of a collective, or start them when the caller does not wait."""
        limit = self._limit(given.timeout)
        if given.later:
            work = self._start(self._launched(steps, limit), tensors)
            for step in steps:
                self._note_writes(step)
            return work
        for step in steps:
            status = getattr(self._native, step.native)(self._handle, *step.arguments(), limit)
            if status:
                raise self._fault(status, step.where, limit)
            self._note_writes(step)
            if step.finish is not None:
                step.finish()
        if self._open:
            self._sweep()
        return FinishedWork(tensors)

    def _note_writes(self, step: Step) -> None:
        """Tell autograd what the C core writes; torch itself sees what is copied from there."""
        if step.tensors is not None and not (step.native == "broadcast" and step.detail == self._rank):
            written(step.tensors[1:])

    def _launched(self, steps: list[Step], limit: float) -> list[Started]:
        parts, before = [], None
        for step in steps:
            try:
                if step.late is None:
                    before = self._native.launch(step.native, before, self._handle, *step.arguments(), limit)
                else:
                    before = self._launch_late(step, step.late, before, limit)
            except OSError as error:
                raise no_thread(step.where, error) from error
            if isinstance(before, int):
                raise self._fault(before, step.where, limit)
            parts.append(Started(before, step.where, step.finish, step.tensors or (), limit))
        return parts

    def _launch_late(self, step: Step, made: Callable[[], Step], before: Any, limit: float) -> Any:
        def arguments() -> tuple[Any, ...]:
            return self._handle, *made().arguments(), limit

        code, refusal = COLLECTIVE_CODE[step.where], REFUSALS.index("no room for what the others have")
        return self._native.launch_late(step.native, before, self._handle, arguments, code, refusal, limit)

    def _start(self, parts: list[Started], tensors: list[torch.Tensor]) -> StartedWork:
        work = StartedWork(self, parts, tensors)
        self._open.add(work)  # the memory of its tensors has to stay, whatever the caller does with the work
        if self._together is not None:
            self._together.append(work)
        note_work(work, tensors)
        if len(self._open) >= self._sweep_at:
            self._sweep()
            self._sweep_at = max(SWEEP_AT, 2 * len(self._open))
        return work

    def _sweep(self) -> None:
        for work in list(self._open):
            work.is_completed()

    def _start_coalescing(self, device: object = None) -> None:
        self._together = []

    def _end_coalescing(self, device: object = None) -> dist.Work:
        works, self._together = self._together or [], None
        return ManyWorks(works)

    # -- what a started work asks of its group -------------------------------------------------------------------

    def wait_for(self, started: Started, timeout_s: float | None) -> int:
        """Return the C core's status of what was started, once it has one or the time is over."""
        limit = timeout_s if timeout_s is not None else started.limit if started.message else FOREVER_S
        return self._native.wait(started.request, limit, timeout_s is None)

    def has_finished(self, started: Started) -> bool:
        """Return whether what was started has finished."""
        return bool(self._native.finished(started.request))

    def tell_when_finished(self, started: Started, tell: Callable[[], None]) -> bool:
        """Return whether `tell` will be called; if not, what was started has finished already."""
        try:
            return bool(self._native.tell(started.request, tell))
        except OSError as error:
            raise no_thread(started.where, error) from error

    def failure(self, status: int, started: Started, limit: float) -> CommError:
        """Return the error for a status."""
        if not self.has_finished(started):
            return self._unfinished(started, limit)
        scene = self._native.scene(started.request)
        if scene is None:
            return self._fault(status, started.where, limit)
        states, first, pair = scene
        told = [RankState(*state) for state in states]
        return fault(Status(status), Scene(started.where, self._rank, self._ranks, limit, told, first, pair))

    def _unfinished(self, started: Started, limit: float) -> CommError:
        scene = self._scene(started.where, limit)
        late = ", ".join(map(scene.name, scene.missing()))
        return RankTimeoutError(
            started.where,
            got=f"no result within {limit:g} s" + (f"; still to come: {late}" if late else ""),
            need="more time, or every rank of the group to make this call",
            hint="it is still running; wait() again",
        )

    def source_of(self, started: Started) -> int:
        """Return the rank in the group that a message came from, or that it was asked of."""
        if not started.message:
            raise ArgumentError(started.where, got="a collective", need="a message, which has a source")
        return int(self._native.message(started.request)[0])

    def settled(self, work: StartedWork) -> None:
        """Note that a work needs no more attention."""
        self._open.discard(work)

    # -- the end -------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Run what was started and write what was sent; say what failed and nobody waited for."""
        self._native.drain(self._handle, self._timeout_s)
        for work in list(self._open):
            error = work.exception()
            if error is not None:
                warnings.warn(f"nobody waited for this: {error}", stacklevel=3)

    def _limit(self, timeout: timedelta | None) -> float:
        return self._timeout_s if timeout is None else timeout.total_seconds()
