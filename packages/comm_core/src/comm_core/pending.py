"""One collective in flight: its buffer, what it waits on, and what is left to do afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from comm_core.errors import CommError, TransportError, first_line


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

    __slots__ = ("__weakref__", "_finish", "_keep", "_work", "shape", "tensor", "what")

    def __init__(
        self, tensor: torch.Tensor, work: Waitable | None = None, keep: object = None, what: str = "collective"
    ) -> None:
        self.tensor = tensor
        self.what = what
        self.shape: tuple[int, ...] = tuple(tensor.shape)
        self._work = work
        self._keep = keep
        self._finish: Callable[[torch.Tensor], torch.Tensor] | None = None

    @property
    def done(self) -> bool:
        """Whether nothing is left to wait for or to rearrange."""
        return self._work is None and self._finish is None

    def then(self, finish: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...]) -> Pending:
        """Add a step that `wait` runs once on the buffer and that gives the result's shape; it must not communicate."""
        before = self._finish
        self._finish = finish if before is None else (lambda x: finish(before(x)))
        self.shape = shape
        return self

    def wait(self) -> torch.Tensor:
        """Block until the result is there and return it; waiting again returns the same tensor.

        Raises:
            TransportError: the transport failed; its own error is the cause.
        """
        if self._work is not None:
            self._wait_for_work(self._work)
        if self._finish is not None:
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
