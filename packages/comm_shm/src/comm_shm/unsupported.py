"""The collectives of c10d that shared memory does not offer yet, refused at the call.

Those that the whole group takes part in are announced to the others first, so that they are refused on every rank at
once, and a rank that called something else is told so instead of waiting for its timeout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, Protocol

OF_THE_GROUP = {"allgather_coalesced": "all_gather"}
OF_TWO_RANKS = {"send": "send", "recv": "recv", "recv_anysource": "recv from any source"}
OF_ONE_RANK = {"_start_coalescing": "coalescing", "_end_coalescing": "coalescing"}


class _Refuser(Protocol):
    def refuse_together(self, collective: str) -> NoReturn: ...

    def refuse_alone(self, operation: str) -> NoReturn: ...


def _together(collective: str) -> Callable[..., NoReturn]:
    def refused(self: _Refuser, *_args: Any, **_kwargs: Any) -> NoReturn:
        self.refuse_together(collective)

    return refused


def _alone(operation: str) -> Callable[..., NoReturn]:
    def refused(self: _Refuser, *_args: Any, **_kwargs: Any) -> NoReturn:
        self.refuse_alone(operation)

    return refused


METHODS: dict[str, Callable[..., NoReturn]] = {
    **{method: _together(collective) for method, collective in OF_THE_GROUP.items()},
    **{method: _alone(operation) for method, operation in (OF_TWO_RANKS | OF_ONE_RANK).items()},
}
