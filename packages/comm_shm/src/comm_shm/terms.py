"""What a caller adds to the tensors of a c10d call: an options object, or the same as loose arguments."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

NONE = timedelta(0)


class Terms(NamedTuple):
    """The terms of a call, from any of the forms that `dist.ProcessGroup` takes."""

    op: Any = None
    """The reduce op, None for a sum."""
    root: int = 0
    """The rank in the group that gives or gets."""
    timeout: timedelta | None = None
    """How long to wait, None for the group's."""
    later: bool = True
    """Whether the call may return before the collective has run."""


def starts(*given: Any) -> bool:
    """Return whether a call with these arguments is started, and not waited for: unless its options say otherwise.

    Example:
        >>> starts([], 1, None)
        True
    """
    return all(value.asyncOp for value in given if hasattr(value, "asyncOp"))


def terms(*given: Any, **named: Any) -> Terms:
    """Return the terms that stand in arguments in any order: options, a reduce op, a root, a timeout.

    c10d's own default is to start the collective and to return: a caller that wants to wait sets `opts.asyncOp`, as
    `dist.all_reduce` and its like do, or calls `wait()`.

    Example:
        >>> terms(1, timedelta(seconds=2), op="max")
        Terms(op='max', root=1, timeout=datetime.timedelta(seconds=2), later=True)
    """
    op, root, timeout, later = Terms()
    for value in (*given, *named.values()):
        if value is None:
            continue
        if isinstance(value, timedelta):
            timeout = value
        elif isinstance(value, int):
            root = value
        elif hasattr(value, "asyncOp"):
            op, root = getattr(value, "reduceOp", op), getattr(value, "rootRank", root)
            timeout, later = value.timeout, value.asyncOp
        else:
            op = value
    return Terms(op, root, timeout if timeout is not None and timeout > NONE else None, later)
