"""Messages of a group on several hosts: to ranks of this host in its memory, to others over gloo, from any by both.

A receive from any source is asked of both. Whichever has a message for it first answers it, and the C core decides
which that is: the other hosts' messages may only answer it once it has been taken back here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from comm_shm.across import Across
from comm_shm.distant_mail import Letter, Mail
from comm_shm.faults import Status
from comm_shm.inside import Inside

ANYONE = -1
_Described = tuple[int, int, int, int, int, int]


class Near:
    """A message between ranks of this host.

    Args:
        native: the C core.
        request: its handle of the message.
        mine: the ranks of this host.
    """

    def __init__(self, native: Any, request: Any, mine: Sequence[int]) -> None:
        self.native, self.request, self._mine = native, request, mine

    @property
    def finished(self) -> bool:
        """Whether it has finished, well or not."""
        return bool(self.native.finished(self.request))

    def result(self, timeout_s: float) -> int:
        """Return the status; when the time is over it is given up."""
        return int(self.native.wait(self.request, timeout_s, True))

    def tell(self, callable: Callable[[], None]) -> bool:
        """Return whether it will be called when this has finished; if not, it has."""
        return bool(self.native.tell(self.request, callable))

    def described(self) -> _Described:
        """Return rank, tag, what was sent, what was asked for."""
        return named(self.native.message(self.request), self._mine)


class Anyone(Letter):
    """A receive from any rank of any host.

    Args:
        mail: the messages of other hosts.
        tag: the user's.
        content: code of the dtype, elements, bytes and address of the tensor.
        ask: asks the C core for it too.
    """

    def __init__(self, mail: Mail, tag: int, content: tuple[int, int, int, int], ask: Callable[[], Near | int]) -> None:
        super().__init__(mail, True, ANYONE, tag, content)
        self._ask = ask
        self._near: Near | None = None

    def ask_near(self) -> bool:
        """Ask this host's own ranks first; return whether it is still open."""
        asked = self._ask()
        if isinstance(asked, int):
            self.settle(asked)
            return False
        self._near = asked
        return not asked.finished

    def claim(self) -> bool:
        """Return whether another host may answer it: whether it could be taken back here."""
        return self._near is None or bool(self._near.native.take_back(self._near.request))

    def _answer(self) -> Near | None:
        """Return what has answered it here, or None for another host; it has finished here."""
        near = self._near
        return None if near is None or near.result(0.0) == Status.ELSEWHERE else near

    @property
    def finished(self) -> bool:
        """Whether it has finished, well or not."""
        if self._near is not None and not self._near.finished:
            return False
        return self._answer() is not None or self._done.is_set()

    def result(self, timeout_s: float) -> int:
        """Return the status; when the time is over it is given up."""
        deadline = time.monotonic() + timeout_s
        status = int(Status.ELSEWHERE) if self._near is None else self._near.result(timeout_s)
        if status == Status.ELSEWHERE:
            return super().result(max(deadline - time.monotonic(), 0.0))
        self.mail.forget(self)
        return status

    def tell(self, callable: Callable[[], None]) -> bool:
        """Return whether it will be called when this has finished; if not, it has."""

        def told() -> None:
            if self._answer() is not None or not tell_of_far(callable):
                callable()

        tell_of_far = super().tell
        if self._near is not None and self._near.tell(told):
            return True
        return self._answer() is None and tell_of_far(callable)

    def described(self) -> _Described:
        """Return rank, tag, what was sent, what was asked for."""
        near = self._answer() if self.finished else None
        return super().described() if near is None else near.described()


class PostOffice:
    """All messages of one rank.

    Args:
        inside: its host.
        across: its connections to the others.
    """

    def __init__(self, inside: Inside, across: Across) -> None:
        self._inside = inside
        self._mine = inside.hosts.mine
        self._far = Mail(across, self._leave)
        self._leave(0)

    def post(self, receives: bool, peer: int, tag: int, content: tuple[int, int, int, int]) -> Near | Letter | int:
        """Start to send or receive; return the message, or a status where that cannot be."""
        if peer == ANYONE:
            anyone = Anyone(self._far, tag, content, lambda: self._post_near(True, ANYONE, tag, content))
            self._far.receive(anyone)
            return anyone
        if peer in self._mine:
            return self._post_near(receives, self._mine.index(peer), tag, content)
        letter = Letter(self._far, receives, peer, tag, content)
        if receives:
            self._far.receive(letter)
        else:
            self._far.send(letter)
        return letter

    def arrived(self) -> list[_Described]:
        """Return what nobody has asked for yet, as `described` of a message."""
        near = self._inside.native.arrived(self._inside.handle)
        return [*(named(one, self._mine) for one in near), *self._far.arrived()]

    def regret(self, peer: int) -> _Described | None:
        """Return a message to a rank of this host that was put aside and then did not fit, if there is one."""
        found = self._inside.native.regret(self._inside.handle, self._mine.index(peer))
        return None if found is None else named(found, self._mine)

    def drain(self, timeout_s: float) -> int:
        """Write what was sent to ranks of this host."""
        return int(self._inside.native.drain(self._inside.handle, timeout_s))

    def close(self) -> None:
        """Give up what was asked for, and leave the other hosts."""
        self._far.close()

    def _post_near(self, receives: bool, peer: int, tag: int, content: tuple[int, int, int, int]) -> Near | int:
        native = self._inside.native
        posted = native.post(self._inside.handle, receives, peer, tag, *content)
        return posted if isinstance(posted, int) else Near(native, posted, self._mine)

    def _leave(self, left: int) -> None:
        """Tell the C core how many ranks of other hosts have left: when all have, nobody answers any more."""
        self._inside.native.elsewhere(self._inside.handle, len(self._far.far), left)


def named(message: Sequence[int], mine: Sequence[int]) -> _Described:
    """Return a message as the C core describes it, with the rank's number in the whole group.

    Example:
        >>> named((1, 7, 0, 3, 0, 3), mine=(2, 5))
        (5, 7, 0, 3, 0, 3)
    """
    rank, tag, dtype, numel, wanted_dtype, wanted_numel = message
    return (mine[rank] if rank >= 0 else rank), tag, dtype, numel, wanted_dtype, wanted_numel
