"""The handles that c10d expects of a call: for what has finished when it returned, and for what was started."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist

from comm_core import compat
from comm_core.errors import CommError

NONE = timedelta(0)


@compat.opaque
class FinishedWork(dist.Work):
    """A collective that was complete when its call returned."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        super().__init__()
        self._tensors = tensors
        self.value: list[Any] = tensors  # what a future holds, which may be lists of these

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Return at once."""
        return True

    def synchronize(self) -> None:
        """Return at once."""

    def is_completed(self) -> bool:
        """Return True."""
        return True

    def is_success(self) -> bool:
        """Return True: a collective that fails while its call waits raises there."""
        return True

    def exception(self) -> None:
        """Return None: a collective that fails while its call waits raises there."""

    def result(self) -> list[torch.Tensor]:
        """Return the tensors that the collective wrote."""
        return self._tensors

    def get_future(self) -> torch.futures.Future[list[torch.Tensor]]:
        """Return a future that holds the tensors already."""
        future: torch.futures.Future[list[torch.Tensor]] = torch.futures.Future()
        future.set_result(self.value)
        return future


class Started(NamedTuple):
    """One thing that the C core was asked to do, and what is done when it has."""

    request: Any
    """The C core's handle."""
    where: str
    """The collective, or send or recv."""
    finish: Callable[[], None] | None
    """What brings the result to where it belongs."""
    keep: tuple[torch.Tensor, ...]
    """Tensors whose memory the C core uses."""
    limit: float
    """How many seconds it may take."""
    message: bool = False
    """Whether it goes to or comes from one rank."""


class StartedFuture(torch.futures.Future[Any]):
    """The future of a started work: who waits for it helps, as who waits for the work does.

    Args:
        work: the work, which fills it.
    """

    def __init__(self, work: StartedWork) -> None:
        super().__init__()
        self._work: StartedWork | None = work

    def wait(self) -> Any:
        """Wait until it is filled; return what it holds, or raise what the work raises."""
        work = self._work
        if work is not None:
            work.wait()
        return super().wait()

    def settle(self) -> None:
        """Wait until another thread has filled it."""
        with contextlib.suppress(Exception):  # what it holds is for who asks for that
            super().wait()

    def forget(self) -> None:
        """Keep the work no longer."""
        self._work = None


class Home(Protocol):
    """What a work needs of its group."""

    def wait_for(self, started: Started, timeout_s: float | None) -> int:
        """Return the C core's status of what was started, once it has one or the time is over."""

    def has_finished(self, started: Started) -> bool:
        """Return whether what was started has finished."""

    def tell_when_finished(self, started: Started, tell: Callable[[], None]) -> bool:
        """Return whether `tell` will be called; if not, what was started has finished already."""

    def failure(self, status: int, started: Started, limit: float) -> CommError:
        """Return the error for a status."""

    settling: threading.Lock
    """Held while results are brought to where they belong."""

    def source_of(self, started: Started) -> int:
        """Return the rank in the group that a message came from, or that it was asked of."""

    def settled(self, work: StartedWork) -> None:
        """Note that a work needs no more attention."""


