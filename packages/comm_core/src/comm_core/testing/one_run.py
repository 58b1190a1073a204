"""One run on the workers of a pool: send the order, hear every rank, end those that hang, give results or raise."""

from __future__ import annotations

import time
from typing import Any

from comm_core.testing import payload
from comm_core.testing.failures import (
    DIED,
    UNFINISHED,
    RankFailure,
    RanksFailedError,
    RanksTimedOutError,
    first_failure,
)
from comm_core.testing.wire import EndOrder, Raised, Ready, Returned, RunOrder
from comm_core.testing.worker import RankWorker, wait_for_any

_CLOSING_LIMIT_S = 10.0
_DYING_S = 1.0


class OneRun:
    """A run in progress.

    Args:
        workers: one per rank, in rank order, all idle.
        orders: what each is to do, in rank order.
        grace: seconds that the others get once a rank has failed.
    """

    def __init__(self, workers: list[RankWorker], orders: list[RunOrder], grace: float) -> None:
        self._workers = workers
        self._orders = orders
        self._grace = grace
        self._timeout = orders[0].timeout
        self._results: dict[int, bytes] = {}
        self._failures: dict[int, RankFailure] = {}
        self._unfit: set[int] = set()
        self._timed_out = False

    def results(self) -> list[Any]:
        """Run to the end and return each rank's result.

        Raises:
            RankFailedError: a rank raised or died.
            RankTimeoutError: a rank had not finished at the time limit.
        """
        self._start()
        self._hear_all()
        self._close_all()
        self._raise_failures()
        return [payload.load_result(self._results[rank]) for rank in range(len(self._workers))]

    @property
    def unfit(self) -> list[RankWorker]:
        """The workers that must not serve again."""
        return [self._workers[rank] for rank in sorted(self._unfit)]

    def _start(self) -> None:
        self._deadline = time.monotonic() + self._timeout
        for rank, (worker, order) in enumerate(zip(self._workers, self._orders, strict=True)):
            worker.forget_output()
            if not worker.send(order, self._deadline):
                self._died(rank)

    def _hear_all(self) -> None:
        while running := self._running():
            deadline = self._deadline
            if self._failures:
                deadline = min(deadline, self._first_heard + self._grace)
            heard = wait_for_any([self._workers[rank] for rank in running], deadline)
            for rank in running:
                if self._workers[rank] in heard:
                    self._hear(rank)
            if not heard and time.monotonic() >= deadline:
                self._timed_out = not self._failures
                self._end_unfinished(running)

    def _running(self) -> list[int]:
        ranks = range(len(self._workers))
        return [rank for rank in ranks if rank not in self._results and rank not in self._failures]

    def _hear(self, rank: int) -> None:
        worker = self._workers[rank]
        report = worker.receive(self._deadline) if worker.has_report else None
        if isinstance(report, Returned):
            self._results[rank] = report.result
        elif isinstance(report, Raised):
            exception = payload.load_exception(report.exception)
            said = (report.kind, report.message, report.traceback, "", exception, report.when)
            self._failed(RankFailure(rank, *said))
        else:
            self._died(rank)

    def _died(self, rank: int) -> None:
        self._unfit.add(rank)
        self._failed(RankFailure(rank, DIED, self._workers[rank].end(_DYING_S), when=time.monotonic()))

    def _failed(self, failure: RankFailure) -> None:
        if not self._failures:
            self._first_heard = time.monotonic()
        self._failures[failure.rank] = failure

    def _end_unfinished(self, running: list[int]) -> None:
        for rank in running:
            stacks = self._workers[rank].end_with_stacks()
            self._unfit.add(rank)
            self._failed(
                RankFailure(rank, UNFINISHED, "it had not finished and was ended", stacks, when=time.monotonic())
            )

    def _close_all(self) -> None:
        deadline = time.monotonic() + _CLOSING_LIMIT_S
        alive = [rank for rank in range(len(self._workers)) if rank not in self._unfit]
        for rank in alive:
            if rank in self._results:
                self._workers[rank].send(EndOrder(), deadline)
        for rank in alive:
            report = self._workers[rank].receive(deadline)
            if isinstance(report, Ready) and report.clean:
                continue
            self._unfit.add(rank)
            if rank not in self._failures:
                self._failed(self._not_closed(rank, report))

    def _not_closed(self, rank: int, report: object) -> RankFailure:
        how = "" if isinstance(report, Ready) else f": {self._workers[rank].end(_DYING_S)}"
        message = f"its function returned, but its process groups could not be destroyed{how}"
        return RankFailure(rank, DIED, message, when=time.monotonic())

    def _raise_failures(self) -> None:
        if not self._failures:
            return
        outputs = {rank: self._workers[rank].output() for rank in self._failures}
        failures = {
            rank: RankFailure(rank, old.kind, old.message, old.traceback, outputs[rank], old.exception, old.when)
            for rank, old in self._failures.items()
        }
        world = len(self._workers)
        if self._timed_out:
            raise RanksTimedOutError(world, failures, self._timeout)
        error = RanksFailedError(world, failures, first_failure(failures))
        raise error from error.cause
