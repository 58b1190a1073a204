"""One collective in flight: its buffer, what it waits on, and what is left to do afterwards."""

from __future__ import annotations

import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import ClassVar, NoReturn, Protocol

import torch

from comm_core import compat
from comm_core.callsite import Started, place
from comm_core.errors import ArgumentError, CommError, TransportError, UnwaitedWarning, first_line


class Waitable(Protocol):
    """Anything with a blocking `wait`, such as `torch.distributed.Work`."""

    def wait(self) -> object:
        """Block until the work is done, or raise what went wrong."""
        ...


class Pending:
    """The result of a collective that may not have finished.

    Attributes:
        work: what is left to wait for; None when the buffer is ready.
        finish: the step after that, which makes the result of the buffer; None when that is the buffer itself.
        started: who called the collective, where somebody noted it.
        watches_parts: of the class: whether a copy is kept of what is sent where that is a part of a larger tensor.

    Args:
        tensor: the buffer that the collective writes; its contents are undefined until `wait`.
        work: what to wait on, or None when the buffer is ready.
        keep: tensors that must stay alive until then, such as the input.
        what: the collective's name, for the error when it fails.

    Example:
        >>> Pending(torch.ones(2)).then(lambda x: x * 3, shape=(2,)).wait()
        tensor([3., 3.])
    """

    watches_parts: ClassVar[bool] = False

    __slots__ = ("__weakref__", "_keep", "_once", "_sent", "_shape", "finish", "started", "tensor", "what", "work")

    def __init__(
        self, tensor: torch.Tensor, work: Waitable | None = None, keep: object = None, what: str = "collective"
    ) -> None:
        self.tensor = tensor
        self.what = what
        self.work = work
        self._keep = keep
        self._shape: tuple[int, ...] | None = None
        self._sent: tuple[torch.Tensor, int, torch.Tensor | None] | None = None
        self.finish: Callable[[torch.Tensor], torch.Tensor] | None = None
        self._once: AbstractContextManager[bool] | None = None  # entered by the thread that runs it
        self.started: Started | None = None

    @property
    def where(self) -> str:
        """The file and line that started it, where somebody noted that."""
        return "an unknown place" if self.started is None else place(self.started)

    @property
    def done(self) -> bool:
        """Whether nothing is left to wait for or to rearrange."""
        return self.work is None and self.finish is None

    @property
    def shape(self) -> tuple[int, ...]:
        """The result's shape."""
        return tuple(self.tensor.shape) if self._shape is None else self._shape

    def sends(self, x: torch.Tensor, watches_parts: bool = False) -> None:
        """Say what the transport reads; a write to it before `wait` is an error.

        A part of a larger tensor counts its writes together with the rest of it, so a write to it is told from one
        beside it by a copy, which is kept where parts are watched; elsewhere both pass. A tensor that shares its
        storage with the result, as in a gather in place, is not watched.
        """
        if self.work is not None and not x.is_inference():
            copied = (watches_parts or self.watches_parts) and not _fills(x)
            self._sent = (x, compat.version(x), x.clone() if copied else None)

    def watch(self, by: Callable[[Waitable], Waitable]) -> None:
        """Put something around what is waited on, where there is something."""
        if self.work is not None:
            self.work = by(self.work)

    def then(self, finish: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...]) -> Pending:
        """Add a step that makes the result, of the given shape, from the buffer; it must not communicate.

        It runs once: in `wait`, of whichever thread is first, or at once where there is nothing to wait for.
        """
        self._shape = shape
        if self.work is None:
            self.tensor = finish(self.tensor)
            return self
        before = self.finish
        self._once = self._once or threading.RLock()
        self.finish = finish if before is None else (lambda x: finish(before(x)))
        return self

    def wait(self) -> torch.Tensor:
        """Block until the result is there and return it; waiting again returns the same tensor.

        Raises:
            TransportError: the transport failed; its own error is the cause.
            ArgumentError: the input was written while it was being sent, so what arrived is undefined.
        """
        work = self.work
        if work is not None:
            try:
                work.wait()
            except (CommError, RuntimeError) as error:
                self._waited()
                self._raise(error)
            self._waited()
            self.work = None
            self._keep = None
        sent = self._sent  # another thread may be here as well
        if sent is not None:
            x, version, copy = sent
            if compat.version(x) != version:
                self._check_written(x, copy)
            self._sent = None
        if self.finish is not None:
            self._run_finish()
        return self.tensor

    def _waited(self) -> None:
        if self.started is not None:
            _notes.pop(self.started[0], None)

    def _run_finish(self) -> None:
        assert self._once is not None
        with self._once:
            finish = self.finish  # None where another thread was first
            if finish is not None:
                with compat.as_made(self.tensor):
                    self.tensor = finish(self.tensor)
                self.finish = None

    def _check_written(self, x: torch.Tensor, copy: torch.Tensor | None) -> None:
        in_place = x.untyped_storage().data_ptr() == self.tensor.untyped_storage().data_ptr()
        if not in_place and (_fills(x) if copy is None else not _same_bytes(x, copy)):
            raise ArgumentError(
                self.what,
                got=f"an input that was written while it was being sent, after the start at {self.where}",
                need="an input that stays as it is until the result is waited for",
                hint="pass x.clone(), or wait before the write",
            )

    def _raise(self, error: Exception) -> NoReturn:
        if isinstance(error, CommError):
            raise error
        raise TransportError(
            self.what,
            got=f"{first_line(error)} (a {self.tensor.dtype} tensor of shape {self.shape})",
            hint="if the dtype is supported, another rank failed, left or called something else: read its output",
        ) from error


def _fills(x: torch.Tensor) -> bool:
    """Tell whether a tensor is all of its storage."""
    return x.untyped_storage().nbytes() == x.numel() * x.element_size()


def _same_bytes(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Tell whether two tensors of one shape and dtype hold the same, NaN for NaN."""
    return torch.equal(x.reshape(-1).view(torch.uint8), y.reshape(-1).view(torch.uint8))


class Note(weakref.ref[Pending]):
    """That a collective was started: kept until its result is waited for, or is gone, which is reported."""

    __slots__ = ("started", "what")

    started: Started
    what: str


_notes: dict[int, Note] = {}  # by the number of the start


def note(pending: Pending, started: Started) -> None:
    """Note who started what is left to wait for; `noted` has it until its result is waited for, or is gone."""
    if pending.work is None:
        return
    pending.started = started
    made = Note(pending, _report)
    made.started, made.what = started, pending.what
    _notes[started[0]] = made


def _report(gone: Note) -> None:
    """Warn of a result that went before anybody waited for it."""
    _notes.pop(gone.started[0], None)
    if not sys.is_finalizing():
        warnings.warn(
            f"{gone.what}: the result, started at {place(gone.started)}, was dropped before anybody waited for it: use "
            "it, or call wait_tensor on it",
            UnwaitedWarning,
            stacklevel=2,
        )


def noted() -> list[Pending]:
    """Return the collectives of which somebody noted who started them, and nobody has waited for; in any thread.

    Example:
        >>> [one.what for one in noted() if one.what == "none of this name"]
        []
    """
    return [one for note in list(_notes.values()) if (one := note()) is not None]
