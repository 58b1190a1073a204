"""Messages from one rank to another: send, recv and what torch builds on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from comm_core.errors import ArgumentError, CommError, TransportError
from comm_shm.agreement import GLOO
from comm_shm.codes import DTYPE_CODE, UNKNOWN
from comm_shm.entrance import OnlyImagined, no_memory, opened, undense, unreachable
from comm_shm.faults import Status, no_thread
from comm_shm.layout import expanded, flat_of, put, target_of
from comm_shm.message_faults import Message, misfit, undelivered
from comm_shm.movement import Tensors
from comm_shm.room import NoRoom
from comm_shm.rooted import RootedGroup
from comm_shm.torch_compat import written
from comm_shm.work import FinishedWork, Started, StartedWork

ANY_SOURCE = -1


class MessagingGroup(RootedGroup):
    """The point-to-point operations of a group over shared memory.

    A send has finished when the receiver has taken the whole message, so both learn when its size or dtype is not
    what the receiver asked for. Messages of one tag arrive in the order in which they were sent.
    """

    def send(self, tensors: Tensors, dstRank: int, tag: int = 0) -> StartedWork | FinishedWork:
        """Start to send a tensor to a rank.

        Args:
            tensors: a list of just the tensor; of any strides.
            dstRank: the receiver's rank in the group; this rank's own is allowed.
            tag: 0 or more; the receiver asks for the same.

        Raises:
            MismatchError: from `wait`, on both ranks: the receiver had asked for another size or dtype. Also at the
                call, when that was found out about an earlier message after its send had finished.
            RankFailedError: from `wait`: the receiver has ended or left; within a second.
            RankTimeoutError: from `wait`: the receiver did not ask for it in time.
            TransportError: another device or layout.
        """
        try:
            x = self._one("send", tensors, tag, writes=False)
        except OnlyImagined:
            return FinishedWork(tensors)
        if not x.is_cpu:
            return self._hand_on("send", x, (tensors, dstRank, tag))
        address = self._peer("send", dstRank), tag
        return self._start([self._posted("send", self._roomy("send", flat_of, x), address)], [x])

    def recv(self, tensors: Tensors, srcRank: int, tag: int = 0) -> StartedWork | FinishedWork:
        """Start to receive a tensor from a rank.

        Args:
            tensors: a list of just the tensor, of any strides; of the size and dtype that is sent.
            srcRank: the sender's rank in the group.
            tag: what the sender gave it.

        Raises:
            MismatchError: from `wait`, on both ranks: another size or dtype was sent; nothing was written.
            RankFailedError: from `wait`: the sender has ended or left; within a second.
            RankTimeoutError: from `wait`: no such message came in time; what came instead is named.
            TransportError: another device or layout.
        """
        return self._receive(tensors, self._peer("recv", srcRank), tag)

    def recv_anysource(self, tensors: Tensors, tag: int = 0) -> StartedWork | FinishedWork:
        """Start to receive a tensor from whichever rank sends one of that tag first; the work knows from which.

        Raises:
            MismatchError: from `wait`, as in `recv`.
            RankFailedError: from `wait`: a rank has ended, or all others have left.
        """
        return self._receive(tensors, ANY_SOURCE, tag)

    def failure(self, status: int, started: Started, limit: float) -> CommError:
        """Return the error for a status."""
        if not started.message:
            return super().failure(status, started, limit)
        scene, message = self._scene(started.where, limit), Message(*self._native.message(started.request))
        if status == Status.MISFIT:
            return misfit(started.where, scene, message, sent=started.where == "send")
        arrived = [Message(*one) for one in self._native.arrived(self._handle)]
        return undelivered(Status(status), scene, message, arrived)

    def _receive(self, tensors: Tensors, peer: int, tag: int) -> StartedWork | FinishedWork:
        try:
            x = self._one("recv", tensors, tag, writes=True)
        except OnlyImagined:
            return FinishedWork(tensors)
        if not x.is_cpu:
            name, given = ("recv_anysource", (tensors, tag)) if peer < 0 else ("recv", (tensors, peer, tag))
            return self._hand_on(name, x, given)
        target = self._roomy("recv", target_of, x)
        part = self._posted("recv", target, (peer, tag))
        written((target,))
        return self._start([part if target is x else part._replace(finish=lambda: put(x, target))], [x])

    def _posted(self, where: str, flat: torch.Tensor, address: tuple[int, int]) -> Started:
        dtype, sends = DTYPE_CODE.get(flat.dtype, UNKNOWN), where == "send"
        peer, tag = address
        post = self._native.post
        try:
            request = post(self._handle, not sends, peer, tag, dtype, flat.numel(), flat.nbytes, flat.data_ptr())
        except OSError as error:
            raise no_thread(where, error) from error
        if isinstance(request, int):
            regret = self._native.regret(self._handle, peer) if request == Status.MISFIT else None
            if regret is not None:
                raise misfit("send", self._scene("send", 0.0), Message(*regret), sent=True, late=True)
            raise self._fault(request, where, 0.0)
        return Started(request, where, None, (flat,), self._timeout_s, True)

    def _hand_on(self, name: str, x: torch.Tensor, given: tuple[Any, ...]) -> StartedWork:
        """Refuse a tensor of another device; a group that has a backend for it hands it on."""
        raise TransportError(name, got=f"a tensor on {x.device}", need="CPU tensors", hint=GLOO)

    # -- what is refused: by this rank alone, because the other ranks may be elsewhere -----------------------------

    def _peer(self, where: str, peer: int) -> int:
        if not 0 <= peer < self._world:
            raise ArgumentError(where, got=f"rank {peer}", need=f"a rank from 0 to {self._world - 1}")
        return peer

    def _roomy(self, where: str, make: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        try:
            return make(x)
        except NoRoom as none:
            raise none.error(where) from none.__cause__

    def _one(self, where: str, tensors: Tensors, tag: int, writes: bool) -> torch.Tensor:
        if tag < 0:
            raise ArgumentError(where, got=f"tag {tag}", need="a tag of 0 or more")
        if len(tensors) != 1:
            raise ArgumentError(where, got=f"{len(tensors)} tensors", need="one", hint="make one call for each")
        x = tensors[0]
        sparse_or_other = undense(where, x)
        if sparse_or_other is not None:
            raise sparse_or_other
        if not x.is_cpu:
            return x  # for whoever it is handed on to
        x = opened(where, x)
        if unreachable(x):
            raise no_memory(where, x)
        if writes and not x.is_contiguous() and expanded(x):
            got = "an expanded tensor, whose elements share memory"
            raise TransportError(where, got=got, need="a tensor that can be written", hint="pass x.contiguous()")
        return x
