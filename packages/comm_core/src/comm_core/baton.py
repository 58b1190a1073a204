"""One of several threads runs at a time, and they take turns where they wait for each other.

So what is not made for several threads at once is called by one: torch's compiler has ended the process where three of
them called a function that one of them compiled.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

_LOOK_S = 0.05  # how long a thread waits for its turn before it looks at who has it
_LEAST_S = 0.001  # of processor time in between: who has had less waits for something itself


class Baton:
    """What a thread holds while it runs.

    Where a thread that holds it waits for something else than its turn, which may be for another of these threads, the
    others go on beside it: they look how much processor time it takes.

    Example:
        >>> baton = Baton()
        >>> with baton.turn():
        ...     with baton.passed_on():
        ...         "another thread may run"
        'another thread may run'
    """

    def __init__(self) -> None:
        self._free = threading.Lock()
        self._mine = threading.local()
        self._clock: int | None = None  # counts the processor time of the thread that holds it

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn of this thread, and end it behind the block."""
        self._take()
        try:
            yield
        finally:
            self._give()

    @contextlib.contextmanager
    def passed_on(self) -> Iterator[None]:
        """Let others run during the block. A thread that has no turn, as one that a rank has started, just runs."""
        held = self._give()
        try:
            yield
        finally:
            if held:
                self._take()

    def _take(self) -> None:
        spent = self._spent()
        while not self._free.acquire(timeout=_LOOK_S):
            before, spent = spent, self._spent()
            if 0 <= spent - before < _LEAST_S:
                return
        self._clock = _clock_of_this_thread()
        self._mine.held = True

    def _give(self) -> bool:
        held = getattr(self._mine, "held", False)
        if held:
            self._mine.held = False
            self._free.release()
        return held

    def _spent(self) -> float:
        """Return the processor time of the thread that holds it, in seconds; zero where that cannot be told."""
        clock = self._clock
        try:
            return 0.0 if clock is None else time.clock_gettime(clock)
        except OSError:  # it has ended
            return 0.0


def _clock_of_this_thread() -> int | None:
    """Return what `time.clock_gettime` takes; None where threads have none, as on macOS."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return None
    return time.pthread_getcpuclockid(threading.get_ident())
