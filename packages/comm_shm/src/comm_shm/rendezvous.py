"""How the ranks of a group find each other: each leaves a card in the c10d store and reads all others'.

Every rank decides from the same cards, so that what makes shared memory impossible is raised on all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from comm_core.errors import CommError, RankFailedError, RankTimeoutError, TransportError

if TYPE_CHECKING:
    from comm_shm.torch_compat import Store

HOST = "COMM_SHM_HOST"
_WHERE = 'backend "shm"'
FIRST_S, LAST_S = 0.0005, 0.1  # between two looks around, soon and later
_ENDING_MS = 500  # between the kernel's closing a process's descriptors and its telling of the end
_GLOO = 'use backend="gloo" for this group'


@dataclass(frozen=True, slots=True)
class Card:
    """Who a rank is and where it runs.

    Args:
        machine: the kernel's boot id: the same for all processes of a running machine, and no others.
        pid_namespace: where its process id means something.
        user: its user id; the kernel lets no other user open its segment.
        pid: its process id.
        born: when its process started, in kernel ticks: tells it from a later process with the same id.
        why_not: why it cannot use shared memory, or None.
        memfd: its descriptor of the segment; only rank 0 has one.
        segment: the name of the segment, unique by chance.
        host: what `COMM_SHM_HOST` says.
        user_namespace: where its user id means something.
        door: where ranks of other hosts notice that it ends while the group is made, see `doors`.
    """

    machine: str
    pid_namespace: int
    user: int
    pid: int
    born: int
    why_not: str | None
    memfd: int = -1
    segment: str = ""
    host: str = ""
    user_namespace: int = 0
    door: str = ""


def own_card(why_not: str | None, memfd: int = -1, segment: str = "", door: str = "") -> Card:
    """Return the card of this process."""
    if why_not is not None:
        return Card("", 0, 0, os.getpid(), 0, why_not)
    machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = os.stat("/proc/self/ns/pid").st_ino
    pid = os.getpid()
    return Card(
        machine,
        namespace,
        os.geteuid(),
        pid,
        born(pid),
        None,
        memfd,
        segment,
        os.environ.get(HOST, ""),
        os.stat("/proc/self/ns/user").st_ino,
        door,
    )


def born(pid: int) -> int:
    """Return when a process started, in kernel ticks after boot; -1 when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return int(stat.rpartition(")")[2].split()[19])  # field 22 of proc(5); the name before it may hold spaces


def exchange(
    store: Store,
    rank: int,
    world: int,
    card: Card,
    timeout: timedelta,
    ended: Callable[[], list[int]] | None = None,
) -> list[Card]:
    """Leave a card, wait for all others, and return them by rank.

    Args:
        store: where the cards are left.
        rank: this rank.
        world: how many there are.
        card: this rank's.
        timeout: how long to wait.
        ended: returns the ranks of which it is known from another group that their processes have ended.

    Raises:
        RankTimeoutError: some ranks left none within the time; they are named.
        RankFailedError: one that has left none has ended.
    """
    # A store can outlive its group: each time a rank comes back under the same name it starts a new round.
    turn = store.add(f"shm/{rank}/turn", 1)
    keys = [f"shm/{peer}/{turn}" for peer in range(world)]
    store.set(keys[rank], json.dumps(asdict(card)))
    absent = _awaited(store, keys, timeout) if ended is None else _watched(store, keys, timeout, ended)
    if absent:
        raise RankTimeoutError(
            _WHERE,
            got=f"no sign of rank {', '.join(map(str, absent))} within {timeout.total_seconds():g} s",
            need=f"all {world} ranks to create the group",
            hint="see whether those ranks started and make the same init_process_group or new_group calls",
        )
    return [Card(**json.loads(store.get(key))) for key in keys]


def _awaited(store: Store, keys: Sequence[str], timeout: timedelta) -> list[int]:
    """Wait for cards; return the ranks that have left none when the time is over."""
    try:
        store.wait(list(keys), timeout)
    except RuntimeError:  # each kind of store has its own subclass of it
        absent = _missing(store, keys)
        if not absent:
            raise
        return absent
    return []


def _watched(store: Store, keys: Sequence[str], timeout: timedelta, ended: Callable[[], list[int]]) -> list[int]:
    """Do as `_awaited`, and look meanwhile whether a rank has ended that has left none."""
    deadline = time.monotonic() + timeout.total_seconds()
    for pause in pauses():
        if store.check(list(keys)):
            break
        gone = [peer for peer in ended() if not store.check([keys[peer]])]  # it may have left one before it ended
        if gone:
            got = f"rank {gone[0]}, which has ended before it came to create the group"
            raise RankFailedError(_WHERE, got=got, need="every rank", hint="look at its output")
        if time.monotonic() >= deadline:
            return _missing(store, keys)
        time.sleep(pause)
    return []


