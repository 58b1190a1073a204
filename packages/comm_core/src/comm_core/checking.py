"""Checked mode: before data moves, the ranks of a group compare what each of them is about to do.

It stands where every eager call passes on its way to a process group (`execution.launch_parsed`, `wires.transport`). In
the simulator there is nothing to switch on: it always compares.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from comm_core import compat
from comm_core.agreement import Agreement, own_address
from comm_core.callsite import caller, place
from comm_core.collective import Collective, Params
from comm_core.errors import ArgumentError, CommError, UnwaitedWarning, said
from comm_core.groups import AnyGroup, Group, GroupLike, as_group
from comm_core.messages import Messages
from comm_core.notices import Notices, Watched, ends_in
from comm_core.pending import Pending, noted
from comm_core.verdicts import Said, said_of, said_of_list

_DEFAULT_LIMIT_S = 300.0
MESSAGES = "batch_p2p"
_UNCHECKABLE = ("fake",)  # backends whose other ranks are not there


@dataclass(frozen=True, slots=True)
class Mode:
    """That calls are checked, and for how long a rank waits for the others; None is the group's own time limit."""

    limit_s: float | None = None


mode: Mode | None = None


_always = [Mode()] if os.environ.get("COMM_CHECKED", "0") not in ("", "0") else []
_open: list[Mode] = []  # of the blocks that are open: simulated ranks are threads, and leave theirs in any order
_switching = threading.Lock()


def _switch(enter: Mode | None = None, leave: Mode | None = None) -> None:
    """Open a block or close one; the mode is that of the block that was opened last."""
    global mode
    with _switching:
        if enter is not None:
            _open.append(enter)
        if leave is not None:
            _open[:] = [one for one in _open if one is not leave]
        mode = next(reversed([*_always, *_open]), None)
        Pending.watches_parts = mode is not None


_switch()


@contextlib.contextmanager
def checked(timeout_s: float | None = None) -> Iterator[None]:
    """Compare, before each eager collective in the block, what all ranks of the group are about to do.

    All ranks of a group must be in checked mode for the same calls. `COMM_CHECKED=1` in the environment of every rank
    does the same for a whole program. Calls in compiled graphs are not compared, whether the block is around the
    compiled code or in it.

    Args:
        timeout_s: how long a rank waits for the others to come to a call; None is the group's own time limit.

    Raises:
        ArgumentError: the time limit is not a positive number.
        MismatchError: at a collective in the block, on every rank: calls differ, or a rank refused its own.
        RankTimeoutError: there too: ranks did not come in time; they are named, with what they did last, and where.
        RankFailedError: there too: ranks have ended; they are named.

    Example:
        >>> from comm_core import World, catalog, run
        >>> def body(group):
        ...     with checked():
        ...         return run(catalog.ALL_REDUCE, torch.ones(1), group, reduce_op="sum").item()
        >>> World(2).run(body)
        [2.0, 2.0]

    Source: TORCH_DISTRIBUTED_DEBUG=DETAIL compares operations and shapes before each collective.
    """
    if timeout_s is not None and (not isinstance(timeout_s, (int, float)) or timeout_s <= 0):
        raise ArgumentError("checked", f"timeout_s={said(timeout_s)}", "a positive number of seconds, or None")
    if torch.compiler.is_dynamo_compiling():  # calls in graphs are not compared; nor has a graph lines to report
        yield
        return
    own = Mode(timeout_s)
    _switch(enter=own)
    first = caller()[0]
    try:
        yield
        _report_unwaited(first)
    finally:
        _switch(leave=own)


def agree(group: AnyGroup, entry: Collective, x: torch.Tensor, params: Params) -> None:
    """Compare a call, whose parameters `check` has parsed, with the other ranks' calls.

    Raises:
        CommError: as `checked` says, on every rank.
    """
    if entry.agrees(x, **params):  # else it is no meeting of the ranks, such as a wait
        _meet(group, said_of(entry, x, params, place(caller())))


def agree_on_list(
    group: AnyGroup, entry: Collective, xs: Sequence[torch.Tensor], params: Sequence[Params], where: str
) -> None:
    """Compare a call on a list of tensors, where checked mode is on.

    Raises:
        CommError: as `checked` says, on every rank.
    """
    if mode is not None:
        _meet(group, said_of_list(entry, xs, params, where, place(caller())))


def refuse(group: GroupLike, where: str, error: CommError, params: Params | None = None) -> None:
    """Tell the other ranks, in checked mode, that this one cannot make its call, so that none of them waits for it.

    It returns when they know; the caller then raises its own error. Where the group itself is wrong, there is
    nobody to tell. Of messages only those hear that `params` names.
    """
    if mode is None or where == "wait":
        return
    with contextlib.suppress(CommError):
        on = as_group(group)
        if where != MESSAGES:
            _meet(on, Said(where, "", place(caller()), str(error)))
        elif _compares(on):
            _notices(on).leave(ends_in(params or {}, on), f"{error}, at {place(caller())}")


def watched(group: AnyGroup, start: Callable[[], Pending], params: Params) -> Pending:
    """Start messages, and let whoever waits for them hear that another end has refused its call, or does not come."""
    if mode is None or not _compares(group):
        return start()
    notices, limit_s = _notices(group), mode.limit_s or _own_limit_s(group)
    with refusing(group, MESSAGES, params):
        pending = start()
    ends = ends_in(params, group)
    notices.withdraw(ends)
    if not pending.tensor.is_cuda:  # there a wait holds up no program
        pending.watch(lambda work: Watched(work, notices, ends, limit_s))
    return pending


