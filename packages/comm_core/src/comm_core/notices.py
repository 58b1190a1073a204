"""How the two ends of a message hear of each other in checked mode: who refused its call says so, who waits looks.

A message is no meeting of all ranks, so nobody compares it beforehand. A rank that cannot make its call leaves a notice
in the group's store for the ranks it would have met, and one that waits looks for it, now and then.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from typing import Any

from comm_core.agreement import Store
from comm_core.errors import CommError, MismatchError, RankTimeoutError, TransportError, first_line
from comm_core.groups import AnyGroup
from comm_core.pending import Waitable

ANY = "any"
_FIRST_LOOK_S = 0.02
_LONGEST_S = 0.5  # between two looks
_WHERE = "batch_p2p"


@dataclass(frozen=True, slots=True)
class End:
    """The other end of a message.

    Args:
        peer: its rank.
        sends: whether that rank sends.
        tag: the tag, or `ANY` where the call that was refused has none.
    """

    peer: int
    sends: bool
    tag: int | str


def ends_in(params: Mapping[str, Any], group: AnyGroup) -> list[End]:
    """Return the other ends that a call's messages name, of the ranks that there are; the parameters may be wrong.

    Example:
        >>> from comm_core import World
        >>> params = {"sends": [(1, 5, 0), (9, 5, 0)], "receives": [(0, 5, -3)]}
        >>> World(3).run(lambda group: ends_in(params, group))[2]
        [End(peer=1, sends=False, tag=0), End(peer=0, sends=True, tag='any')]
    """
    found = []
    for side in ("sends", "receives"):
        messages = params.get(side)
        for message in messages if isinstance(messages, (list, tuple)) else ():
            peer, tag = (message[0], message[-1]) if isinstance(message, (list, tuple)) and message else (None, None)
            if type(peer) is int and 0 <= peer < group.world and peer != group.rank:
                found.append(End(peer, side == "receives", tag if type(tag) is int and tag >= 0 else ANY))
    return found


class Notices:
    """The notices that one rank of a group leaves for the others and finds from them.

    A store that is gone, because its rank has ended, has none, and takes none.

    Args:
        rank: this rank's place in the group.
        store: the store that the group's ranks share.
    """

    def __init__(self, rank: int, store: Store) -> None:
        self._rank = rank
        self._store = store
        self._left: set[End] = set()

    def leave(self, ends: Iterable[End], words: str) -> None:
        """Tell the other ends of a call's messages that it was not made."""
        for end in ends:
            self._write(self._rank, end.peer, not end.sends, end.tag, words)
            self._left.add(end)

    def withdraw(self, ends: Iterable[End]) -> None:
        """Take back what stands for the other ends of messages that are made now."""
        for end in ends:
            for left in self._left.intersection((end, replace(end, tag=ANY))):
                self._write(self._rank, left.peer, not left.sends, left.tag, "")
                self._left.remove(left)

    def take(self, end: End) -> str:
        """Return what the other end of a message has left for this rank, once; empty where there is nothing."""
        for tag in (end.tag, ANY):
            key = _key(end.peer, self._rank, end.sends, tag)
            with contextlib.suppress(RuntimeError):  # each kind of store has its own subclass of it
                words = self._store.get(key).decode() if self._store.check([key]) else ""
                if words:
                    self._store.set(key, "")
                    return words
        return ""

    def _write(self, of: int, to: int, sends: bool, tag: int | str, words: str) -> None:
        with contextlib.suppress(RuntimeError):
            self._store.set(_key(of, to, sends, tag), words)


def _key(of: int, to: int, sends: bool, tag: int | str) -> str:
    """Return where rank `of` says that it does not send to rank `to`, or receive from it."""
    return f"commbook refused {of} {to} {'send' if sends else 'receive'} {tag}"


class Watched:
    """A wait for messages that ends when it makes no sense any more.

    Args:
        work: what to wait on.
        notices: this rank's.
        ends: the other ends.
        limit_s: how long to wait, from now.
    """

    def __init__(self, work: Waitable, notices: Notices, ends: Sequence[End], limit_s: float) -> None:
        self._work = work
        self._notices = notices
        self._ends = ends
        self._limit_s = limit_s
        self._deadline = time.monotonic() + limit_s
        self._done: Future[None] | None = None
        self._error: CommError | None = None

    def wait(self) -> None:
        """Wait in a thread, and look around meanwhile; a second time the same error is raised at once.

        Raises:
            MismatchError: another end refused its call; its words are in it.
            RankTimeoutError: the messages were not through in time.
            TransportError: the transport failed.
        """
        if self._done is None:
            self._done = _waited_for(self._work)
        if self._error is None:
            self._error = self._outcome(self._done)
        if self._error is not None:
            raise self._error.again()

    def _outcome(self, done: Future[None]) -> CommError | None:
        pause_s = _FIRST_LOOK_S
        while not wait([done], max(0.0, min(pause_s, self._deadline - time.monotonic()))).done:
            for end in self._ends:
                words = self._notices.take(end)
                if words:
                    return MismatchError(_WHERE, f"rank {end.peer} refused the call: {words}", "a call on both ends")
            pause_s = min(2 * pause_s, _LONGEST_S)
            if time.monotonic() >= self._deadline:
                return RankTimeoutError(
                    _WHERE,
                    got=f"no end of the messages with {self._names} within {self._limit_s:g} s",
                    need="a receive for each send, of the same tag, on both ranks",
                    hint="see where that rank is: it has ended, stands somewhere else, or made its call otherwise",
                )
        error = done.exception()
        if error is None or isinstance(error, CommError):
            return error
        return TransportError(_WHERE, f"{first_line(error)}, in messages with {self._names}")

    @property
    def _names(self) -> str:
        return " and ".join(f"rank {peer}" for peer in sorted({end.peer for end in self._ends}))


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
