"""Messages between two ranks of a process group: all of a batch are started before any is waited for."""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from comm_core.groups import AnyGroup
from comm_core.pending import Pending, Waitable

Messages = Sequence[tuple[int, int, int]]  # each (peer, rows, tag)


class AllOf:
    """Several works as one.

    Args:
        works: what to wait for.
    """

    def __init__(self, works: Sequence[Waitable]) -> None:
        self._works = works

    def wait(self) -> None:
        """Wait for each; where one fails, that error is raised."""
        for work in self._works:
            work.wait()


class Exchange(AllOf):
    """Messages under way, which are held until they have arrived, also where nobody waits for them any more.

    A receive that gloo forgets leaves what arrives for it to the next one, and each one after it waits.

    Args:
        works: what to wait for.
    """

    def __init__(self, works: Sequence[Waitable]) -> None:
        super().__init__(works)
        self._ended = False

    def wait(self) -> None:
        """Wait for each; where one fails, that error is raised."""
        super().wait()
        self._ended = True

    def __del__(self) -> None:
        if not self._ended and self._works and not sys.is_finalizing():
            _left.append(self._works)


_left: list[Sequence[Waitable]] = []  # by programs that were told so by an `UnwaitedWarning`


class Pieces:
    """The blocks of rows of a tensor that messages are, but for those without rows.

    Args:
        x: the tensor.
        messages: peer, rows and tag of each block.
        reverse: whether the last of them comes first.
    """

    def __init__(self, x: torch.Tensor, messages: Messages, reverse: bool = False) -> None:
        parts = x.split([rows for _, rows, _ in messages]) if messages else ()
        self.found = [
            (peer, tag, part) for (peer, rows, tag), part in zip(messages, parts, strict=True) if rows and part.numel()
        ]
        if reverse:
            self.found.reverse()

    def of_others(self, rank: int) -> list[tuple[int, int, torch.Tensor]]:
        """Return peer, tag and block of the messages that cross between ranks."""
        return [piece for piece in self.found if piece[0] != rank]

    def by_tag(self, rank: int) -> dict[int, deque[torch.Tensor]]:
        """Return the blocks of a rank's messages to itself."""
        found: dict[int, deque[torch.Tensor]] = defaultdict(deque)
        for peer, tag, part in self.found:
            if peer == rank:
                found[tag].append(part)
        return found


def exchanged(
    group: AnyGroup, sent: Pieces, received: Pieces, out: torch.Tensor, start: Callable[..., Pending]
) -> list[Waitable]:
    """Start every message, with words for the error that says which of them failed, and return what to wait for."""
    own = sent.by_tag(group.rank)
    for tag, parts in received.by_tag(group.rank).items():
        for part in parts:
            part.copy_(own[tag].popleft())
    receives, sends = received.of_others(group.rank), sent.of_others(group.rank)
    if any(part.is_cuda for _, _, part in [*receives, *sends]):
        return _in_one_launch(group, sends, receives)
    receive, send = group.process_group.recv, group.process_group.send
    works: list[Waitable] = [
        start(f"batch_p2p, receiving from rank {peer} with tag {tag}", out, receive, [part], peer, tag)
        for peer, tag, part in receives
    ]
    return works + [
        start(f"batch_p2p, sending to rank {peer} with tag {tag}", out, send, [part], peer, tag)
        for peer, tag, part in sends
    ]


def _in_one_launch(group: AnyGroup, sends: list[Any], receives: list[Any]) -> list[Waitable]:
    """Start them as one kernel: on CUDA, messages that wait for each other would block the stream."""
    on = group.process_group
    ops = [dist.P2POp(dist.irecv, part, group=on, tag=tag, group_peer=peer) for peer, tag, part in receives]
    ops += [dist.P2POp(dist.isend, part, group=on, tag=tag, group_peer=peer) for peer, tag, part in sends]
    return list(dist.batch_isend_irecv(ops))
