"""Messages that are only sent, where nothing can wait for them later: in a graph, in a derivative, under a transform.

A wait at the call would be a deadlock of two ranks that send before they receive. So the message is left to a thread of
this process, the only one, which waits for all that is under way and keeps it until it has been received. What fails is
said by the next message on that group.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import warnings

import torch

from comm_core.errors import CommError, UnwaitedWarning
from comm_core.pending import Pending, Waitable

AT_EXIT_S = 10.0


class Sent(Pending):
    """Messages under way of which none is received here.

    Args:
        tensor: an empty one.
        work: what to wait on.
        keep: what is sent.
        what: the collective's name.
        group: the group's name.
    """

    __slots__ = ("group",)

    def __init__(self, tensor: torch.Tensor, work: Waitable, keep: object, what: str, group: str) -> None:
        super().__init__(tensor, work, keep, what)
        self.group = group


class Outbox:
    """What is under way.

    Example:
        >>> outbox, received = Outbox(), threading.Event()
        >>> outbox.add(Sent(torch.empty(0), received, None, "batch_p2p", "a group"))
        >>> outbox.unreceived(within_s=0.0)
        ['a group']
        >>> received.set()
        >>> outbox.unreceived(within_s=10.0)
        []
    """

    def __init__(self) -> None:
        self._under_way: queue.SimpleQueue[Sent] = queue.SimpleQueue()
        self._groups: list[str] = []  # of the messages under way
        self._failed: dict[str, CommError] = {}
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()

    def add(self, sent: Sent) -> None:
        """Wait for messages in the background, and keep them until then."""
        with self._changed:
            self._groups.append(sent.group)
            self._under_way.put(sent)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="commbook outbox", daemon=True)
                self._thread.start()

    def raise_failed(self, group: str) -> None:
        """Raise what went wrong with earlier messages on a group, once.

        Raises:
            CommError: as the transport said it.
        """
        error = self._failed.pop(group, None) if self._failed else None
        if error is not None:
            raise type(error)(error.where, f"a message sent before: {error.got}", error.need, error.hint) from error

    def unreceived(self, within_s: float) -> list[str]:
        """Return the groups of messages that have failed, or have not been received within so long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._groups, within_s)
            return [*self._groups, *self._failed]

    def _run(self) -> None:
        while True:
            sent = self._under_way.get()
            error = None
            try:
                sent.wait()
            except CommError as found:
                error = found
            with self._changed:
                if error is not None:
                    self._failed.setdefault(sent.group, error)
                self._groups.remove(sent.group)
                self._changed.notify_all()
            del sent, error  # not only when the next one comes


OUTBOX = Outbox()


def finished(pending: Pending) -> torch.Tensor:
    """Return what nobody can wait for later: waited for, but for messages that are only sent, left to `OUTBOX`.

    On CUDA a wait holds up the stream and not the program, so it stands at the call there as well.

    Example:
        >>> finished(Pending(torch.ones(1)))
        tensor([1.])
    """
    if not isinstance(pending, Sent) or pending.done or pending.tensor.is_cuda:
        return pending.wait()
    OUTBOX.add(pending)
    return pending.tensor


def _at_exit() -> None:
    lost = OUTBOX.unreceived(AT_EXIT_S)
    if lost:
        warnings.warn(
            f"{len(lost)} messages, on {', '.join(sorted(set(lost)))}, had not been received when the program ended",
            UnwaitedWarning,
            stacklevel=2,
        )


atexit.register(_at_exit)
os.register_at_fork(after_in_child=OUTBOX.__init__)  # type: ignore[misc]  # thread and messages are the parent's