def _missing(store: Store, keys: Sequence[str]) -> list[int]:
    return [peer for peer, key in enumerate(keys) if not store.check([key])]


def pauses() -> Iterator[float]:
    """Yield how long to wait between looking around and looking around again, in seconds."""
    pause = FIRST_S
    while True:
        yield pause
        pause = min(1.5 * pause, LAST_S)


def forget(store: Store, rank: int) -> None:
    """Take back what this rank left in the store, once every rank of the group has joined and so has read it.

    All ranks do, and wait for each other before any of them may come back under the same name: then the rounds of all
    of them start again, and nobody finds a card of the round before.
    """
    turn = store.add(f"shm/{rank}/turn", 0)
    for key in (*(f"shm/{rank}/{number}" for number in range(1, turn + 1)), f"shm/{rank}/turn"):
        with contextlib.suppress(RuntimeError):  # a store that cannot delete keeps it
            store.delete_key(key)


def unable(cards: Sequence[Card]) -> CommError | None:
    """Return the error that every rank raises when some of them cannot use shared memory at all, or None."""
    for rank, card in enumerate(cards):
        if card.why_not is not None:
            return TransportError(_WHERE, got=f"rank {rank}, where {card.why_not}", hint=_GLOO)
    return None


def refusal(cards: Sequence[Card]) -> CommError | None:
    """Return the error that every rank raises when these ranks cannot share one piece of memory, or None.

    Example:
        >>> here = Card("a", 1, 0, 10, 5, None)
        >>> refusal([here, here]) is None
        True
        >>> "several machines" in str(refusal([here, Card("b", 1, 0, 10, 5, None)]))
        True
    """
    for what, values in (
        ("several machines", [card.machine for card in cards]),
        ("several pid namespaces (containers)", [str(card.pid_namespace) for card in cards]),
        ("several user namespaces (containers)", [str(card.user_namespace) for card in cards]),
        ("several users", [str(card.user) for card in cards]),
        (f"several hosts, as {HOST} says", [card.host for card in cards]),
    ):
        if len(set(values)) > 1 and unable(cards) is None:
            places = "; ".join(f"rank {rank}: {value}" for rank, value in enumerate(values))
            need = "all ranks on one machine, in one pid namespace, run by one user"
            return TransportError(_WHERE, got=f"ranks on {what} ({places})", need=need, hint=_GLOO)
    return unable(cards)


def open_pidfds(cards: Sequence[Card], rank: int) -> list[int]:
    """Return a descriptor for each peer's process that tells when it ends; -1 in this rank's own place.

    Raises:
        RankFailedError: a peer has ended already.
    """
    pidfds: list[int] = []
    try:
        for peer, card in enumerate(cards):
            pidfds.append(-1 if peer == rank else open_pidfd(peer, card))
    except CommError:
        close_pidfds(pidfds)
        raise
    return pidfds


def open_pidfd(peer: int, card: Card) -> int:
    """Return a descriptor of a rank's process that tells when it ends.

    Raises:
        RankFailedError: it has ended already.
    """
    pidfd = -1
    try:
        pidfd = os.pidfd_open(card.pid)
        if born(card.pid) != card.born:
            raise ProcessLookupError
    except OSError as error:
        close_pidfds([pidfd])
        if not isinstance(error, ProcessLookupError):
            raise TransportError(_WHERE, got=f"no pidfd of rank {peer}: {error}", hint=_GLOO) from error
        raise _ended(peer, card) from None
    return pidfd


def check_alive(cards: Sequence[Card], rank: int) -> None:
    """Wait a moment for a peer to end, whose descriptors are gone before it is.

    Raises:
        RankFailedError: a peer has ended.
    """
    pidfds, endings = open_pidfds(cards, rank), select.poll()
    try:
        for pidfd in pidfds:
            if pidfd >= 0:
                endings.register(pidfd, select.POLLIN)
        for pidfd, _ in endings.poll(_ENDING_MS):
            peer = pidfds.index(pidfd)
            raise _ended(peer, cards[peer])
    finally:
        close_pidfds(pidfds)


def close_pidfds(pidfds: Sequence[int]) -> None:
    """Close what `open_pidfds` has returned."""
    for pidfd in pidfds:
        if pidfd >= 0:
            os.close(pidfd)


def _ended(peer: int, card: Card) -> RankFailedError:
    return RankFailedError(
        _WHERE, got=f"rank {peer}, whose process {card.pid} has ended", need="every rank", hint="look at its output"
    )
