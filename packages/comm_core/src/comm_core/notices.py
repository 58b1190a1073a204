"""How the two ends of a message hear of each other in checked mode: who refused its call says so, who waits looks.

A message is no meeting of all ranks, so nobody compares it beforehand. A rank that cannot make its call leaves a notice
in the group's store for the ranks it would have met, and one that waits looks for it, now and then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future, wait
from typing import Any, Protocol

from comm_core.errors import CommError, MismatchError, RankTimeoutError, TransportError, first_line
from comm_core.pending import Waitable

_FIRST_LOOK_S = 0.02
_LONGEST_S = 0.5  # between two looks
_WHERE = "batch_p2p"


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


class Notices:
    """The notices that one rank of a group leaves for the others and finds from them.

    Args:
        rank: this rank's place in the group.
        world: how many ranks the group has.
        store: the store that the group's ranks share.
    """

    def __init__(self, rank: int, world: int, store: Store) -> None:
        self._rank = rank
        self._world = world
        self._store = store
        self._left: set[int] = set()

    def leave(self, params: Mapping[str, Any], words: str) -> None:
        """Tell the other ends of a call's messages, or all ranks where it names none, that it was not made."""
        peers = peers_in(params, self._world) or set(range(self._world))
        for peer in peers - {self._rank}:
            self._store.set(_key(self._rank, peer), words)
            self._left.add(peer)

    def withdraw(self, peers: Collection[int]) -> None:
        """Take back what stands for the other ends of messages that are made now."""
        for peer in self._left.intersection(peers):
            self._store.set(_key(self._rank, peer), "")
            self._left.remove(peer)

    def take(self, peer: int) -> str:
        """Return what a rank has left for this one, once; empty where there is nothing."""
        key = _key(peer, self._rank)
        words = self._store.get(key).decode() if self._store.check([key]) else ""
        if words:
            self._store.set(key, "")
        return words


def _key(of: int, to: int) -> str:
    return f"commbook refused {of} {to}"


def peers_in(params: Mapping[str, Any], world: int) -> set[int]:
    """Return the ranks that a call's messages name, of those that there are; the parameters may be wrong.

    Example:
        >>> peers_in({"sends": [(1, 5, 0), (9, 5, 0)], "receives": [(0, 5, -3)]}, 3)
        {0, 1}
    """
    found = set()
    for side in ("sends", "receives"):
        messages = params.get(side)
        for message in messages if isinstance(messages, (list, tuple)) else ():
            peer = message[0] if isinstance(message, (list, tuple)) and message else None
            if type(peer) is int and 0 <= peer < world:
                found.add(peer)
    return found


class Watched:
    """A wait for messages that ends when it makes no sense any more.

    Args:
        work: what to wait on.
        notices: this rank's.
        peers: the other ends.
        limit_s: how long to wait.
    """

    def __init__(self, work: Waitable, notices: Notices, peers: Collection[int], limit_s: float) -> None:
        self._work = work
        self._notices = notices
        self._peers = sorted(peers)
        self._limit_s = limit_s

    def wait(self) -> None:
        """Wait in a thread, and look around meanwhile.

        Raises:
            MismatchError: another end refused its call; its words are in it.
            RankTimeoutError: the messages were not through in time.
            TransportError: the transport failed.
        """
        done, now = _waited_for(self._work), time.monotonic()
        deadline, pause_s = now + self._limit_s, _FIRST_LOOK_S
        while not wait([done], min(pause_s, max(0.0, deadline - now))).done:
            for peer in self._peers:
                words = self._notices.take(peer)
                if words:
                    raise MismatchError(_WHERE, f"rank {peer} refused the call: {words}", "a call on both ends")
            now, pause_s = time.monotonic(), min(2 * pause_s, _LONGEST_S)
            if now >= deadline:
                raise RankTimeoutError(
                    _WHERE,
                    got=f"no end of the messages with {self._names} within {self._limit_s:g} s",
                    need="a receive for each send, of the same tag, on both ranks",
                    hint="see where that rank is: it has ended, stands somewhere else, or made its call otherwise",
                )
        self._raise(done.exception())

    @property
    def _names(self) -> str:
        return "rank " + " and rank ".join(map(str, self._peers))

    def _raise(self, error: BaseException | None) -> None:
        if error is None or isinstance(error, CommError):
            if error is not None:
                raise error
            return
        raise TransportError(_WHERE, f"{first_line(error)}, in messages with {self._names}") from error


def _waited_for(work: Waitable) -> Future[None]:
    """Wait in a thread, which may have to go on when nobody looks any more."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work.wait()
        except BaseException as error:  # it is raised where the future is read
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name="commbook watched message", daemon=True).start()
    return future
