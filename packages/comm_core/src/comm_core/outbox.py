"""Messages that are only sent, where nothing can wait for them later: in a graph, in a derivative, under a transform.

A wait at the call would be a deadlock of two ranks that send before they receive. So a copy is sent, and a thread of
this process waits for it and keeps it until it has been received. What fails is said by the next message on that group.
"""

from __future__ import annotations

import atexit
import os
import queue
import sys
import threading
import warnings

import torch

from comm_core.errors import CommError, UnwaitedWarning
from comm_core.pending import Pending, Waitable, noted

AT_EXIT_S = 10.0


class Sent(Pending):
    """Messages under way of which none is received here.

    Args:
        tensor: an empty one.
        work: what to wait on.
        keep: what is sent.
        group: the group's name.
        sender: the transport, which says what has failed before it sends again.
    """

    __slots__ = ("group", "sender")

    def __init__(self, tensor: torch.Tensor, work: Waitable, keep: object, group: str, sender: object) -> None:
        super().__init__(tensor, work, keep, "batch_p2p")
        self.group = group
        self.sender = sender


class Outbox:
    """What is under way.

    Example:
        >>> outbox, received = Outbox(), threading.Event()
        >>> outbox.add(Sent(torch.empty(0), received, None, "a group", "a transport"))
        >>> outbox.unreceived(within_s=0.0)
        ['a group']
        >>> received.set()
        >>> outbox.unreceived(within_s=10.0)
        []
    """

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Sent] = queue.SimpleQueue()
        self._under_way: list[Sent] = []
        self._failed: dict[object, list[CommError]] = {}  # by sender
        self._idle = 0  # threads; there are as many as were ever needed at once
        self._changed = threading.Condition()

    def add(self, sent: Sent) -> None:
        """Wait for messages in the background, and keep them until then."""
        with self._changed:
            self._under_way.append(sent)
            self._waiting.put(sent)
            if self._idle:
                self._idle -= 1
            else:
                threading.Thread(target=self._run, name="commbook outbox", daemon=True).start()

    def raise_failed(self, sender: object) -> None:
        """Raise what went wrong with earlier messages of a transport, once.

        Raises:
            CommError: as the transport said it.
        """
        if not self._failed:
            return
        with self._changed:
            errors = self._failed.pop(sender, [])
        for error in errors:
            words = f"a message sent before: {error.got}"
            raise type(error)(error.where, words, error.need, error.hint) from error

    def unreceived(self, within_s: float) -> list[str]:
        """Return the groups of the messages that have neither been received within so long, nor failed."""
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way, within_s)
            return [sent.group for sent in self._under_way]

    def unsaid(self) -> list[str]:
        """Return what went wrong and has not been raised."""
        with self._changed:
            return [str(error) for errors in self._failed.values() for error in errors]

    def _run(self) -> None:
        while True:
            sent = self._waiting.get()
            error = None
            try:
                sent.wait()
            except CommError as found:
                error = found
            with self._changed:
                if error is not None:
                    self._failed.setdefault(sent.sender, []).append(error)
                self._under_way.remove(sent)
                self._idle += 1
                del sent, error  # not only when the next one comes
                self._changed.notify_all()


OUTBOX = Outbox()


def to_send(x: torch.Tensor, receives: object) -> torch.Tensor:
    """Return what a call sends that `finished` will finish: where it only sends, a copy, for nobody waits for it.

    Example:
        >>> x = torch.ones(2)
        >>> to_send(x, receives=[(0, 2, 0)]) is x, to_send(x, receives=()) is x
        (True, False)
    """
    return x if receives or x.is_cuda else x.clone(memory_format=torch.contiguous_format)


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
    """Wait for a while, but not where the program ends by an error: others may wait for this rank to end."""
    failed = getattr(sys, "last_type", None) is not None
    unreceived = OUTBOX.unreceived(0.0 if failed else AT_EXIT_S)
    words = [f"a message on group {group} has not been received" for group in unreceived] + OUTBOX.unsaid()
    if not failed:
        words += [f"{one.what}: nobody waited for the result, started at {one.where}" for one in noted()]
    if words:
        warnings.warn(f"when the program ended: {'; '.join(words)}", UnwaitedWarning, stacklevel=2)


atexit.register(_at_exit)
os.register_at_fork(after_in_child=OUTBOX.__init__)  # type: ignore[misc]  # threads and messages are the parent's
