"""What the pool and its rank processes say to each other: frozen messages, pickled, each behind its length."""

from __future__ import annotations

import pickle
import socket
import struct
import time
from dataclasses import dataclass
from typing import TypeAlias

FORK = b"fork"  # to the forker, with three descriptors; it answers the new process id
REAP = b"reap"  # to the forker, with a process id behind it; it answers the exit code
FORKER_READY = b"ready"  # from the forker, once: torch is imported
_LENGTH = struct.Struct("!Q")
_MOST_AT_ONCE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The parts of the parent's process that a rank takes over before a run."""

    environment: dict[str, str]
    import_path: list[str]
    folder: str | None


@dataclass(frozen=True, slots=True)
class RunOrder:
    """To a rank: make the default group, call the function, report, and wait for `EndOrder`.

    Args:
        rank: the position of this process in the run.
        world: how many processes take part.
        backend: the c10d backend of the default group.
        timeout: seconds that the whole run may take.
        store_port: the loopback port of the store that all ranks meet in, which rank 0 hosts.
        name: what no other run of this store is called.
        call: the function and its arguments, pickled.
        surroundings: what to take over from the parent.
    """

    rank: int
    world: int
    backend: str
    timeout: float
    store_port: int
    name: str
    call: bytes
    surroundings: Surroundings


@dataclass(frozen=True, slots=True)
class EndOrder:
    """To a rank that has returned: every rank has reported, so the groups may be destroyed."""


@dataclass(frozen=True, slots=True)
class Hello:
    """From a rank process: orders are welcome; `store_port` is where its ranks meet when it is rank 0."""

    store_port: int


@dataclass(frozen=True, slots=True)
class Returned:
    """From a rank: the function's result, pickled."""

    result: bytes


@dataclass(frozen=True, slots=True)
class Raised:
    """From a rank: the function raised.

    Args:
        kind: the exception's type, by its name.
        message: the exception's own words.
        traceback: the full traceback as text.
        exception: the exception, pickled, or None where it cannot be.
        when: the time of `time.monotonic`, which all processes of a machine share.
    """

    kind: str
    message: str
    traceback: str
    exception: bytes | None
    when: float


@dataclass(frozen=True, slots=True)
class Ready:
    """From a rank: the groups are gone; `clean` says whether this process may serve another run."""

    clean: bool


Order: TypeAlias = RunOrder | EndOrder
Report: TypeAlias = Hello | Returned | Raised | Ready


def send(connection: socket.socket, message: Order | Report, deadline: float | None = None) -> None:
    """Send one message.

    Raises:
        TimeoutError: the other side took nothing more before the deadline (in `time.monotonic` seconds).
        OSError: the other side is gone.
    """
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    connection.settimeout(_left(deadline))
    connection.sendall(_LENGTH.pack(len(body)) + body)


def receive(connection: socket.socket, deadline: float | None = None) -> Order | Report | None:
    """Return the next message, or None when the other side has closed.

    Raises:
        TimeoutError: nothing more came before the deadline (in `time.monotonic` seconds).
    """
    header = _exactly(connection, _LENGTH.size, deadline)
    body = header and _exactly(connection, _LENGTH.unpack(header)[0], deadline)
    if not body:
        return None
    message: Order | Report = pickle.loads(body)
    return message


def _exactly(connection: socket.socket, n_bytes: int, deadline: float | None) -> bytes | None:
    into = bytearray(n_bytes)
    view, got = memoryview(into), 0
    while got < n_bytes:
        connection.settimeout(_left(deadline))
        try:
            step = connection.recv_into(view[got:], min(n_bytes - got, _MOST_AT_ONCE_BYTES))
        except ConnectionResetError:
            return None
        if step == 0:
            return None
        got += step
    return bytes(into)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.001)
