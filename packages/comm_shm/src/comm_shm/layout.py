"""Tensors of any strides, seen as the contiguous memory that the C core reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from comm_shm.codes import OF_PARTS_OF_BYTES, PREMUL_SUM
from comm_shm.room import copied
from comm_shm.torch_compat import premul_factor


def plain(x: torch.Tensor) -> bool:
    """Return whether a tensor's elements lie in memory one after the other, as they are."""
    return x.is_contiguous() and not x.is_neg() and not x.is_conj()


def copyable(x: torch.Tensor) -> torch.Tensor:
    """Return the tensor, or its bytes where it is of a dtype of less than a byte, which torch does not copy.

    Example:
        >>> copyable(torch.empty(3, dtype=torch.uint4)).dtype
        torch.uint8
    """
    return x.view(torch.uint8) if x.dtype in OF_PARTS_OF_BYTES else x


def flat_of(x: torch.Tensor) -> torch.Tensor:
    """Return the elements as they lie in memory when the tensor is contiguous, else a copy that is."""
    if plain(x):
        return x
    return copied(lambda: copyable(x.detach().resolve_neg().resolve_conj()).contiguous().view(x.dtype), x)


def target_of(out: torch.Tensor) -> torch.Tensor:
    """Return where to write: the tensor itself, or room for what is then put into it."""
    if plain(out):
        return out
    return copied(lambda: torch.empty(out.shape, dtype=out.dtype), out)


def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the elements of several tensors, one after the other.

    Example:
        >>> joined([torch.ones(2).T, torch.zeros(1, 1)])
        tensor([1., 1., 0.])
    """
    return copied(lambda: torch.cat([flat_of(part).view(-1) for part in parts]), *parts)


def room_for_all(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return room for the elements of several tensors of one dtype, one after the other."""
    return copied(lambda: parts[0].new_empty(sum(part.numel() for part in parts)), *parts)


def put(out: torch.Tensor, flat: torch.Tensor) -> None:
    """Copy a result to where it belongs, unless it is there."""
    if flat is not out and (flat.data_ptr() != out.data_ptr() or out.is_neg() or out.is_conj()):
        with torch.no_grad():
            copyable(out.detach()).copy_(copyable(flat.view(out.shape)))


def apart(
    part: torch.Tensor, whole: torch.Tensor, place: int | None, given: torch.Tensor | None = None
) -> torch.Tensor:
    """Return `given`, by default `part`, or a copy where the two overlap other than element for element at `place`."""
    source = part if given is None else given
    begin, start = part.data_ptr(), whole.data_ptr()
    size, total = part.numel() * part.element_size(), whole.numel() * whole.element_size()
    if begin >= start + total or start >= begin + size:
        return source
    fits = place is not None and begin == start + place * part.element_size()
    return source if fits else cloned(source)


def cloned(x: torch.Tensor) -> torch.Tensor:
    """Return a copy of a tensor."""
    return copied(lambda: copyable(x).clone().view(x.dtype), x)


def scaled(flat: torch.Tensor, op: Any, code: int) -> torch.Tensor:
    """Return this rank's input of a reduction: multiplied by its factor where there is one."""
    return flat if code != PREMUL_SUM else copied(lambda: flat * premul_factor(op), flat)


def expanded(x: torch.Tensor) -> bool:
    """Return whether several elements of a tensor share memory, so that it cannot be written."""
    return any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True))
