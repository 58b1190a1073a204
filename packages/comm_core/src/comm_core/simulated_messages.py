"""Messages between two simulated ranks: those of one sender, receiver and tag arrive in the order they were sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from comm_core.errors import CommError, MismatchError
from comm_core.pending import Pending

if TYPE_CHECKING:
    from comm_core.simulate import SimulatedGroup, _Session

Messages = Sequence[tuple[int, int, int]]  # each (peer, rows, tag)


@dataclass(slots=True, eq=False)
class Letter:
    """One message: what was sent, once it was; or why it never will be."""

    content: torch.Tensor | None = None
    error: CommError | None = None

    @property
    def over(self) -> bool:
        """Whether waiting for it makes no sense any more."""
        return self.content is not None or self.error is not None


@dataclass(frozen=True, slots=True, eq=False)
class Receipt:
    """One rank's wait for a letter; to the run it is what a part in a meeting is.

    Args:
        session: the run.
        group: the rank's group.
        meeting: the letter.
        what: what the rank says that it waits in.
        source: the sender, as rank of the world.
    """

    session: _Session
    group: SimulatedGroup
    meeting: Letter
    what: object
    source: int

    def missing(self) -> set[int]:
        """Return the sender while it has not sent."""
        return set() if self.meeting.over else {self.source}

    def wait(self) -> None:
        """Block until the letter is there, and raise what went wrong."""
        self.session.wait(cast(Any, self))
        if self.meeting.error is not None:
            raise self.meeting.error.again()


class Receipts:
    """Several waits as one.

    Args:
        receipts: the waits.
    """

    def __init__(self, receipts: Sequence[Receipt]) -> None:
        self.receipts = receipts

    def wait(self) -> None:
        """Wait for each letter."""
        for receipt in self.receipts:
            receipt.wait()


def letter_of(group: SimulatedGroup, source: int, target: int, tag: int, content: torch.Tensor | None) -> Letter:
    """Send a letter, or ask for one where there is no content; the other end may have done its part or not."""
    session = group.session
    with session.changed:
        key = ("letters", group.ranks, group.number, source, target, tag)
        box: deque[Letter] = session.memories.setdefault(key, deque())
        if box and (box[0].content is None) is (content is not None):  # the other end's are waiting
            letter = box.popleft()
        else:
            letter = Letter()
            box.append(letter)
        if content is not None:
            letter.content = content
            session.changed.notify_all()
    return letter


def exchange(
    group: SimulatedGroup, x: torch.Tensor, sends: Messages, receives: Messages, reverse: bool = False
) -> Pending:
    """Send all messages, the first one first or last, and return what waits for those to receive."""
    step = -1 if reverse else 1
    parts = x.detach().split([rows for _, rows, _ in sends]) if sends else ()
    for (peer, _, tag), part in list(zip(sends, parts, strict=True))[::step]:
        letter_of(group, group.rank, peer, tag, part.clone())
    receipts = [
        Receipt(
            group.session,
            group,
            letter_of(group, peer, group.rank, tag, None),
            f"batch_p2p(receive {rows} rows from rank {peer}, tag {tag})",
            group.ranks[peer],
        )
        for peer, rows, tag in receives[::step]
    ][::step]
    shape = (sum(rows for _, rows, _ in receives), *x.shape[1:])

    def filled(buffer: torch.Tensor) -> torch.Tensor:
        letters = [cast(torch.Tensor, receipt.meeting.content) for receipt in receipts]
        for letter, (peer, rows, tag) in zip(letters, receives, strict=True):
            check_letter(letter, (rows, *x.shape[1:]), x, f"rank {peer} sent with tag {tag}")
        return torch.cat(letters) if letters else buffer

    pending = Pending(x.new_empty(shape), Receipts(receipts), what="batch_p2p").then(filled, shape)
    pending.sends(x.detach(), watches_parts=True)
    return pending


def check_letter(letter: torch.Tensor, shape: tuple[int, ...], like: torch.Tensor, where: str) -> None:
    """Refuse a letter that is not what was expected.

    Raises:
        MismatchError: of another dtype or shape.
    """
    if letter.dtype != like.dtype or tuple(letter.shape) != shape:
        raise MismatchError(
            "batch_p2p",
            got=f"{letter.dtype} of shape {tuple(letter.shape)}, which {where}",
            need=f"{like.dtype} of shape {shape}, as this rank expects",
        )
