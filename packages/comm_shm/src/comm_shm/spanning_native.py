"""What stands in for the C core in a group on several hosts: the same functions, with the same arguments.

So the whole surface of `SharedMemoryGroup` works on several hosts as it does on one.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

from comm_shm.codes import COLLECTIVES, UNKNOWN
from comm_shm.distant_mail import Letter
from comm_shm.faults import Status
from comm_shm.inside import Call, memory
from comm_shm.post_office import Near, PostOffice
from comm_shm.spanning import Spanning
from comm_shm.turns import Request, Turns

_MOVES = ("announce", "all_reduce_one_of", "broadcast", "all_gather", "reduce_scatter", "all_to_all")


class SpanningNative:
    """The functions of `comm_shm._native` that groups call, for ranks on several hosts.

    Args:
        spanning: the collectives.
    """

    def __init__(self, spanning: Spanning) -> None:
        self._spanning = spanning
        self._turns = Turns()
        self._office = PostOffice(spanning.inside, spanning.across)
        self._owner = os.getpid()
        self._closed = False
        for name in _MOVES:
            setattr(self, name, self._move(name))

    def _move(self, name: str) -> Callable[..., int]:
        def move(_group: Any, *arguments: Any) -> int:
            return self._usable() or self._turns.call(lambda: self._spanning.perform(name, Call(*arguments)))

        return move

    def _usable(self) -> int:
        if os.getpid() != self._owner:
            return Status.FORKED
        return Status.CLOSED if self._closed else Status.OK

    def agree(self, _group: Any, *announced: Any) -> int:
        """Compare what all ranks announce: collective, dtype, reduce op, elements, detail, refusal; then the limit."""
        code, dtype, reduce_op, numel, detail, refusal, limit = announced
        call = Call(code, dtype, numel, detail, 0, 0, 1, limit)
        return self._usable() or self._turns.call(lambda: self._spanning.perform("announce", call, refusal, reduce_op))

    # -- what is started -----------------------------------------------------------------------------------------

    def launch(self, name: str, before: Request | None, _group: Any, *arguments: Any) -> Request | int:
        """Start a collective."""
        call, splits = Call(*arguments), None
        if name == "all_to_all":  # the caller's array may be gone when its turn comes
            splits = memory(call.detail, 16 * self._spanning.hosts.world + 8).clone()
            call = call._replace(detail=splits.data_ptr())

        def body(_kept: object = splits) -> int:
            return self._spanning.perform(name, call)

        return self._usable() or self._turns.start(body, before)

    def launch_late(
        self,
        name: str,
        before: Request | None,
        _group: Any,
        arguments: Callable[[], tuple[Any, ...]],
        *told: Any,
    ) -> Request | int:
        """Start a collective whose arguments are known when its turn comes; where they are not, the ranks are told."""
        code, refusal, limit = told

        def body() -> int:
            try:
                call = Call(*arguments()[1:])
            except Exception as error:
                warnings.warn(f"{COLLECTIVES[code]} is refused: {error!r}", stacklevel=1)
                return self._spanning.perform("announce", Call(code, UNKNOWN, 0, 0, 0, 0, 1, limit), refusal, 0)
            return self._spanning.perform(name, call)

        return self._usable() or self._turns.start(body, before)

    def refuse(self, _group: Any, code: int, dtype: int, numel: int, refusal: int, limit: float) -> Request | int:
        """Start to tell all ranks that this one will not make a call."""
        call = Call(code, dtype, numel, 0, 0, 0, 1, limit)
        return self._usable() or self._turns.start(lambda: self._spanning.perform("announce", call, refusal, 0))

    def post(self, _group: Any, receives: bool, peer: int, tag: int, *content: int) -> Near | Letter | int:
        """Start to send or receive a message: code of its dtype, elements, bytes and address."""
        dtype, numel, size, address = content
        return self._usable() or self._office.post(bool(receives), peer, tag, (dtype, numel, size, address))

    def wait(self, request: Request | Near, timeout_s: float, _help: bool) -> int:
        """Return the status of what was started, once it has one or the time is over."""
        return request.result(timeout_s)

    def finished(self, request: Request | Near) -> bool:
        """Return whether what was started has finished."""
        return request.finished

    def tell(self, request: Request | Near, callable: Callable[[], None]) -> bool:
        """Return whether `callable` will be called when it has finished."""
        return request.tell(callable)

    def drain(self, _group: Any, timeout_s: float) -> int:
        """Run what was started, and write what was sent to ranks of this host."""
        deadline = time.monotonic() + timeout_s
        if not self._turns.drain(timeout_s):
            return Status.TIMED_OUT
        return self._office.drain(max(deadline - time.monotonic(), 0.0))

    # -- what is asked after a failure ---------------------------------------------------------------------------

    def states(self, _group: Any) -> list[tuple[int, ...]]:
        """Return what each rank announced last."""
        return [
            (s.behind, s.dead, s.left, s.serial, s.collective, s.dtype, s.reduce_op, s.numel, s.detail, s.refusal)
            for s in self._spanning.inside.states()
        ]

    def broken(self, _group: Any) -> tuple[int, int]:
        """Return that nothing is known of who failed first: errors say it themselves."""
        return (0, 0)

    def pair(self, _group: Any) -> tuple[int, int, int, int]:
        """Return the splits that do not meet."""
        return self._spanning.pair

    def scene(self, _request: Request) -> None:
        """Return that nothing was kept beside the error itself."""

    def message(self, request: Near | Letter) -> tuple[int, int, int, int, int, int]:
        """Return a message's other end, tag and sizes."""
        return request.described()

    def regret(self, _group: Any, peer: int) -> tuple[int, int, int, int, int, int] | None:
        """Return a message to a rank of this host that was put aside and then did not fit, if there is one."""
        return self._office.regret(peer)

    def arrived(self, _group: Any) -> list[tuple[int, int, int, int, int, int]]:
        """Return the messages that nobody has asked for yet."""
        return self._office.arrived()

    def break_group(self, _group: Any, _status: int) -> None:
        """Let what waits fail, here and on the other ranks."""
        if not self._usable():
            self._spanning.abort()

    def close_group(self, _group: Any) -> None:
        """Close the connections and give the memory back."""
        if self._closed or os.getpid() != self._owner:
            return
        self._closed = True
        self._turns.stop()
        self._office.close()
        self._spanning.inside.native.close_group(self._spanning.inside.handle)
