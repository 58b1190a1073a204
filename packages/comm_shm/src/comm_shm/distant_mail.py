"""Messages between ranks of a group on several hosts, over gloo: an envelope, the receiver's verdict, then the data.

The envelope goes under the user's tag, the other two under numbers of their own, so that messages of one tag keep their
order and any source can be waited for. Between ranks of one host it is the same, over the loopback device. Each message
has a thread while it is under way.
"""

from __future__ import annotations

import itertools
import struct
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch

from comm_core.errors import ArgumentError
from comm_shm.faults import Status
from comm_shm.inside import memory
from comm_shm.turns import Request

_ENVELOPE = struct.Struct("<QQIQ")  # elements, bytes, dtype, serial
_TAGS = 1 << 29  # the user's; as many numbers from there on are of verdicts and data
_FITS, _MISFIT, _GIVEN_UP = 0, 1, 2
_VERDICT = struct.Struct("<QQI")  # which of the three, then what was asked for: elements, dtype
_LONG = timedelta(days=300)


class Letter(Request):
    """A message under way.

    Args:
        receives: whether this rank is the receiver.
        peer: the other rank, -1 for any.
        tag: the user's.
        content: code of the dtype, elements, bytes and address of the tensor.
    """

    def __init__(self, receives: bool, peer: int, tag: int, content: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.receives, self.peer, self.tag = receives, peer, tag
        self.dtype, self.numel, self.bytes, self.address = content
        self.wanted = (content[0], content[1]) if receives else (0, 0)
        self.given_up = False

    def described(self) -> tuple[int, int, int, int, int, int]:
        """Return what `_native.message` returns: rank, tag, what was sent, what was asked for."""
        return self.peer, self.tag, self.dtype, self.numel, *self.wanted


class Mail:
    """This rank's messages.

    Args:
        gloo: gives the gloo group of all ranks, None once it is closed.
        rank: this rank.
    """

    def __init__(self, gloo: Callable[[], Any], rank: int) -> None:
        self._gloo = gloo
        self._rank = rank
        self._serials = itertools.count()
        self._own: dict[int, list[Letter]] = {}  # of this rank to itself, by tag, while the other end is missing
        self._lock = threading.Lock()

    def post(self, receives: bool, peer: int, tag: int, content: tuple[int, int, int, int]) -> Letter:
        """Start to send or receive.

        Raises:
            ArgumentError: gloo has no such tag.
        """
        where = "recv" if receives else "send"
        if not 0 <= tag < _TAGS:
            raise ArgumentError(where, got=f"tag {tag}", need=f"a tag from 0 to {_TAGS - 1} between hosts")
        letter, gloo = Letter(receives, peer, tag, content), self._gloo()
        if gloo is None:
            letter.status = Status.CLOSED
            letter.finish()
            return letter
        if peer == self._rank:
            return self._to_itself(letter)
        body = self._receive if receives else self._send
        # The envelope is on its way, or asked for, when this returns: that keeps messages of one tag in order.
        buffer = torch.zeros(_ENVELOPE.size, dtype=torch.uint8)
        serial = next(self._serials)
        if not receives:
            packed = _ENVELOPE.pack(letter.numel, letter.bytes, letter.dtype, serial)
            buffer = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
        try:
            if receives:
                work = gloo.recv_anysource([buffer], tag) if peer < 0 else gloo.recv([buffer], peer, tag)
            else:
                work = gloo.send([buffer], peer, tag)
        except RuntimeError:
            letter.status = Status.DIED
            letter.finish()
            return letter
        job = (letter, gloo, work, buffer, serial)
        threading.Thread(target=self._guarded, args=(body, job), name=f"comm_shm {where}", daemon=True).start()
        return letter

    def _to_itself(self, letter: Letter) -> Letter:
        """Match a message of this rank to itself with its other end, if that was posted; gloo has none."""
        with self._lock:
            waiting = self._own.setdefault(letter.tag, [])
            if not waiting or waiting[0].receives == letter.receives:
                waiting.append(letter)
                return letter
            other = waiting.pop(0)
        sent, asked = (other, letter) if letter.receives else (letter, other)
        fits = (sent.dtype, sent.numel, sent.bytes) == (asked.dtype, asked.numel, asked.bytes)
        if fits:
            memory(asked.address, asked.bytes).copy_(memory(sent.address, sent.bytes))
        sent.wanted = (asked.dtype, asked.numel)
        asked.dtype, asked.numel = sent.dtype, sent.numel
        for one in (sent, asked):
            one.status = Status.OK if fits else Status.MISFIT
            one.finish()
        return letter

    def _guarded(self, body: Callable[..., int], job: tuple[Letter, Any, Any, torch.Tensor, int]) -> None:
        letter = job[0]
        try:
            letter.status = body(*job)
        except RuntimeError:  # gloo's word for a closed connection
            letter.status = Status.DIED
        letter.finish()

    def _send(self, letter: Letter, gloo: Any, work: Any, buffer: torch.Tensor, serial: int) -> int:
        work.wait(_LONG)
        answer = torch.zeros(_VERDICT.size, dtype=torch.uint8)
        gloo.recv([answer], letter.peer, _numbered(serial, 0)).wait(_LONG)
        verdict, numel, dtype = _VERDICT.unpack(bytes(answer.tolist()))
        if verdict != _FITS:
            letter.wanted = (dtype, numel)
            return Status.MISFIT if verdict == _MISFIT else Status.TIMED_OUT
        if letter.bytes:
            gloo.send([memory(letter.address, letter.bytes)], letter.peer, _numbered(serial, 1)).wait(_LONG)
        return Status.OK

    def _receive(self, letter: Letter, gloo: Any, work: Any, buffer: torch.Tensor, serial: int) -> int:
        work.wait(_LONG)
        if letter.peer < 0:
            letter.peer = int(work._source_rank())
        numel, size, dtype, serial = _ENVELOPE.unpack(bytes(buffer.tolist()))
        fits = (numel, size, dtype) == (letter.numel, letter.bytes, letter.dtype)
        verdict = _GIVEN_UP if letter.given_up else _FITS if fits else _MISFIT
        answer = torch.frombuffer(bytearray(_VERDICT.pack(verdict, letter.numel, letter.dtype)), dtype=torch.uint8)
        gloo.send([answer], letter.peer, _numbered(serial, 0)).wait(_LONG)
        letter.dtype, letter.numel = dtype, numel
        if verdict != _FITS:
            return Status.MISFIT if verdict == _MISFIT else Status.TIMED_OUT
        if size:
            gloo.recv([memory(letter.address, size)], letter.peer, _numbered(serial, 1)).wait(_LONG)
        return Status.OK

    @staticmethod
    def wait(letter: Letter, timeout_s: float) -> int:
        """Return the status of a message; when the time is over it is given up."""
        deadline = time.monotonic() + timeout_s
        while not letter.wait(min(0.1, max(deadline - time.monotonic(), 0.0))):
            if time.monotonic() >= deadline:
                letter.given_up = True
                letter.status = Status.TIMED_OUT
                letter.finish()
                break
        return int(letter.status)


def _numbered(serial: int, kind: int) -> int:
    """Return gloo's tag for the verdict on a message of this sender, or its data."""
    return _TAGS + 2 * (serial % (_TAGS // 2)) + kind
