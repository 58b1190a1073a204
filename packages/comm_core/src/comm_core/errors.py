"""Every error that commbook raises for a user's mistake or a failed transport, in one tree.

A `CommError` says where it happened, what was got, what is needed and what to try. Each subclass is also the
builtin exception that Python programmers expect for that kind of mistake, so `except ValueError` works too.
"""

from __future__ import annotations

from typing import Self


def said(value: object) -> str:
    """Return a value as a message may show it: itself if it is small and plain, else its type.

    Example:
        >>> said([1, 2]), said(3.5), said(object())
        ('[1, 2]', '3.5', 'a value of type object')
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (list, tuple)) and all(isinstance(item, (bool, int, float, str)) for item in value):
        return repr(list(value)) if len(value) <= 16 else f"a list of {len(value)}"
    return f"a value of type {type(value).__name__}"


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's text, or its type if it has none.

    Example:
        >>> first_line(RuntimeError("connection reset\nby peer")), first_line(ValueError(""))
        ('connection reset', 'ValueError')
    """
    return next(iter(str(error).splitlines()), "") or type(error).__name__


class CommError(Exception):
    """The base of all errors of commbook.

    Args:
        where: the collective, function or argument that refuses, for example `"all_gather"`.
        got: what was passed or found, in words; never the contents of a tensor.
        need: what would have been accepted.
        hint: what to try next.

    Example:
        >>> error = ShapeError("all_gather", got="dim 3", need="a dim from -2 to 1", hint="pass dim=-1")
        >>> str(error)
        'all_gather: got dim 3; need a dim from -2 to 1; pass dim=-1'
        >>> isinstance(error, ValueError)
        True
    """

    def __init__(self, where: str, got: str = "", need: str = "", hint: str = "") -> None:
        # Not by super().__init__, which Dynamo cannot trace: so its message shows these words.
        self.args = (where, got, need, hint)
        self.where = where
        self.got = got
        self.need = need
        self.hint = hint

    def again(self) -> Self:
        """Return the same error anew: one that several ranks raise must not share a traceback."""
        return type(self)(self.where, self.got, self.need, self.hint)

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, str, str]]:
        return type(self), (self.where, self.got, self.need, self.hint)

    def __str__(self) -> str:
        parts = [f"got {self.got}" if self.got else "", f"need {self.need}" if self.need else "", self.hint]
        said = "; ".join(part for part in parts if part)
        return f"{self.where}: {said}" if said else self.where


class ArgumentError(CommError, ValueError):
    """An argument has a value that the function cannot work with."""


class GroupError(CommError, ValueError):
    """What was passed as a group names no process group, or one that this rank is not in."""


class RankError(CommError, ValueError):
    """A source, destination or permutation names ranks that the group does not have."""


class ReduceOpError(CommError, ValueError):
    """The reduce op is unknown, or undefined for this dtype or backend."""


class ShapeError(CommError, ValueError):
    """A dim, size or split list does not fit the tensor or the group."""


class DtypeError(CommError, TypeError):
    """The dtype or type of an argument is not one that the collective takes."""


class PlacementError(CommError, ValueError):
    """A DTensor placement is missing, unknown or does not fit the argument it was given for."""


class GradientError(CommError, RuntimeError):
    """A gradient is required of something that has none."""


class MismatchError(CommError, RuntimeError):
    """The ranks of a group did not call the same collective with agreeing arguments."""


class DeadlockError(CommError, RuntimeError):
    """Every rank still running waits for another one, so none can go on."""


class TransportError(CommError, RuntimeError):
    """The layer that moves the bytes failed or cannot do what was asked."""


class RankFailedError(CommError, RuntimeError):
    """A rank raised or died; its own traceback is in the message."""


class RankTimeoutError(CommError, TimeoutError):
    """A rank did not finish or arrive within the time limit."""


class UnwaitedWarning(UserWarning):
    """A collective was started, and nobody waited for its result."""