class refusing:  # a class, and not a generator: it stands in functions that Dynamo walks
    """Tell the other ranks, in checked mode, of an error that the block raises; compiled calls are not compared.

    Args:
        group: the group of the call; parsed only where there is something to tell.
        where: the name of the call.
        params: of messages, who they are with.
    """

    def __init__(self, group: GroupLike, where: str, params: Params | None = None) -> None:
        self._group = group
        self._where = where
        self._params = params

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CommError) and not torch.compiler.is_dynamo_compiling():
            refuse(self._group, self._where, error, self._params)


def _compares(group: AnyGroup) -> bool:
    return not group.is_simulated and group.backend not in _UNCHECKABLE


def _meet(group: AnyGroup, mine: Said) -> None:
    if mode is None or not _compares(group):
        return
    kept = cast(Group, group).kept
    if "agreement" not in kept:
        store = group.process_group.get_group_store()
        kept["agreement"] = Agreement(group, store, own_address(store))
    cast(Agreement, kept["agreement"]).meet(mine, mode.limit_s or _own_limit_s(group))


def _own_limit_s(group: AnyGroup) -> float:
    """Return the group's own time limit, which is read once."""
    kept = cast(Group, group).kept
    if "limit_s" not in kept:
        kept["limit_s"] = compat.timeout_of(group.process_group) or _DEFAULT_LIMIT_S
    return cast(float, kept["limit_s"])


def _notices(group: AnyGroup) -> Notices:
    """Return this rank's notices of a group, made once."""
    kept = cast(Group, group).kept
    if "notices" not in kept:
        kept["notices"] = Notices(group.rank, group.process_group.get_group_store())
    return cast(Notices, kept["notices"])


def _report_unwaited(first: int) -> None:
    """Warn of what was started in a block that is over, and has not been waited for."""
    for one in noted():
        started = one.started
        if started is not None and started[0] > first and not one.done:
            warnings.warn(
                f"{one.what}: the result, started at {place(started)}, was not waited for in the checked block",
                UnwaitedWarning,
                stacklevel=4,
            )


class CheckedTransport:
    """A transport whose every collective is compared with the other ranks' before it starts.

    Args:
        wire: what moves the data.
        group: whose ranks compare.
    """

    def __init__(self, wire: Any, group: AnyGroup) -> None:
        self.rank = wire.rank
        self.world = wire.world
        self._wire = wire
        self._group = group

    def _compare(self, name: str, x: torch.Tensor, **params: Any) -> None:
        from comm_core.catalog import CATALOG

        entry = CATALOG[name]
        with refusing(self._group, name):
            parsed = entry.check(x, self.world, self.rank, **params)
        agree(self._group, entry, x, parsed)

    def all_reduce(self, x: torch.Tensor, reduce_op: str, out: torch.Tensor | None = None) -> Pending:
        """Compare, then reduce."""
        self._compare("all_reduce", x, reduce_op=reduce_op)
        return cast(Pending, self._wire.all_reduce(x, reduce_op, out))

    def all_gather(self, x: torch.Tensor, out: torch.Tensor | None = None) -> Pending:
        """Compare, then gather."""
        self._compare("all_gather", x, dim=0)
        return cast(Pending, self._wire.all_gather(x, out))

    def all_gather_v(self, x: torch.Tensor, sizes: Sequence[int], out: torch.Tensor | None = None) -> Pending:
        """Compare, then gather blocks of several sizes."""
        self._compare("all_gather_v", x, dim=0, sizes=tuple(sizes))
        return cast(Pending, self._wire.all_gather_v(x, sizes, out))

    def reduce_scatter(self, x: torch.Tensor, reduce_op: str, out: torch.Tensor | None = None) -> Pending:
        """Compare, then reduce and scatter."""
        self._compare("reduce_scatter", x, reduce_op=reduce_op, dim=0)
        return cast(Pending, self._wire.reduce_scatter(x, reduce_op, out))

    def all_to_all(
        self,
        x: torch.Tensor,
        output_splits: Sequence[int],
        input_splits: Sequence[int],
        out: torch.Tensor | None = None,
    ) -> Pending:
        """Compare, then exchange."""
        self._compare("all_to_all", x, output_splits=tuple(output_splits), input_splits=tuple(input_splits))
        return cast(Pending, self._wire.all_to_all(x, output_splits, input_splits, out))

    def broadcast(self, x: torch.Tensor, src: int, out: torch.Tensor | None = None) -> Pending:
        """Compare, then broadcast."""
        self._compare("broadcast", x, src=src)
        return cast(Pending, self._wire.broadcast(x, src, out))

    def reduce(self, x: torch.Tensor, reduce_op: str, dst: int, out: torch.Tensor | None = None) -> Pending:
        """Compare, then reduce to one rank."""
        self._compare("reduce", x, reduce_op=reduce_op, dst=dst)
        return cast(Pending, self._wire.reduce(x, reduce_op, dst, out))

    def batch_p2p(
        self,
        x: torch.Tensor,
        sends: Messages,
        receives: Messages,
        out: torch.Tensor | None = None,
        reverse: bool = False,
    ) -> Pending:
        """Exchange messages, which only their two ends know of."""
        start = functools.partial(self._wire.batch_p2p, x, sends, receives, out, reverse)
        return watched(self._group, start, {"sends": sends, "receives": receives})

    def wait(self, x: torch.Tensor) -> Pending:
        """Wait as the wire does."""
        return cast(Pending, self._wire.wait(x))
