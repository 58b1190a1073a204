"""Where the ranks of a group tell each other what they are about to do, before any of them does it.

Rank 0 of the group keeps the book: every other rank sends it one message and gets the verdict back, over a connection
of its own beside the group's. So a call costs one message each way whatever the group's transport is, and whoever
is missing or gone is known by name.
"""

from __future__ import annotations

import contextlib
import json
import math
import secrets
import select
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from comm_core.errors import CommError
from comm_core.groups import AnyGroup
from comm_core.verdicts import Said, gone, late, packed, unpacked, verdict

_HEADER = struct.Struct("!II")  # the number of the call, and how many bytes follow
_FITS, _STILL_WAITING, _REFUSED = b"f", b"w", b"r"  # what rank 0 answers; the first with its own place
_NOTE_S = 1.0  # rank 0 tells the others that it still waits after so long, so that they do not give it up
_LONGEST = 1 << 20
GAVE_UP = "it waited for rank 0 and gave up"


class Store(Protocol):
    """What is used of c10d's stores."""

    def set(self, key: str, value: str) -> None:
        """Write."""
        ...

    def get(self, key: str) -> bytes:
        """Read, once it is there."""
        ...

    def check(self, keys: list[str]) -> bool:
        """Tell whether it is there."""
        ...


class Agreement:
    """The ranks' meetings of one group; `meet` returns on every rank, or raises on every rank.

    Args:
        group: the group.
        store: the store that the group's ranks share, through which they find rank 0.
        host: the address of this machine that the others can reach.
    """

    def __init__(self, group: AnyGroup, store: Store, host: str) -> None:
        self._world = group.world
        self._side: _Book | _Leaf = _Book(group.world, store, host) if group.rank == 0 else _Leaf(group.rank, store)
        self._calls = 0
        self._one_at_a_time = threading.Lock()
        weakref.finalize(self, self._side.close)

    def meet(self, mine: Said, limit_s: float) -> None:
        """Tell the others what this rank is about to do, and hear whether it fits.

        Raises:
            MismatchError: it does not; the message has what every rank said.
            RankTimeoutError: ranks did not come within the limit; they are named, with what they did last.
            RankFailedError: ranks have ended; they are named, with what they did last.
        """
        if self._world == 1:
            return
        with self._one_at_a_time:
            self._calls += 1
            error = self._side.meet(self._calls, mine, limit_s)
        if error is not None:
            raise error


def own_address(store: object) -> str:
    """Return this machine's address towards the machine that holds a store; the loopback's, if it is in a file."""
    while hasattr(store, "underlying_store"):
        store = store.underlying_store
    host, port = getattr(store, "host", None), getattr(store, "port", None)
    if host is None:
        return "127.0.0.1"
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as towards:  # sends nothing: it asks the routing table
        towards.connect(address)
        return str(towards.getsockname()[0])


