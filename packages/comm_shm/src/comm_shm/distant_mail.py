"""Messages between hosts, over gloo: an envelope, the receiver's verdict, then the data.

All envelopes of a sender come under one number, and a thread listens for them, one for each rank of another host that
this rank has asked for a message. So they are sorted here, by tag, for receives from one rank and from any, in the
order in which they were sent and asked for. And whoever ends is noticed at once: nothing can be heard of it any more.
The verdict and the data have numbers of their own. Each message has a thread while it is under way.
"""

from __future__ import annotations

import itertools
import struct
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import torch

from comm_shm.across import Across
from comm_shm.faults import Status
from comm_shm.inside import memory
from comm_shm.turns import Request

_ENVELOPES = 0  # gloo's tag of all envelopes
_RECORD = struct.Struct("<qQQIQ")  # tag, elements, bytes, dtype, serial
_SERIALS = (1 << 29) - 1
_FITS, _MISFIT, _GIVEN_UP = 0, 1, 2
_VERDICT = struct.Struct("<QQI")  # which of the three, then what was asked for: elements, dtype
_LONG = timedelta(days=300)
_SLICE_S = 0.1


class Envelope(NamedTuple):
    """What a sender says of a message before it sends it."""

    source: int
    tag: int
    numel: int
    bytes: int
    dtype: int
    serial: int


