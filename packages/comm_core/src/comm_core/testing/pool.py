"""A pool of warm rank processes, each with torch imported, that serve one run after another."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from comm_core.errors import ArgumentError, RankFailedError
from comm_core.testing import payload
from comm_core.testing.backends import default_backend
from comm_core.testing.forker import Forker
from comm_core.testing.one_run import OneRun
from comm_core.testing.wire import RunOrder, Surroundings
from comm_core.testing.worker import RankWorker

_START_LIMIT_S = 180.0


class RankPool:
    """Processes that are started once, as many as the largest run needs, and used again.

    A rank that could hand trouble on (it hung, died, called `sys.exit`, or could not destroy its groups) is killed and
    replaced before the next run. Every process ends with the pool, and with this process, however it ends.

    Args:
        grace: seconds that the other ranks get to end by themselves once one has failed.

    Example:
        >>> with RankPool() as pool:
        ...     pool.run(lambda group, x: group.rank + x, world=2, args=(10,))
        [10, 11]
    """

    def __init__(self, grace: float = 1.0) -> None:
        self._grace = grace
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._workers: list[RankWorker] = []
        self._forker: Forker | None = None
        self._n_runs = 0

    def run(
        self,
        fn: Callable[..., Any],
        world: int = 2,
        backend: str | None = None,
        timeout: float = 60.0,
        args: tuple[Any, ...] = (),
    ) -> list[Any]:
        """Run `fn(group, *args)` on `world` processes and return each rank's result, in rank order.

        The parameters and errors are those of `run_ranks`.
        """
        backend = default_backend() if backend is None else backend
        _check(fn, world, backend, timeout)
        call = payload.dump_call(fn, tuple(args))
        with self._lock:
            workers = self._ready_workers(world)
            orders = self._orders(workers, backend, timeout, call)
            run = OneRun(workers, orders, self._grace)
            finished = False
            try:
                results = run.results()
                finished = True
            except (RankFailedError, TimeoutError):
                finished = True
                raise
            finally:
                self._drop(run.unfit if finished else workers)  # unfinished: interrupted in this process
                if finished and run.unfit:
                    self._regrow(world)
            return results

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the ranks, the first for rank 0."""
        return tuple(worker.pid for worker in self._workers)

    def close(self) -> None:
        """End every process of the pool; the next run starts new ones."""
        if os.getpid() == self._owner:
            self._drop(list(self._workers))
            if self._forker is not None:
                self._forker.close()
                self._forker = None

    def __enter__(self) -> RankPool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _ready_workers(self, world: int) -> list[RankWorker]:
        if os.getpid() != self._owner:
            self._forget_parents_ranks()
        if self._forker is not None and self._forker.broken:
            self.close()
        self._drop([worker for worker in self._workers if worker.has_died])
        self._grow(world)
        deadline = time.monotonic() + _START_LIMIT_S
        workers = self._workers[:world]
        for rank, worker in enumerate(workers):
            if not worker.await_hello(deadline):
                said, how = worker.output().strip(), worker.end()
                self._drop(workers)
                raise RankFailedError(
                    f"rank {rank} of {world}", got="a process that did not start", hint=f"{how}\n{said}"
                )
        return workers

    def _grow(self, world: int) -> None:
        if self._forker is None:
            self._forker = Forker()
        while len(self._workers) < world:
            self._workers.append(RankWorker(self._forker))

    def _regrow(self, world: int) -> None:
        if self._forker is not None and not self._forker.broken:
            with contextlib.suppress(RankFailedError):  # the run has its own error to tell; the next one tries again
                self._grow(world)

    def _drop(self, workers: list[RankWorker]) -> None:
        for worker in workers:
            worker.close()
        self._workers = [worker for worker in self._workers if worker not in workers]

    def _forget_parents_ranks(self) -> None:
        for worker in self._workers:
            worker.let_go()
        if self._forker is not None:
            self._forker.let_go()
        self._owner, self._workers, self._forker = os.getpid(), [], None

    def _orders(self, workers: list[RankWorker], backend: str, timeout: float, call: bytes) -> list[RunOrder]:
        self._n_runs += 1
        world, port, name, around = len(workers), workers[0].store_port, f"run {self._n_runs}", _surroundings()
        assert port is not None  # every worker has said hello
        return [RunOrder(rank, world, backend, timeout, port, name, call, around) for rank in range(world)]


def _check(fn: object, world: object, backend: object, timeout: object) -> None:
    if not callable(fn):
        raise ArgumentError("run_ranks", got=f"fn of type {type(fn).__name__}", need="a function of a group")
    if not isinstance(world, int) or isinstance(world, bool) or world < 1:
        raise ArgumentError("run_ranks", got=f"world={world!r}", need="a number of ranks, 1 or more")
    if not isinstance(backend, str) or not backend:
        raise ArgumentError("run_ranks", got=f"backend={backend!r}", need='a c10d backend, for example "gloo"')
    if not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
        raise ArgumentError("run_ranks", got=f"timeout={timeout!r}", need="a number of seconds above 0")


def _surroundings() -> Surroundings:
    try:
        folder: str | None = os.getcwd()
    except FileNotFoundError:
        folder = None
    return Surroundings(dict(os.environ), [entry or (folder or "") for entry in sys.path], folder)
