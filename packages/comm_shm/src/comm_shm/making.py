"""A group on several hosts while it is being made: whoever ends is named on every rank, within a second.

Every rank keeps an eye on the ranks of its own host, whose processes the kernel tells of (pidfds), and on the door of
the first rank of each other host. Whoever sees a rank end, or gives the group up, writes the error into the store, and
all ranks look there too. So it takes a whole host that is lost without a word to the network for the others to wait.

gloo connects in C++, and would wait for a rank that has ended until its timeout. So it does in a thread, which asks
the store through this module: then it ends with the group that is given up. Only in the moment in which it waits for a
connection it does not hear of it; the thread is left behind then, holds no lock, and ends at the timeout.
"""

from __future__ import annotations

import contextlib
import json
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from socket import socket
from typing import TYPE_CHECKING, Any

from comm_core.errors import CommError, RankFailedError, RankTimeoutError, TransportError, first_line
from comm_shm import doors, first_error, rendezvous
from comm_shm.agreement import BackendOptions
from comm_shm.faults import Scene
from comm_shm.hosts import split
from comm_shm.rendezvous import LAST_S, Card, pauses
from comm_shm.torch_compat import AskedStore, prefixed

if TYPE_CHECKING:
    from comm_shm.torch_compat import Store

_WHERE = 'backend "shm"'
ENDING_S = 0.3  # for what has been told to end, and for the kernel to tell of a rank that took the store with it
_FAREWELL_S = 0.4  # in which the others are told
_HINT = "look at its output; then create the group again"


