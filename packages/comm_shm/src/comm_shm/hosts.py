"""Which ranks of a group share a host, where a host is what memory can be shared in.

Ranks share one when they run under one kernel, in one pid namespace and one user namespace, as one user: then one can
open what another one has made. So containers on one machine count as hosts of their own. `COMM_SHM_HOST`, any word,
divides further: ranks with different words are on different hosts, which is how a program for several machines is tried
on one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from comm_shm.rendezvous import Card


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts of a group, in the order of their first ranks, which speak for them.

    Args:
        members: the ranks of each host, in order.
        rank: this rank.

    Example:
        >>> hosts = Hosts(((0, 2), (1,)), rank=2)
        >>> hosts.here, hosts.mine, hosts.local, hosts.speaks, hosts.world
        (0, (0, 2), 1, False, 3)
    """

    members: tuple[tuple[int, ...], ...]
    rank: int

    @property
    def world(self) -> int:
        """The number of ranks."""
        return sum(map(len, self.members))

    @property
    def here(self) -> int:
        """The number of this rank's host."""
        return self.of(self.rank)

    @property
    def mine(self) -> tuple[int, ...]:
        """The ranks of this rank's host."""
        return self.members[self.here]

    @property
    def local(self) -> int:
        """This rank's place among them."""
        return self.mine.index(self.rank)

    @property
    def speaks(self) -> bool:
        """Whether this rank speaks for its host."""
        return self.local == 0

    @property
    def others(self) -> list[int]:
        """The numbers of the other hosts."""
        return [host for host in range(len(self.members)) if host != self.here]

    def of(self, rank: int) -> int:
        """Return the number of a rank's host."""
        return next(host for host, ranks in enumerate(self.members) if rank in ranks)


def split(cards: Sequence[Card], apart: Sequence[int] = ()) -> tuple[tuple[int, ...], ...]:
    """Return the ranks of each host.

    Args:
        cards: who each rank is and where it runs.
        apart: ranks that cannot reach the others of their host, and are alone therefore.

    Example:
        >>> a, b = Card("a", 1, 0, 10, 5, None), Card("b", 1, 0, 11, 5, None)
        >>> split([a, b, a, a]), split([a, b, a, a], apart=[2])
        (((0, 2, 3), (1,)), ((0, 3), (1,), (2,)))
    """
    found: dict[object, list[int]] = {}
    for rank, card in enumerate(cards):
        place = (card.host, card.machine, card.pid_namespace, card.user_namespace, card.user)
        found.setdefault((place, rank if rank in apart else None), []).append(rank)
    return tuple(tuple(ranks) for ranks in found.values())
