"""The parent's side of the process that ranks are forked from."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from typing import IO

from comm_core.errors import RankFailedError
from comm_core.testing.wire import FORK, FORKER_READY, REAP

_START_LIMIT_S = 180.0
_ANSWER_LIMIT_S = 30.0


class Forker:
    """A process with torch imported that can be forked.

    It is started from a thread that lives as long as this process: it asks the kernel to be killed when its parent
    ends, and the kernel means the parent's thread.
    """

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair()
        self._output: IO[bytes] = tempfile.TemporaryFile(mode="a+b")  # noqa: SIM115
        self._ready = False
        self._broken = False
        self._ended = threading.Event()
        started: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()
        threading.Thread(target=self._start, args=(theirs, started), name="commbook forker", daemon=True).start()
        process = started.get()
        theirs.close()
        if isinstance(process, OSError):
            raise process
        self._process = process

    @property
    def broken(self) -> bool:
        """Whether the process has ended or an exchange with it was cut off: no rank comes from it any more."""
        if not self._broken:
            self._broken = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return self._broken

    def fork(self, connection: socket.socket, output: int, stacks: int) -> int:
        """Start a rank process with these descriptors and return its process id.

        Raises:
            RankFailedError: torch could not be imported in a fresh process, or no process could be started.
        """
        return int(self._asked(FORK, [connection.fileno(), output, stacks]))

    def reap(self, pid: int) -> int:
        """Wait for a killed rank process and return its exit code, negative for a signal.

        Raises:
            RankFailedError: the forker is gone, and its ranks with it.
        """
        return int(self._asked(REAP + str(pid).encode(), []))

    def close(self) -> None:
        """End the process; ranks that it has forked end with it."""
        self._broken = True
        self._connection.close()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._ended.set()
        self._output.close()

    def let_go(self) -> None:
        """In a forked child of the parent: forget the process without touching it."""
        self._process.returncode = 0
        self._connection.close()

    def _start(self, theirs: socket.socket, started: queue.SimpleQueue[subprocess.Popen[bytes] | OSError]) -> None:
        descriptor = theirs.fileno()
        module = ["-m", "comm_core.testing.forker_process", str(descriptor), str(os.getpid())]
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        environment.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        try:
            started.put(
                subprocess.Popen(
                    [sys.executable, "-P", "-u", *module],
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=self._output,
                    pass_fds=(descriptor,),
                    env=environment,
                    start_new_session=True,
                )
            )
        except OSError as error:
            started.put(error)
            return
        self._ended.wait()

    def _asked(self, request: bytes, descriptors: list[int]) -> bytes:
        try:
            if not self._ready:
                self._connection.settimeout(_START_LIMIT_S)
                self._ready = self._connection.recv(64) == FORKER_READY
            self._connection.settimeout(_ANSWER_LIMIT_S)
            socket.send_fds(self._connection, [request], descriptors)
            answer = self._connection.recv(64)
        except OSError as error:
            self._broken = True
            raise self._failed(f"{type(error).__name__}: {error}") from error
        except BaseException:
            self._broken = True  # interrupted: the next answer would be the one to this request
            raise
        if not answer:
            self._broken = True
            raise self._failed("it ended")
        return answer

    def _failed(self, how: str) -> RankFailedError:
        size = os.fstat(self._output.fileno()).st_size
        said = os.pread(self._output.fileno(), size, 0).decode(errors="replace").strip()
        return RankFailedError("run_ranks", got=f"a process that does not start ranks ({how})", hint=said)