class Making:
    """What the ranks of a group do together until all of them have it.

    Args:
        options: store, rank, size, timeout, name and global ranks, as torch hands them to a backend.
        cards: who each rank is.
        door: this rank's.
    """

    def __init__(self, options: BackendOptions, cards: Sequence[Card], door: doors.Door) -> None:
        self._rank, self._cards = options.group_rank, cards
        self._timeout = options.timeout
        self._scene = Scene(_WHERE, self._rank, options.global_ranks_in_group, 0.0, [], (0, 0))
        self._door = door
        self.undo: Callable[[], object] | None = None
        """What closes the connections of a group that is given up, once the others have been told why."""
        # The name is unique by chance: what an attempt before this one has left there is not looked at.
        self._store = prefixed(f"shm/made/{cards[0].segment}", options.store)
        self._asked: list[AskedStore] = []
        self._absent: list[int] = []  # ranks that gloo had no sign of in time
        self._stage = 0
        self._events = select.poll()
        self._watched: dict[int, tuple[int, int | socket]] = {}  # by descriptor: the rank, and what is watched
        self._given_up = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self) -> None:
        """Keep an eye on the ranks of this host, and open the door for those of others.

        Raises:
            RankFailedError: one has ended already.
        """
        self._door.open()
        hosts = split(self._cards)
        mine = next(ranks for ranks in hosts if self._rank in ranks)
        for peer in mine:
            if peer != self._rank:
                pidfd = rendezvous.open_pidfd(peer, self._cards[peer])
                self._watched[pidfd] = (peer, pidfd)
                self._events.register(pidfd, select.POLLIN)
        self._knock([ranks[0] for ranks in hosts if ranks is not mine])

    def _knock(self, peers: Sequence[int]) -> None:
        for peer in peers:
            known = any(rank == peer for rank, _ in self._watched.values())
            connection = None if known or not self._cards[peer].door else doors.knock(self._cards[peer].door)
            if connection is not None:
                self._watched[connection.fileno()] = (peer, connection)
                self._events.register(connection, select.POLLIN)

    # -- meeting -------------------------------------------------------------------------------------------------

    def exchange(self, card: Card, grace_s: float = 0.0) -> list[Card]:
        """Leave a card, wait for all others, and return them by rank.

        Args:
            card: this rank's.
            grace_s: how much longer than the group's timeout to wait: others may know better who is late.

        Raises:
            RankTimeoutError: some ranks left none within the time; they are named.
            RankFailedError: a rank has ended, or given the group up.
        """
        self._stage += 1
        keys = [f"{self._stage}/{peer}" for peer in range(len(self._cards))]
        with self._reaching():
            self._store.set(keys[self._rank], json.dumps(asdict(replace(card, door=self._door.address))))
            self._wait(keys, grace_s)
            came = [Card(**json.loads(self._store.get(key))) for key in keys]
        self._cards = came
        self._knock([ranks[0] for ranks in split(came) if self._rank not in ranks])
        return came

    def _wait(self, keys: Sequence[str], grace_s: float) -> None:
        deadline = time.monotonic() + self._timeout.total_seconds() + grace_s
        for pause in pauses():
            if self._store.check(list(keys)):
                return
            self._check(pause)
            if time.monotonic() >= deadline:
                absent = [peer for peer, key in enumerate(keys) if not self._store.check([key])]
                if absent:
                    raise self._late(absent)

    # -- gloo ----------------------------------------------------------------------------------------------------

    def beside(self, call: Callable[[], Any]) -> Any:
        """Make a call that may take its time in a thread of its own, and look around meanwhile; return its result.

        Raises:
            RankFailedError: a rank has ended, or given the group up.
            RankTimeoutError: ranks did not come in time; they are named.
        """
        results: list[Any] = []
        errors: list[BaseException] = []
        ended = threading.Event()

        def run() -> None:
            try:
                results.append(call())
            except BaseException as error:
                errors.append(error)
            ended.set()

        self._thread = threading.Thread(target=run, name="comm_shm connections", daemon=True)
        weakref.finalize(self, _end, self._given_up, self._thread)  # also when the program ends
        self._thread.start()
        while not ended.wait(LAST_S):
            self.look()
        if errors:
            self.look(ENDING_S)
            raise self._late(self._absent) if self._absent else errors[0]
        return results[0]

    def store(self, name: str, ranks: Sequence[int]) -> Store:
        """Return a store for gloo's group of some ranks, whose waits end when the group is given up."""

        def come(inner: Store, keys: list[str], limit: timedelta) -> None:
            deadline = time.monotonic() + limit.total_seconds()
            for pause in pauses():
                if inner.check(keys):
                    return
                if self._given_up.wait(pause):
                    raise RuntimeError("the group is given up")
                if time.monotonic() >= deadline:
                    self._absent = [ranks[int(key.rpartition("/")[2])] for key in keys if not inner.check([key])]
                    raise RuntimeError(f"no sign of {', '.join(keys)} within {limit.total_seconds():g} s")

        self._asked.append(AskedStore(prefixed(name, self._store), self._timeout, come))
        return self._asked[-1]

    # -- looking around ------------------------------------------------------------------------------------------

    def look(self, within_s: float = 0.0) -> None:
        """Look whether a rank has ended or given the group up.

        Raises:
            RankFailedError: one has.
            CommError: the error with which it has given up.
        """
        with self._reaching():
            self._check(within_s)

    def _check(self, within_s: float) -> None:
        events = self._events.poll(within_s * 1e3)
        try:
            stands = first_error.stands(self._store)
        except RuntimeError:
            if not events:
                raise
            stands = False
        if stands:
            raise first_error.told(self._store, timedelta(seconds=LAST_S)) or self._ended("a rank that has ended")
        for descriptor, _ in events:
            peer, watched = self._watched[descriptor]
            who = self._scene.name(peer)
            if isinstance(watched, socket) and not doors.ended(watched):
                self._events.unregister(descriptor)
                continue
            with contextlib.suppress(RuntimeError):
                self._store.set(f"told/{peer}", "")  # in its place
            if isinstance(watched, socket):
                raise self._ended(f"{who}, on another host, which has ended or cannot be reached,")
            raise self._ended(f"{who}, whose process {self._cards[peer].pid} has ended")

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except CommError:
            raise
        except RuntimeError as error:  # the store's
            raise self._without_store(error) from error

    def _without_store(self, error: RuntimeError) -> CommError:
        """Return the error for a store that cannot be reached: mostly that of the rank that has served it."""
        try:
            self._check(ENDING_S)
        except CommError as known:
            return known
        except RuntimeError:
            pass
        return TransportError(
            _WHERE,
            got=f"no connection to the store while the group was being made: {first_line(error)}",
            need="the store in which the ranks meet",
            hint="the rank that serves it, often rank 0, may have ended: look at its output",
        )

    def _late(self, ranks: Sequence[int]) -> RankTimeoutError:
        return RankTimeoutError(
            _WHERE,
            got=f"no sign of {', '.join(map(self._scene.name, ranks))} within {self._timeout.total_seconds():g} s, "
            "after every rank had begun to create the group",
            need=f"all {len(self._cards)} ranks to create it",
            hint="see where those ranks are, and whether their hosts can be reached",
        )

    def _ended(self, who: str) -> RankFailedError:
        return RankFailedError(_WHERE, got=f"{who} while the group was being made", need="every rank", hint=_HINT)

    # -- the end -------------------------------------------------------------------------------------------------

    def give_up(self, error: BaseException) -> BaseException:
        """Tell all ranks why this one gives the group up; return what it is to raise: what the first one said.

        Wait a moment until all have heard of it: the store, or an eye that is kept on this rank, may end with it.
        """
        if isinstance(error, CommError):
            said: BaseException = first_error.first(self._store, error)
        else:
            got = f"{self._scene.name(self._rank)}, which gave up making the group: {type(error).__name__}"
            first_error.first(self._store, RankFailedError(_WHERE, got=got, need="every rank", hint=_HINT))
            said = error
        deadline = time.monotonic() + _FAREWELL_S
        with contextlib.suppress(RuntimeError):
            self._store.set(f"told/{self._rank}", "")
            for pause in pauses():
                heard = self._store.check([f"told/{peer}" for peer in range(len(self._cards))])
                if heard or time.monotonic() >= deadline or self._given_up.wait(pause):
                    break
        if self.undo is not None:
            self.undo()
        return said

    def forget(self) -> None:
        """Take back what this rank left in the store, once every rank has the group."""
        with contextlib.suppress(RuntimeError):  # a store that cannot delete keeps it
            for stage in range(1, self._stage + 1):
                self._store.delete_key(f"{stage}/{self._rank}")
            for asked in self._asked:
                asked.forget()

    def close(self) -> None:
        """Look around no longer."""
        if self._thread is not None and self._thread.is_alive():
            self._given_up.set()
            self._thread.join(ENDING_S)
        for _, watched in self._watched.values():
            if isinstance(watched, socket):
                watched.close()
            else:
                rendezvous.close_pidfds([watched])
        self._watched = {}


def _end(given_up: threading.Event, thread: threading.Thread) -> None:
    """Let a thread end that still asks for others while the program ends."""
    given_up.set()
    if thread.is_alive() and thread is not threading.current_thread():
        thread.join(ENDING_S)
