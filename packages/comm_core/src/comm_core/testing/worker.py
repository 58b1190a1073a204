"""The parent's side of one rank process."""

from __future__ import annotations

import os
import select
import signal
import socket
import tempfile
import time
from typing import IO

from comm_core.errors import CommError
from comm_core.testing.forker import Forker
from comm_core.testing.wire import Hello, Order, Report, receive, send

_STACK_LIMIT_S = 2.0
_OWN_FILES = ("comm_core/testing/rank_process.py", "comm_core/testing/forker_process.py", "<frozen runpy>")
_OWN_THREADS = ("in _read_orders", "in _close_groups")


class RankWorker:
    """A rank process, its connection, and the files that take its output and its stacks.

    Args:
        forker: what starts the process.
    """

    def __init__(self, forker: Forker) -> None:
        self._forker = forker
        self._output: IO[bytes] = tempfile.TemporaryFile(mode="a+b")  # noqa: SIM115
        self._stacks: IO[bytes] = tempfile.TemporaryFile(mode="a+b")  # noqa: SIM115
        self.connection, theirs = socket.socketpair()
        with theirs:
            self.pid = forker.fork(theirs, self._output.fileno(), self._stacks.fileno())
        self._pidfd = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None
        self._code: int | None = None
        self.store_port: int | None = None

    @property
    def watched(self) -> list[int]:
        """The descriptors that become readable when there is a report or the process has ended."""
        return [self.connection.fileno()] + ([] if self._pidfd is None else [self._pidfd])

    @property
    def has_report(self) -> bool:
        """Whether something waits to be read; at the end of the process also true."""
        return _readable(self.connection.fileno(), 0.0)

    @property
    def has_died(self) -> bool:
        """Whether the process has ended."""
        if self._code is not None:
            return True
        if self._pidfd is not None:
            return _readable(self._pidfd, 0.0)
        return self.has_report and self.connection.recv(1, socket.MSG_PEEK) == b""

    def await_hello(self, deadline: float) -> bool:
        """Wait until the process takes orders; False when it ended or the deadline passed instead."""
        if self.store_port is None:
            hello = self.receive(deadline)
            self.store_port = hello.store_port if isinstance(hello, Hello) else None
        return self.store_port is not None

    def send(self, order: Order, deadline: float) -> bool:
        """Send an order; False when the process is gone or takes nothing."""
        try:
            send(self.connection, order, deadline)
        except OSError:
            return False
        return True

    def receive(self, deadline: float) -> Report | None:
        """Return the next report, or None when the process is gone or does not finish it in time."""
        try:
            report = receive(self.connection, deadline)
        except OSError:
            return None
        return report  # type: ignore[return-value]

    def forget_output(self) -> None:
        """Drop what earlier runs have printed."""
        self._output.truncate(0)

    def output(self) -> str:
        """Return what the process has printed since `forget_output`."""
        return _text(self._output)

    def end(self, dying_s: float = 0.0) -> str:
        """Kill the process and what it has started, reap it, and say how it had ended if it was dead already.

        A process closes its connection a moment before it is dead: `dying_s` is how long to wait for that.
        """
        if self._code is None:
            dead = self.has_died if self._pidfd is None else _readable(self._pidfd, dying_s)
            if not (dead and self._forker.broken):  # reaped by another process, so the id may be taken
                _signal_group(self.pid, signal.SIGKILL)
            self._code = self._reaped()
            self._how = _ending(self._code) if dead else "it stopped answering and was ended"
        return self._how

    def _reaped(self) -> int:
        try:
            return self._forker.reap(self.pid)
        except CommError:  # the forker is gone, so the kernel has killed its ranks and their new parent reaps them
            return -signal.SIGKILL

    def end_with_stacks(self) -> str:
        """Let the process write the Python stack of its threads, kill it, and return the stacks."""
        if not self.has_died:
            os.kill(self.pid, signal.SIGUSR1)
            if self._pidfd is not None:
                _readable(self._pidfd, _STACK_LIMIT_S)
        self.end()
        return _without_own_frames(_text(self._stacks))

    def close(self) -> None:
        """Kill the process and give back every descriptor."""
        self.end()
        self.connection.close()
        self._output.close()
        self._stacks.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def let_go(self) -> None:
        """In a forked child of the parent: close our copies without touching the process."""
        self.connection.close()


def wait_for_any(workers: list[RankWorker], deadline: float) -> list[RankWorker]:
    """Return the workers that have a report or have ended; none when the deadline passes."""
    owners = {descriptor: worker for worker in workers for descriptor in worker.watched}
    poll = select.poll()
    for descriptor in owners:
        poll.register(descriptor, select.POLLIN)
    found = {id(owners[fd]): owners[fd] for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1e3)}
    return list(found.values())


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1e3))


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return
    except PermissionError:  # macOS, for a group whose members are all dead
        return


def _text(file: IO[bytes]) -> str:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode(errors="replace")


def _ending(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"its process was killed by {name}"


def _without_own_frames(stacks: str) -> str:
    kept = []
    for block in stacks.strip().split("\n\n"):
        if any(own in block for own in _OWN_THREADS):
            continue
        lines = [line for line in block.splitlines() if not any(own in line for own in _OWN_FILES)]
        kept.append("\n".join(lines))
    return "\n\n".join(kept)