@compat.opaque
class StartedWork(dist.Work):
    """What was started and runs while its caller does something else.

    Args:
        home: the group.
        parts: what was started, in order.
        tensors: the tensors that are written or sent.

    Raises:
        CommError: from `wait`, what made it fail; the same from every call of it.
    """

    def __init__(self, home: Home, parts: Sequence[Started], tensors: list[torch.Tensor]) -> None:
        super().__init__()
        self._home, self._parts, self._tensors = home, parts, tensors
        self.value: list[Any] = tensors  # what a future holds, which may be lists of these
        self._error: BaseException | None = None
        self._done = False
        self._plain = len(parts) == 1 and parts[0].finish is None  # nothing to do when it has finished well
        self._future: StartedFuture | None = None
        self._filled = False

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Wait until it has finished; return True.

        Args:
            timeout: how long; what was started goes on when it is over, except for a message, which is given up. By
                default the time that the call was given, for messages that of the group.

        Raises:
            RankTimeoutError: it has not finished in time; who is missing is named.
            CommError: whatever else made it fail.
        """
        if not self._done:
            given = timeout.total_seconds() if timeout is not None and timeout > NONE else None
            if given is None and self._plain and self._home.wait_for(self._parts[0], None) == 0:
                self._done = True
                self._home.settled(self)
                self._fill()
                return True
            statuses = []
            for part in self._parts:
                status = self._home.wait_for(part, given)
                if status and not self._home.has_finished(part):  # only this waiting has ended
                    raise self._home.failure(status, part, given or 0.0)
                statuses.append(status)
            self._settle(statuses, given)
        self._fill()
        if self._error is not None:
            raise self._error
        return True

    def synchronize(self) -> None:
        """Wait until it has finished."""
        self.wait()

    def is_completed(self) -> bool:
        """Return whether it has finished, well or not."""
        if not self._done and all(map(self._home.has_finished, self._parts)):
            self._settle(self._statuses())
        return self._done

    def is_success(self) -> bool:
        """Return whether it has finished well."""
        return self.is_completed() and self._error is None

    def exception(self) -> BaseException | None:
        """Return what made it fail, None while it runs and when it has not failed."""
        return self._error if self.is_completed() else None

    def result(self) -> list[torch.Tensor]:
        """Return the tensors that are written or sent."""
        return self._tensors

    def source_rank(self) -> int:
        """Return the rank in the group that a received message came from."""
        return self._home.source_of(self._parts[0])

    def _source_rank(self) -> int:
        return self.source_rank()

    def get_future(self) -> torch.futures.Future[list[torch.Tensor]]:
        """Return a future that gets the tensors, or the error, as soon as it has finished.

        Its callbacks run in the thread that waits for the work or for this future, else in one of their own, where they
        may start and wait for whatever they like. Those of two works may run at the same time.
        """
        if self._future is None:
            self._future = StartedFuture(self)
            self._tell(0)
        return self._future

    def _tell(self, place: int) -> None:
        """Fill the future once the parts from `place` on have finished."""
        for index, part in enumerate(self._parts[place:], place + 1):
            if self._home.tell_when_finished(part, lambda after=index: self._tell(after)):  # type: ignore[misc]
                return
        self._settle(self._statuses())
        self._fill()

    def _fill(self) -> None:
        """Hand the future, if somebody has asked for one, what it is to hold; once."""
        future = self._future
        if future is None or future.done():
            return
        with self._home.settling:
            mine, self._filled = not self._filled, True
        if not mine:
            future.settle()  # another thread is at it
            return
        if self._error is not None:
            future.set_exception(self._error)
        else:
            future.set_result(self.value)
        future.forget()

    def _statuses(self) -> list[int]:
        return [self._home.wait_for(part, 0.0) for part in self._parts]

    def _settle(self, statuses: list[int], given: float | None = None) -> None:
        """Bring the results to where they belong, once; every part has finished."""
        with self._home.settling:
            if self._done:
                return
            try:
                for part, status in zip(self._parts, statuses, strict=True):
                    if status:
                        limit = part.limit if given is None or not part.message else given
                        self._error = self._home.failure(status, part, limit)
                        break
                    if part.finish is not None:
                        part.finish()
            except Exception as error:  # a result that cannot be copied; KeyboardInterrupt goes through
                self._error = error
            self._done = True
        self._home.settled(self)


@compat.opaque
class ManyWorks(dist.Work):
    """Several works as one, which is what coalescing gives."""

    def __init__(self, works: Sequence[StartedWork]) -> None:
        super().__init__()
        self._works = works

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Wait for all of them; raise the first error once all have finished."""
        errors = []
        for work in self._works:
            try:
                work.wait(timeout)
            except CommError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return True

    def synchronize(self) -> None:
        """Wait for all of them."""
        self.wait()

    def is_completed(self) -> bool:
        """Return whether all of them have finished."""
        finished = [work.is_completed() for work in self._works]  # each of them gets a look
        return all(finished)

    def is_success(self) -> bool:
        """Return whether all of them have finished well."""
        return self.is_completed() and all(work.is_success() for work in self._works)

    def exception(self) -> BaseException | None:
        """Return the first error, or None."""
        return next((work.exception() for work in self._works if work.exception() is not None), None)

    def result(self) -> list[torch.Tensor]:
        """Return the tensors of all of them."""
        return [x for work in self._works for x in work.result()]

    def get_future(self) -> torch.futures.Future[list[torch.Tensor]]:
        """Return a future for all of them."""
        whole = torch.futures.collect_all([work.get_future() for work in self._works])
        return whole.then(lambda futures: [x for future in futures.value() for x in future.value()])
