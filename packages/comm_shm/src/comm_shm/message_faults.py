"""From a message that did not get through to an error that names both ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from comm_core.errors import CommError, MismatchError, RankFailedError, RankTimeoutError, TransportError
from comm_shm.codes import DTYPES, UNKNOWN
from comm_shm.faults import LEFT, REBUILD, Scene, Status, fault, last_of


class Message(NamedTuple):
    """A message as the C core describes it."""

    rank: int
    """The other end's rank in the group, -1 for a receive from anyone."""
    tag: int
    """Its tag."""
    dtype: int
    """Code of the dtype that was sent, or asked for while nothing has come."""
    numel: int
    """How many elements."""
    wanted_dtype: int
    """Code of the dtype that the receiver asked for, once there is something to compare."""
    wanted_numel: int
    """How many elements it asked for."""


def sized(numel: int, dtype: int) -> str:
    """Return a message's size in words.

    Example:
        >>> sized(4, 0)
        '4 float32'
    """
    return f"{numel} {'of another dtype' if dtype == UNKNOWN else str(DTYPES[dtype]).removeprefix('torch.')}"


def misfit(where: str, scene: Scene, message: Message, *, sent: bool, late: bool = False) -> MismatchError:
    """Return the error of a message whose receiver asked for something else, for either end."""
    me, other = scene.name(scene.rank), scene.name(message.rank)
    sender, receiver = (me, other) if sent else (other, me)
    what = f"{sized(message.numel, message.dtype)} of tag {message.tag}, sent by {sender}"
    wanted = sized(message.wanted_numel, message.wanted_dtype)
    earlier = "; that was in an earlier call, and the message of this one was not sent" if late else ""
    return MismatchError(
        where,
        got=f"{what}, where {receiver} asked for {wanted}{earlier}",
        need="one size and dtype in send and recv",
        hint="the message was dropped, and nothing was written; look at both calls",
    )


def undelivered(status: Status, scene: Scene, message: Message, arrived: Sequence[Message]) -> CommError:
    """Return the error of a message that did not get through."""
    what = f"of {sized(message.numel, message.dtype)} with tag {message.tag}"
    sends = scene.where == "send"
    other = scene.name(message.rank) if message.rank >= 0 else "any rank"
    match status:
        case Status.TIMED_OUT:
            return _late(scene, message, f"no {'recv' if sends else 'send'} {what} by {other}", arrived)
        case Status.DIED | Status.LEFT:
            happened = "has ended" if status is Status.DIED else LEFT
            did = "took" if sends else "sent"
            return RankFailedError(
                scene.where,
                got=f"{other}, which {happened} before it {did} the message {what}",
                need="both ranks of a message",
                hint=f"look at its output; then {REBUILD}",
            )
        case Status.CUT:
            return RankFailedError(
                scene.where,
                got=f"a sender ({other if not sends else 'this rank'}) that gave up in the middle of a message",
                need="messages that are sent to their end",
                hint=f"look why that send failed; then {REBUILD}",
            )
        case Status.NO_ROOM:
            return TransportError(
                scene.where,
                got=f"no memory for a message {what}{_came(scene, message, arrived)}",
                need="room for a ring to that rank, and for messages that come before they are asked for",
                hint="post receives in the order of the sends, or raise the memory limit",
            )
        case _:
            return fault(status, scene)


def _came(scene: Scene, message: Message, arrived: Sequence[Message]) -> str:
    """Return what else there is of the rank, or the ranks, that a message was asked of."""
    others = [one for one in arrived if message.rank in (one.rank, -1)] if scene.where == "recv" else []
    return "".join(f"; {scene.name(o.rank)} sent {sized(o.numel, o.dtype)} with tag {o.tag}" for o in others)


def _late(scene: Scene, message: Message, got: str, arrived: Sequence[Message]) -> CommError:
    came = _came(scene, message, arrived)
    last = f" (its last collective: {last_of(scene.states[message.rank])})" if message.rank >= 0 else ""
    return RankTimeoutError(
        scene.where,
        got=f"{got} within {scene.timeout_s:g} s{last}{came}",
        need="a send and a recv that meet",
        hint="see where that rank is and which tag it uses, or give a longer timeout",
    )
