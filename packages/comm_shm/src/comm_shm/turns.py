"""Calls of a group on several hosts in their order: what was started runs in a thread, before anything called later."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from comm_core.errors import CommError
from comm_shm.faults import Status


def call_soon(tell: Callable[[], None]) -> None:
    """Call something in a thread that moves no data, for it may wait for what does."""
    from comm_shm import _native

    _native.call_soon(tell)


class Request:
    """Something that was started, and what becomes of it."""

    def __init__(self) -> None:
        self.status: int = Status.OK
        self.error: CommError | None = None
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._tell: list[Callable[[], None]] = []

    @property
    def finished(self) -> bool:
        """Whether it has finished, well or not."""
        return self._done.is_set()

    def run(self, body: Callable[[], int]) -> None:
        """Run it and keep what comes of it."""
        try:
            self.status = body()
        except CommError as error:
            self.status, self.error = Status.BROKEN, error
        self.finish()

    def finish(self) -> None:
        """Say that it has finished."""
        with self._lock:
            self._done.set()
            waiting, self._tell = self._tell, []
        for tell in waiting:
            call_soon(tell)

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has finished; return whether it has."""
        return self._done.wait(min(timeout_s, threading.TIMEOUT_MAX))

    def result(self, timeout_s: float) -> int:
        """Return its status once it has finished, or that the time is over."""
        return int(self.status) if self.wait(timeout_s) else int(Status.TIMED_OUT)

    def tell(self, callable: Callable[[], None]) -> bool:
        """Return whether it will be called when this has finished; if not, it has."""
        with self._lock:
            if self._done.is_set():
                return False
            self._tell.append(callable)
        return True


class Turns:
    """The order of one rank's collectives on one group."""

    def __init__(self) -> None:
        self._running = threading.RLock()
        self._jobs: queue.SimpleQueue[tuple[Request, Callable[[], int], Request | None]] = queue.SimpleQueue()
        self._last: Request | None = None
        self._thread: threading.Thread | None = None

    def call(self, body: Callable[[], int]) -> int:
        """Run a collective after all that were started, and return its status."""
        if self._last is None or self._last.finished:
            with self._running:
                return body()
        request = self.start(body)
        while not request.wait(0.1):  # in slices, so that signal handlers run
            pass
        if request.error is not None:
            raise request.error
        return request.status

    def start(self, body: Callable[[], int], before: Request | None = None) -> Request:
        """Start a collective; it does not run when the one `before` it, of the same call, has failed."""
        request = Request()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="comm_shm collectives", daemon=True)
            self._thread.start()
        self._last = request
        self._jobs.put((request, body, before))
        return request

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything that was started has run; return whether it has."""
        return self._last is None or self._last.wait(timeout_s)

    def stop(self) -> None:
        """End the thread once what was started has run."""
        if self._thread is not None:
            self._jobs.put((Request(), _stop, None))

    def _work(self) -> None:
        while True:
            request, body, before = self._jobs.get()
            if body is _stop:
                return
            if before is not None and before.status:
                request.status, request.error = before.status, before.error
                request.finish()
                continue
            with self._running:
                request.run(body)


def _stop() -> int:
    return Status.OK
