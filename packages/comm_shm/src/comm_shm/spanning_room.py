"""Memory that a collective on several hosts needs beside its tensors: what other hosts send, and sums on their way.

It is taken before the ranks agree on the collective, so that a rank without it can say so to all others in time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from comm_core.errors import TransportError
from comm_shm.at_once import AT_ONCE_BYTES
from comm_shm.codes import DTYPES, REFUSALS
from comm_shm.hosts import Hosts
from comm_shm.inside import Call, memory
from comm_shm.room import out_of_memory

LACKING = REFUSALS.index("no room for what the others have")
_LINE = 64


class SpanningRoom:
    """The memory of one collective at a time, cut into the pieces that it needs, in their order.

    Args:
        hosts: the hosts of the group.
    """

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._sizes: list[int] = []
        self._pieces: list[torch.Tensor] = []
        self._needed: dict[str, Callable[[Call], list[int]]] = {
            "all_reduce_one_of": self._of_all_reduce,
            "all_gather": self._of_all_gather,
            "reduce_scatter": self._of_reduce_scatter,
            "all_to_all": self._of_all_to_all,
        }

    def take(self, name: str, call: Call, where: str) -> TransportError | None:
        """Take what a collective needs; return the error for the caller where there is no memory for it."""
        self._sizes = self._needed[name](call) if name in self._needed else []
        lines = [-(-size // _LINE) * _LINE for size in self._sizes]
        try:
            self._pieces = list(torch.empty(sum(lines), dtype=torch.uint8).split(lines)) if lines else []
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            return TransportError(
                where,
                got=f"no memory for {sum(lines)} bytes",
                need="room for what the hosts bring together, beside the tensors of the call",
                hint="raise the memory limit; nothing was sent, and the group goes on",
            )
        return None

    def piece(self, numel: int) -> torch.Tensor:
        """Return the next piece, of so many bytes."""
        assert self._sizes[0] == numel, "a collective uses what it has said that it needs"
        self._sizes.pop(0)
        return self._pieces.pop(0)[:numel]

    def give_back(self) -> None:
        """Keep no memory between collectives."""
        self._sizes, self._pieces = [], []

    # -- how much, in the order of use: as spanning.py does it -----------------------------------------------------

    def _of_all_reduce(self, call: Call) -> list[int]:
        ends = shares(call.numel * DTYPES[call.dtype].itemsize, len(self._hosts.members))
        here = self._hosts.here if len(ends) > 2 else 0
        return [ends[here + 1] - ends[here]] * self._distant

    def _of_all_gather(self, call: Call) -> list[int]:
        return self._scattered(call.numel * call.last, range(len(self._hosts.members)))

    def _of_reduce_scatter(self, call: Call) -> list[int]:
        part = call.numel * DTYPES[call.dtype].itemsize
        mine = self._scattered(part, [self._hosts.here])
        others = self._scattered(part, self._hosts.others) if self._hosts.speaks else []
        return [part * self._hosts.world, *mine, *[part * len(self._hosts.mine)] * self._distant, *others]

    def _of_all_to_all(self, call: Call) -> list[int]:
        if follow(self._hosts.mine):
            return []
        counts = memory(call.detail, 16 * self._hosts.world).view(torch.int64).view(2, -1)
        give, take = (counts[:, list(self._hosts.mine)].sum(1) * call.last).tolist()
        return [take, give]

    @property
    def _distant(self) -> int:
        return len(self._hosts.others) if self._hosts.speaks else 0

    def _scattered(self, part: int, hosts: Sequence[int]) -> list[int]:
        return [part * len(self._hosts.members[host]) for host in hosts if not follow(self._hosts.members[host])]


def shares(numel: int, hosts: int) -> list[int]:
    """Return where the part begins that each host sums of so many bytes, and where the last one ends.

    All of it is one part where two hosts, or little data, make one exchange quicker than two.

    Example:
        >>> shares(3 * 65536, 3), shares(10, 3)
        ([0, 65536, 131072, 196608], [0, 10])
    """
    if hosts == 2 or numel <= AT_ONCE_BYTES:
        return [0, numel]
    lines = numel // _LINE
    return [lines * host // hosts * _LINE for host in range(hosts)] + [numel]


def follow(ranks: Sequence[int]) -> bool:
    """Return whether ranks follow each other, so that what is theirs lies in one piece.

    Example:
        >>> follow((1, 2, 3)), follow((0, 2))
        (True, False)
    """
    return ranks[-1] - ranks[0] == len(ranks) - 1
