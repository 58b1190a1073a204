"""Memory for the copies that a call needs before it can be announced, and the error where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from comm_core.errors import TransportError

WHY = "no room for a copy of its tensors"


class NoRoom(Exception):
    """There is no memory for a copy of the tensors of a call, of which nothing has been announced yet.

    Args:
        tensors: what was to be copied, or what as much room was needed for.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._bytes = sum(x.nbytes for x in tensors)
        super().__init__(self._bytes)
        first = tensors[0]
        self._shapes = f"shape {tuple(first.shape)}" if len(tensors) == 1 else f"{len(tensors)} shapes"
        self._dtype = first.dtype

    def error(self, where: str) -> TransportError:
        """Return what the caller is to see."""
        return TransportError(
            where,
            got=f"no memory for {self._bytes} bytes, as much as tensors of {self._shapes} and {self._dtype} take",
            need="room for a copy of what does not lie in memory as the collective has it",
            hint="pass contiguous tensors, or raise the memory limit; nothing was sent, and the group goes on",
        )


def copied(make: Callable[[], torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
    """Return what `make` makes, outside of autograd.

    Args:
        make: what takes the memory.
        tensors: what it copies, or takes as much room as.

    Raises:
        NoRoom: there is no memory for it.

    Example:
        >>> copied(lambda: torch.cat([torch.ones(1), torch.zeros(1)]), torch.ones(1), torch.zeros(1))
        tensor([1., 0.])
    """
    try:
        with torch.no_grad():
            return make()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise NoRoom(tensors) from error


def out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Return whether an error says that there is no memory: torch has no kind of its own for it on the CPU.

    Example:
        >>> out_of_memory(RuntimeError("you tried to allocate 8 bytes"))
        True
    """
    return isinstance(error, MemoryError) or "tried to allocate" in str(error)  # torch's allocator