class Letter(Request):
    """A message under way.

    Args:
        mail: this rank's messages.
        receives: whether this rank is the receiver.
        peer: the other rank, -1 for any.
        tag: the user's.
        content: code of the dtype, elements, bytes and address of the tensor.
    """

    def __init__(self, mail: Mail, receives: bool, peer: int, tag: int, content: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.mail = mail
        self.receives, self.peer, self.tag = receives, peer, tag
        self.dtype, self.numel, self.bytes, self.address = content
        self.wanted = (content[0], content[1]) if receives else (0, 0)
        self.given_up = False
        self.keep: object = ()
        """What has to stay while gloo may use its memory, also when the message was given up."""
        self._settling = threading.Lock()

    def asks(self, envelope: Envelope) -> bool:
        """Return whether it asks for that message."""
        return self.tag == envelope.tag and self.peer in (envelope.source, -1)

    def ask_near(self) -> bool:
        """Ask this host's own ranks first; return whether it is still open."""
        return True

    def claim(self) -> bool:
        """Return whether another host may answer it; nobody else does then."""
        return True

    def settle(self, status: int) -> None:
        """Finish it, unless it has."""
        with self._settling:
            if not self.finished:
                self.status = status
                self.finish()

    def result(self, timeout_s: float) -> int:
        """Return the status; when the time is over it is given up."""
        deadline = time.monotonic() + timeout_s
        while not self.wait(min(_SLICE_S, max(deadline - time.monotonic(), 0.0))):
            if time.monotonic() >= deadline:
                self.mail.forget(self)
                self.given_up = True
                self.settle(Status.TIMED_OUT)
        return int(self.status)

    def described(self) -> tuple[int, int, int, int, int, int]:
        """Return what `_native.message` returns: rank, tag, what was sent, what was asked for."""
        return self.peer, self.tag, self.dtype, self.numel, *self.wanted


class Mail:
    """This rank's messages to and from other hosts.

    Args:
        across: the connections to them.
        left: called with how many of their ranks have left, when one does.
    """

    def __init__(self, across: Across, left: Callable[[int], None]) -> None:
        self._across = across
        self._left = left
        self._serials = itertools.count()
        self._lock = threading.Lock()
        self._asked: list[Letter] = []  # receives that nothing has come for, in their order
        self._arrived: list[Envelope] = []  # what nobody has asked for, in its order
        self._heard: set[int] = set()
        self._gone: dict[int, Status] = {}
        self._sends = 0
        self._closing = False

    @property
    def far(self) -> list[int]:
        """The ranks of other hosts."""
        hosts = self._across.hosts
        return [rank for rank in range(hosts.world) if rank not in hosts.mine]

    def arrived(self) -> list[tuple[int, int, int, int, int, int]]:
        """Return what nobody has asked for yet, as `Letter.described`."""
        with self._lock:
            return [(one.source, one.tag, one.dtype, one.numel, 0, 0) for one in self._arrived]

    # -- sending -------------------------------------------------------------------------------------------------

    def send(self, letter: Letter) -> None:
        """Start to send; the envelope is on its way when this returns, which keeps messages in their order."""
        serial = next(self._serials)
        packed = _RECORD.pack(letter.tag, letter.numel, letter.bytes, letter.dtype, serial)
        buffer, gloo = _buffer(packed), self._across.everyone
        try:
            work = gloo and gloo.send([buffer], letter.peer, _ENVELOPES)
        except RuntimeError:
            work = None
        if work is None:
            letter.settle(self._across.fate(letter.peer))
            return
        with self._lock:
            self._sends += 1
        self._across.start(self._deliver, letter, gloo, work, (buffer, serial))

    def _deliver(self, letter: Letter, gloo: Any, work: Any, sent: tuple[torch.Tensor, int]) -> None:
        try:
            letter.settle(self._delivered(letter, gloo, work, sent[1]))
        except RuntimeError:  # gloo's word for a closed connection
            letter.settle(self._across.fate(letter.peer))
        with self._lock:
            self._sends -= 1
            last = self._closing and self._sends == 0
        if last:
            self._across.close()

    def _delivered(self, letter: Letter, gloo: Any, work: Any, serial: int) -> int:
        work.wait(_LONG)
        answer = torch.empty(_VERDICT.size, dtype=torch.uint8)
        gloo.recv([answer], letter.peer, _numbered(serial, 0)).wait(_LONG)
        verdict, numel, dtype = _VERDICT.unpack(bytes(answer.tolist()))
        if verdict != _FITS:
            letter.wanted = (dtype, numel)
            return Status.MISFIT if verdict == _MISFIT else Status.TIMED_OUT
        if letter.bytes:
            gloo.send([memory(letter.address, letter.bytes)], letter.peer, _numbered(serial, 1)).wait(_LONG)
        return Status.OK

    # -- receiving -----------------------------------------------------------------------------------------------

    def receive(self, letter: Letter) -> None:
        """Start to receive."""
        with self._lock:
            envelope = next((one for one in self._arrived if letter.asks(one)), None)
            if envelope is not None:
                self._arrived.remove(envelope)
                self._take(letter, envelope)
                return
            if not letter.ask_near():
                return
            self._asked.append(letter)
            for peer, status in self._gone.items():
                self._fail_asked(peer, status)
            for peer in self.far if letter.peer < 0 else [letter.peer]:
                if peer not in self._heard:
                    self._heard.add(peer)
                    self._across.start(self._listen, peer, self._across.everyone)

    def forget(self, letter: Letter) -> None:
        """Ask for a message no longer."""
        with self._lock:
            if letter in self._asked:
                self._asked.remove(letter)

    def _listen(self, peer: int, gloo: Any) -> None:
        try:
            while gloo is not None:
                buffer = torch.empty(_RECORD.size, dtype=torch.uint8)
                gloo.recv([buffer], peer, _ENVELOPES).wait(_LONG)
                self._sort(Envelope(peer, *_RECORD.unpack(bytes(buffer.tolist()))))
        except RuntimeError:
            pass
        self._lose(peer, self._across.fate(peer))

    def _sort(self, envelope: Envelope) -> None:
        with self._lock:
            for letter in [one for one in self._asked if one.asks(envelope)]:
                self._asked.remove(letter)
                if letter.claim():
                    self._take(letter, envelope)
                    return
            self._arrived.append(envelope)

    def _lose(self, peer: int, status: Status) -> None:
        """Note that nothing can be heard of a rank any more; what it had not yet sent goes with it."""
        with self._lock:
            self._gone[peer] = status
            self._arrived = [one for one in self._arrived if one.source != peer]
            self._fail_asked(peer, status)
            left = sum(fate is Status.LEFT for fate in self._gone.values())
        if status is Status.LEFT:
            self._left(left)

    def _fail_asked(self, peer: int, status: Status) -> None:
        """Fail receives from a rank that is gone, and unless it left in good order, those from any."""
        for letter in [one for one in self._asked if one.peer == peer or (one.peer < 0 and status is not Status.LEFT)]:
            self._asked.remove(letter)
            if letter.claim():
                letter.peer = peer
                letter.settle(status)

    def _take(self, letter: Letter, envelope: Envelope) -> None:
        letter.peer = envelope.source
        self._across.start(self._collect, letter, envelope, self._across.everyone)

    def _collect(self, letter: Letter, envelope: Envelope, gloo: Any) -> None:
        try:
            letter.settle(self._collected(letter, envelope, gloo) if gloo else self._across.fate(letter.peer))
        except RuntimeError:
            letter.settle(self._across.fate(letter.peer))

    def _collected(self, letter: Letter, envelope: Envelope, gloo: Any) -> int:
        asked = (letter.numel, letter.bytes, letter.dtype)
        fits = asked == (envelope.numel, envelope.bytes, envelope.dtype)
        verdict = _GIVEN_UP if letter.given_up else _FITS if fits else _MISFIT
        data = None
        if verdict == _FITS and letter.bytes:
            data = gloo.recv([memory(letter.address, letter.bytes)], letter.peer, _numbered(envelope.serial, 1))
        answer = _buffer(_VERDICT.pack(verdict, letter.numel, letter.dtype))
        gloo.send([answer], letter.peer, _numbered(envelope.serial, 0)).wait(_LONG)
        letter.dtype, letter.numel = envelope.dtype, envelope.numel
        if data is not None:
            data.wait(_LONG)
        return {_FITS: Status.OK, _MISFIT: Status.MISFIT, _GIVEN_UP: Status.TIMED_OUT}[verdict]

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give up what was asked for and leave; what is being sent still arrives, while this program runs."""
        with self._lock:
            self._closing = True
            asked, self._asked = self._asked, []
            sends = self._sends > 0
        for letter in asked:
            if letter.claim():
                letter.settle(Status.CLOSED)
        self._across.leave(sends=sends)


def _buffer(packed: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def _numbered(serial: int, kind: int) -> int:
    """Return gloo's tag for the verdict on a message of this sender, or its data."""
    return 1 + 2 * (serial % _SERIALS) + kind
