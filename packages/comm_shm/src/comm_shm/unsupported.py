"""The collectives of c10d that shared memory does not offer yet, refused at the call.

Those that the whole group takes part in are announced to the others first, so that they are refused on every rank at
once, and a rank that called something else is told so instead of waiting for its timeout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, Protocol

# c10d has several names for one collective; both spellings of a renamed method stand here (torch 2.11 to 2.14).
OF_THE_GROUP = {
    "allreduce_coalesced": "all_reduce_coalesced",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "allgather": "all_gather",
    "_allgather_base": "all_gather",
    "all_gather_single": "all_gather",
    "allgather_coalesced": "all_gather",
    "allgather_into_tensor_coalesced": "all_gather",
    "all_gather_single_coalesced": "all_gather",
    "gather": "gather",
    "scatter": "scatter",
    "reduce_scatter": "reduce_scatter",
    "_reduce_scatter_base": "reduce_scatter",
    "reduce_scatter_single": "reduce_scatter",
    "reduce_scatter_tensor_coalesced": "reduce_scatter",
    "reduce_scatter_single_coalesced": "reduce_scatter",
    "alltoall": "all_to_all",
    "alltoall_base": "all_to_all",
    "all_to_all_single": "all_to_all",
}
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
