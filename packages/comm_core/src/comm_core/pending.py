"""One collective in flight: its buffer, what it waits on, and what is left to do afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from comm_core import compat
from comm_core.errors import ArgumentError, CommError, TransportError, first_line


class Waitable(Protocol):
    """Anything with a blocking `wait`, such as `torch.distributed.Work`."""

    def wait(self) -> object:
        """Block until the work is done, or raise what went wrong."""
        ...


class Pending:
    """The result of a collective that may not have finished.

    Attributes:
        shape: the result's shape.

    Args:
        tensor: the buffer that the collective writes; its contents are undefined until `wait`.
        work: what to wait on, or None when the buffer is ready.
        keep: tensors that must stay alive until then, such as the input.
        what: the collective's name, for the error when it fails.

    Example:
        >>> Pending(torch.ones(2)).then(lambda x: x * 3, shape=(2,)).wait()
        tensor([3., 3.])
    """

    __slots__ = ("__weakref__", "_finish", "_keep", "_sent", "_work", "shape", "tensor", "what")

    def __init__(
        self, tensor: torch.Tensor, work: Waitable | None = None, keep: object = None, what: str = "collective"
    ) -> None:
        self.tensor = tensor
        self.what = what
        self.shape: tuple[int, ...] = tuple(tensor.shape)
        self._work = work
        self._keep = keep
        self._sent: tuple[torch.Tensor, int] | None = None
        self._finish: Callable[[torch.Tensor], torch.Tensor] | None = None

    @property
    def done(self) -> bool:
        """Whether nothing is left to wait for or to rearrange."""
        return self._work is None and self._finish is None

    def sends(self, x: torch.Tensor) -> None:
        """Say what the transport reads; a write to it before `wait` is an error.

        Only a tensor that fills its storage is watched: a write to another part of it would look the same. Nor is one
        that shares its storage with the result, as in a gather in place.
        """
        storage = x.untyped_storage()
        fills = storage.nbytes() == x.numel() * x.element_size()
        in_place = storage.data_ptr() == self.tensor.untyped_storage().data_ptr()
        if self._work is not None and fills and not in_place and not x.is_inference():
            self._sent = (x, compat.version(x))

    def then(self, finish: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...]) -> Pending:
        """Add a step that makes the result, of the given shape, from the buffer; it must not communicate.

        It runs once: in `wait`, or at once where there is nothing to wait for.
        """
        self.shape = shape
        if self._work is None:
            self.tensor = finish(self.tensor)
            return self
        before = self._finish
        self._finish = finish if before is None else (lambda x: finish(before(x)))
        return self

    def wait(self) -> torch.Tensor:
        """Block until the result is there and return it; waiting again returns the same tensor.

        Raises:
            TransportError: the transport failed; its own error is the cause.
            ArgumentError: the input was written while it was being sent, so what arrived is undefined.
        """
        if self._work is not None:
            self._wait_for_work(self._work)
        if self._sent is not None and compat.version(self._sent[0]) != self._sent[1]:
            raise ArgumentError(
                self.what,
                got="an input that was written while it was being sent",
                need="an input that stays as it is until the result is waited for",
                hint="pass x.clone(), or wait before the write",
            )
        self._sent = None
        if self._finish is not None:
            with compat.as_made(self.tensor):
                self.tensor = self._finish(self.tensor)
            self._finish = None
        return self.tensor

    def _wait_for_work(self, work: Waitable) -> None:
        try:
            work.wait()
        except CommError:
            raise
        except RuntimeError as error:
            raise TransportError(
                self.what,
                got=f"{first_line(error)} (a {self.tensor.dtype} tensor of shape {self.shape})",
                hint="if the dtype is supported, another rank failed, left or called something else: read its output",
            ) from error
        self._work = None
        self._keep = None
