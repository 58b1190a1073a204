"""The handle that c10d expects of every collective."""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist


class FinishedWork(dist.Work):
    """A collective that was complete when its call returned, whether `async_op` was asked for or not."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        super().__init__()
        self._tensors = tensors

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Return at once."""
        return True

    def synchronize(self) -> None:
        """Return at once."""

    def is_completed(self) -> bool:
        """Return True."""
        return True

    def is_success(self) -> bool:
        """Return True: a collective that fails raises at its call."""
        return True

    def exception(self) -> None:
        """Return None: a collective that fails raises at its call."""

    def result(self) -> list[torch.Tensor]:
        """Return the tensors that the collective wrote."""
        return self._tensors

    def get_future(self) -> torch.futures.Future[list[torch.Tensor]]:
        """Return a future that holds the tensors already."""
        future: torch.futures.Future[list[torch.Tensor]] = torch.futures.Future()
        future.set_result(self._tensors)
        return future
