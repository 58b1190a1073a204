"""Between hosts: bytes over gloo, and one error for all ranks when something breaks.

Two gloo groups: of the ranks that speak for their hosts, and of all ranks, for what goes from one rank to another. A
rank that fails writes its error into the store, unless one stands there, and closes its connections: whoever waits for
it finds them closed, looks into the store, and raises the error that stands there. So every rank raises the first one.
A rank that leaves says so in the store as well.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from comm_core.errors import CommError, RankFailedError, RankTimeoutError, first_line
from comm_shm import first_error
from comm_shm.faults import REBUILD, Scene, Status
from comm_shm.hosts import Hosts

if TYPE_CHECKING:
    from comm_shm.torch_compat import Store

GRACE_S = 2.0  # who is told of a late rank by its own host need not guess
_LEFT = "shm/left"
_SOON = timedelta(seconds=0.5)  # in which a rank writes why it has broken what its host shares
_END_S = 5.0  # for threads that wait for other hosts, once the connections are closed
_TAGS = 1 << 30  # gloo's tags below this are of messages, see distant_mail.py
_NOBODYS = (1 << 31) - 1  # no message has this one


class Across:
    """The connections of this rank to other hosts.

    Args:
        hosts: the hosts of the group.
        speakers: gloo's group of the ranks that speak for their hosts; None on the others.
        everyone: gloo's group of all ranks.
        store: where the first error is written.
    """

    def __init__(self, hosts: Hosts, speakers: Any, everyone: Any, store: Store) -> None:
        self.hosts = hosts
        self.everyone = everyone
        self.failed: CommError | None = None
        self._speakers = speakers
        self._store = store
        self._lines = [gloo for gloo in (speakers, everyone) if gloo is not None]
        self._threads: set[threading.Thread] = set()
        weakref.finalize(self, _end, self._lines, self._threads, os.getpid())  # also when the program ends
        self._swaps = 0
        self._trades = 0

    def swap(
        self, outgoing: Mapping[int, torch.Tensor], incoming: Mapping[int, torch.Tensor], scene: Scene, limit: float
    ) -> Callable[[], None]:
        """Start to send bytes to other hosts and receive bytes from them; called by the ranks that speak for them.

        What comes may be shorter than the room for it. Return what waits for the end.

        Raises:
            RankTimeoutError: they did not come in time.
            RankFailedError: the connection was closed.
        """
        self._swaps += 1
        names = [ranks[0] for ranks in self.hosts.members]
        wire = Wire(self._speakers, self._swaps % _TAGS, names, scene)
        return wire.exchange(outgoing, incoming, limit)

    def trade(
        self, outgoing: Mapping[int, torch.Tensor], incoming: Mapping[int, torch.Tensor], scene: Scene, limit: float
    ) -> Callable[[], None]:
        """Start to send bytes to ranks and receive bytes from ranks, directly; return what waits for the end."""
        self._trades += 1
        wire = Wire(self.everyone, _TAGS + self._trades % _TAGS, range(self.hosts.world), scene)
        return wire.exchange(outgoing, incoming, limit)

    def first(self, error: CommError) -> CommError:
        """Return the error that the first rank wrote that failed: this one, if that is this rank."""
        self.failed = first_error.first(self._store, error)
        return self.failed

    def told(self) -> CommError | None:
        """Return the error that the first rank wrote that failed, if any has."""
        return first_error.told(self._store, _SOON) if self.failed is None else self.failed.again()

    def fate(self, rank: int) -> Status:
        """Return what has become of a rank whose connection is closed."""
        if self.everyone is None:
            return Status.CLOSED if self.failed is None else Status.BROKEN
        with contextlib.suppress(RuntimeError):
            if first_error.stands(self._store):
                return Status.BROKEN
            if self._store.check([f"{_LEFT}/{rank}"]):
                return Status.LEFT
        return Status.DIED

    def start(self, body: Callable[..., None], *given: Any) -> None:
        """Run something in a thread that ends when the connections are closed."""

        def run() -> None:
            try:
                body(*given)
            finally:
                self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name="comm_shm messages", daemon=True)
        self._threads.add(thread)
        thread.start()

    def leave(self, *, sends: bool) -> None:
        """Close the connections of a rank that leaves the group; if it still sends, those of messages stay open."""
        with contextlib.suppress(RuntimeError):
            self._store.set(f"{_LEFT}/{self.hosts.rank}", "")
        self.close(kept=self.everyone if sends else None)

    def close(self, kept: Any = None) -> None:
        """Close the connections, but for those that are kept; who waits for this rank notices."""
        self._speakers, self.everyone = None, kept
        for gloo in [gloo for gloo in self._lines if gloo is not kept]:
            with contextlib.suppress(ValueError):  # another thread of this rank has taken it
                self._lines.remove(gloo)
                _hang_up(gloo)


def _hang_up(gloo: Any) -> None:
    """Close a group's connections, which gloo does when a wait takes too long; its `shutdown` leaves them open."""
    for peer in range(gloo.size()):
        if peer != gloo.rank():
            with contextlib.suppress(RuntimeError):
                gloo.recv([torch.empty(1, dtype=torch.uint8)], peer, _NOBODYS).wait(timedelta(milliseconds=1))


def _end(lines: list[Any], threads: set[threading.Thread], owner: int) -> None:
    """Close what is open: a thread that waits in gloo while the interpreter ends would take the process down."""
    if os.getpid() == owner:
        while lines:
            _hang_up(lines.pop())
        for thread in threads - {threading.current_thread()}:
            thread.join(_END_S)


class Wire(NamedTuple):
    """One exchange over gloo."""

    gloo: Any
    """The gloo group."""
    tag: int
    """What tells it from others."""
    names: Sequence[int]
    """For each rank of the gloo group, the rank that it is."""
    scene: Scene
    """What an error says."""

    def exchange(
        self, outgoing: Mapping[int, torch.Tensor], incoming: Mapping[int, torch.Tensor], limit: float
    ) -> Callable[[], None]:
        """Start to send to and receive from ranks of the gloo group; return what waits for the end.

        Raises:
            RankTimeoutError: a rank did not come in time.
            RankFailedError: its connection is closed.
        """
        deadline, works = time.monotonic() + limit, []
        for start, tensors in ((self.gloo.recv, incoming), (self.gloo.send, outgoing)):
            for peer, x in tensors.items():
                if x.numel():
                    with self._naming(peer, deadline):
                        works.append((peer, start([x], peer, self.tag)))

        def end() -> None:
            for peer, work in works:
                with self._naming(peer, deadline):
                    work.wait(no_less_than(deadline - time.monotonic()))

        return end

    @contextlib.contextmanager
    def _naming(self, peer: int, deadline: float) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise lost(self.names[peer], self.scene, error, late=time.monotonic() >= deadline) from error


def no_less_than(seconds: float) -> timedelta:
    """Return a time limit for gloo, which counts whole milliseconds: it must not give up before the time is over."""
    return timedelta(milliseconds=max(math.ceil(seconds * 1e3), 1))


def lost(rank: int, scene: Scene, error: Exception, *, late: bool) -> CommError:
    """Return the error for a rank of another host that cannot be reached."""
    need = "every rank of the group to make this call"
    if late:
        got = f"no arrival within {scene.timeout_s:g} s of {scene.late(rank)}, on another host"
        return RankTimeoutError(scene.where, got=got, need=need, hint=f"see where it is; then {REBUILD}")
    got = f"{scene.name(rank)}, on another host, which has ended or cannot be reached ({first_line(error)[:120]})"
    return RankFailedError(scene.where, got=got, need=need, hint=f"look at its output; then {REBUILD}")