class _Link:
    """One connection, in whole messages."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(True)
        self.socket = connection
        self.call = 0  # the newest call that the other side has spoken of
        self._read = b""
        self._patience_s = 0.0

    def be_patient(self, seconds: float) -> None:
        """Let `receive` wait no longer; set in the kernel, so that a read is one system call."""
        if seconds != self._patience_s:
            whole = int(seconds)
            limit = struct.pack("ll", whole, int((seconds - whole) * 1e6))
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._patience_s = seconds

    def send(self, call: int, data: bytes) -> None:
        self.socket.sendall(_HEADER.pack(call, len(data)) + data)

    def receive(self) -> bytes:
        """Return the next message's bytes and note its call's number.

        Raises:
            TimeoutError, EOFError, OSError: the other side did not speak in time, has closed, or is gone.
        """
        self._until(_HEADER.size)
        self.call, size = _HEADER.unpack_from(self._read)
        if size > _LONGEST:
            raise EOFError("no message of this program")
        end = _HEADER.size + size
        self._until(end)
        data, self._read = self._read[_HEADER.size : end], self._read[end:]
        return data

    @property
    def has_more(self) -> bool:
        """Whether another message has been read with the last one."""
        return bool(self._read)

    def _until(self, size: int) -> None:
        while len(self._read) < size:
            try:
                more = self.socket.recv(65536)
            except BlockingIOError:
                raise TimeoutError from None
            if not more:
                raise EOFError("closed")
            self._read += more

    def close(self) -> None:
        self.socket.close()


class _Book:
    """Rank 0's side."""

    def __init__(self, world: int, store: Store, host: str) -> None:
        self._world = world
        self._links: dict[int, _Link] = {}
        self._last: dict[int, Said] = {}
        self._ended = 0.0  # when the last call was judged
        self._gone: set[int] = set()
        self._poll = select.poll()
        self._ranks: dict[int, int] = {}  # of the descriptors; -1 for the door
        self._ahead: dict[int, tuple[int, bytes]] = {}  # what ranks have said of calls that rank 0 has not come to yet
        self._token = secrets.token_hex(16)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._door = socket.create_server((host, 0), family=family, backlog=min(world, 4096))
        self._door.settimeout(5.0)
        self._watch(self._door, -1)
        port = self._door.getsockname()[1]
        store.set("commbook agreement", json.dumps({"host": host, "port": port, "token": self._token}))

    def meet(self, call: int, mine: Said, limit_s: float) -> CommError | None:
        """Hear all ranks, judge, and tell them."""
        said = {0: mine}
        error = self._hear(call, said, limit_s) or verdict(said)
        answer = _FITS + mine.where.encode() if error is None else _REFUSED + packed(error)
        self._tell(call, answer, self._links.keys() - self._gone)
        self._last.update((rank, one) for rank, one in said.items() if not one.refused)
        self._ended = time.monotonic()
        return error

    def _hear(self, call: int, said: dict[int, Said], limit_s: float) -> CommError | None:
        """Collect what the others say, until all have spoken, one has gone or the time is over."""
        for rank, (of, words) in list(self._ahead.items()):
            self._note(call, rank, of, words, said)
        began = time.monotonic()
        deadline = began + limit_s
        told = min(began + _NOTE_S, deadline)
        while len(said) < self._world:
            if self._gone:
                return gone(said[0], sorted(self._gone), self._last)
            now = time.monotonic()
            self._listen(call, told - now, said)
            if len(said) == self._world:
                break
            now = time.monotonic()
            if now >= deadline:
                return late(said[0], sorted(set(range(self._world)) - said.keys()), self._last, limit_s)
            if now >= told:
                self._tell(call, _STILL_WAITING, said.keys() & self._links.keys())
                told = min(now + _NOTE_S, deadline)
        if began - self._ended > limit_s:  # then a rank that came long ago may have given this call up
            self._listen(call, 0.0, said)
        return None

    def _listen(self, call: int, wait_s: float, said: dict[int, Said]) -> None:
        """Take what comes within so long, from any rank."""
        for descriptor, _ in self._poll.poll(math.ceil(max(0.0, wait_s) * 1000)):
            self._take(call, self._ranks[descriptor], said)

    def _watch(self, what: socket.socket, rank: int) -> None:
        self._ranks[what.fileno()] = rank
        self._poll.register(what, select.POLLIN)

    def _take(self, call: int, rank: int, said: dict[int, Said]) -> None:
        if rank < 0:
            rank = self._let_in()
            if rank < 0 or not self._links[rank].has_more:
                return
        link = self._links[rank]
        try:
            while True:
                words = link.receive()
                self._note(call, rank, link.call, words, said)
                if not link.has_more:
                    return
        except (EOFError, OSError):
            self._gone.add(rank)
            self._poll.unregister(link.socket)

    def _note(self, call: int, rank: int, of: int, words: bytes, said: dict[int, Said]) -> None:
        """Enter what a rank has said of a call: this one, a coming one, or one that has been judged without it."""
        self._ahead.pop(rank, None)
        if of == call:
            said[rank] = Said.decode(words)
        elif of > call:
            self._ahead[rank] = of, words
            said[rank] = replace(said.get(rank, said[0]), where="", refused=GAVE_UP)

    def _let_in(self) -> int:
        """Return which rank has come; -1 for a stranger."""
        connection, _ = self._door.accept()
        link = _Link(connection)
        link.be_patient(5.0)
        try:
            hello = json.loads(link.receive())
        except (EOFError, OSError, ValueError):
            hello = {}
        if hello.get("token") == self._token:
            self._links[hello["rank"]] = link
            self._watch(link.socket, hello["rank"])
            return int(hello["rank"])
        link.close()
        return -1

    def _tell(self, call: int, answer: bytes, ranks: Iterable[int]) -> None:
        for rank in ranks:
            try:
                self._links[rank].send(call, answer)
            except OSError:
                self._gone.add(rank)

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._door.close()


class _Leaf:
    """The side of every other rank."""

    def __init__(self, rank: int, store: Store) -> None:
        self._rank = rank
        self._store = store
        self._link: _Link | None = None
        self._last: dict[int, Said] = {}

    def meet(self, call: int, mine: Said, limit_s: float) -> CommError | None:
        """Say it to rank 0 and return its verdict."""
        try:
            if self._link is None:
                self._link = self._connected(time.monotonic() + limit_s)
            link = self._link
            link.send(call, mine.encode())
            # Rank 0 may have come just before its own limit ended; it says so if it goes on waiting for somebody.
            answer = self._answer(link, call, limit_s + 2 * _NOTE_S)
        except TimeoutError:
            if self._link is not None:
                with contextlib.suppress(OSError):
                    self._link.send(call, replace(mine, refused=GAVE_UP).encode())
            return late(mine, [0], self._last, limit_s)
        except (EOFError, OSError):
            return gone(mine, [0], self._last)
        if answer[:1] == _FITS:
            self._last[0] = Said(mine.facts, "", answer[1:].decode())
            return None
        return unpacked(answer[1:])

    def _answer(self, link: _Link, call: int, patience_s: float) -> bytes:
        link.be_patient(patience_s)
        while True:
            answer = link.receive()
            if link.call == call and answer != _STILL_WAITING:
                return answer

    def _connected(self, deadline: float) -> _Link:
        """Find rank 0 and say who this is; an address of an earlier run may still stand in the store."""
        while True:
            if self._store.check(["commbook agreement"]):
                at = json.loads(self._store.get("commbook agreement"))
                with contextlib.suppress(OSError):
                    link = _Link(socket.create_connection((at["host"], at["port"]), timeout=5.0))
                    link.send(0, json.dumps({"rank": self._rank, "token": at["token"]}).encode())
                    return link
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.005)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
