"""Memory of which each rank of a group owns a part and maps all: how it is laid out, set aside and mapped.

One anonymous file for all ranks: first a table of signals, then the ranks' parts one after the other, so that all of
them together can be looked at as one tensor. Rank 0 makes the file, and every rank sets the memory of its own part
aside, which puts it where that rank runs. The file is closed once all have it mapped; it goes with the last mapping.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from comm_core.errors import ArgumentError, CommError, MismatchError, TransportError, first_line, said
from comm_shm.codes import DTYPE_CODE
from comm_shm.control import Control
from comm_shm.memory_left import room_bytes

CHANNELS = 16
_CHANNEL_BYTES = 16  # sizeof(shm_channel)
_LINE = 64
_PAGE = 4096
_WHERE = "symmetric empty"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in the file of an allocation.

    Args:
        world: how many ranks have a part.
        part_bytes: what each of them asked for.

    Example:
        >>> Layout(world=2, part_bytes=100).total_bytes
        4352
    """

    world: int
    part_bytes: int

    @property
    def front_bytes(self) -> int:
        """The table of signals: for each rank, from each rank, on each channel."""
        return _up(self.world * self.world * CHANNELS * _CHANNEL_BYTES, _PAGE)

    @property
    def stride(self) -> int:
        """From one rank's part to the next one's."""
        return _up(self.part_bytes, _LINE)

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.front_bytes + self.world * self.stride

    def part(self, rank: int) -> int:
        """Return where a rank's part begins."""
        return self.front_bytes + rank * self.stride

    def channel(self, source: int, target: int, channel: int) -> int:
        """Return where the signals from one rank to another are counted."""
        return ((target * self.world + source) * CHANNELS + channel) * _CHANNEL_BYTES


@dataclass(frozen=True, slots=True)
class Allocation:
    """One allocation as a rank has it mapped; it does not keep the mapping, the tensors do.

    Args:
        number: the same on every rank, and no other allocation's of the group.
        layout: where things are.
        address: where the mapping begins in this process.
        mapping: a weak reference to it.
    """

    number: int
    layout: Layout
    address: int
    mapping: weakref.ref[Any]


def allocate(control: Control, number: int, shape: Sequence[int], dtype: torch.dtype | None) -> tuple[Allocation, Any]:
    """Return a new allocation, and what keeps it mapped, once every rank has it.

    Raises:
        MismatchError: the ranks asked for different shapes or dtypes; on every rank.
        TransportError: there is not enough memory on some rank; on every rank, with the numbers.
        ArgumentError: this rank's shape or dtype is none; the others get a `MismatchError`.
    """
    wish, refused = _wish(shape, dtype)
    part_bytes = max(wish.numel(), 1) * wish.element_size()
    layout = Layout(control.world, part_bytes)
    memfd, name, failed = -1, "", ""
    if control.rank == 0 and refused is None:
        memfd, name, failed = _file(layout)
    try:
        note = {"wish": _words(wish, refused), "memfd": memfd, "name": name, "failed": failed, "room": room_bytes()}
        notes = control.tell(note)
        if refused is not None:
            raise refused
        _check(notes, layout)
        mapping, failed = _mapped(control, layout, notes[0], memfd)
        _raise_first([note["failed"] for note in control.tell({"failed": failed})])
    finally:
        if memfd >= 0:
            os.close(memfd)
    address = torch.frombuffer(mapping, dtype=torch.uint8, count=1).data_ptr()
    return Allocation(number, layout, address, weakref.ref(mapping)), mapping


def _wish(shape: Sequence[int], dtype: torch.dtype | None) -> tuple[torch.Tensor, CommError | None]:
    """Return a tensor without memory that looks like what is wanted."""
    try:
        wish = torch.empty(tuple(shape), dtype=dtype, device="meta")
    except (TypeError, RuntimeError) as error:
        got = f"shape {said(shape)} and dtype {dtype}: {first_line(error)}"
        return torch.empty(0, device="meta"), ArgumentError(_WHERE, got=got, need="sizes of 0 or more, and a dtype")
    if wish.dtype not in DTYPE_CODE:
        return wish, ArgumentError(_WHERE, got=f"dtype {dtype}", need="one that can be moved")
    return wish, None


def _words(wish: torch.Tensor, refused: CommError | None) -> str:
    return f"{list(wish.shape)} {str(wish.dtype).removeprefix('torch.')}" if refused is None else "refused"


def _file(layout: Layout) -> tuple[int, str, str]:
    from comm_shm import segment

    try:
        return *segment.create_file(layout.total_bytes), ""
    except TransportError as error:
        return -1, "", f"on rank 0 {error.got}"


def _check(notes: Sequence[dict[str, Any]], layout: Layout) -> None:
    """Raise what every rank can see in what all of them said."""
    wishes = [note["wish"] for note in notes]
    if len(set(wishes)) > 1:
        who = "; ".join(f"rank {rank}: {wish}" for rank, wish in enumerate(wishes))
        need, hint = "the same shape and dtype on every rank", "nothing was allocated"
        raise MismatchError(_WHERE, got=who, need=need, hint=hint)
    poorest = min(range(len(notes)), key=lambda rank: notes[rank]["room"])
    if layout.total_bytes > notes[poorest]["room"]:
        room = notes[poorest]["room"]
        _raise_first([f"room for {room} bytes on rank {poorest}, where {layout.total_bytes} are wanted"])
    _raise_first([notes[0]["failed"]])


def _raise_first(failures: Sequence[str]) -> None:
    for failed in failures:
        if failed:
            hint = "ask for less, drop buffers, or raise the memory limit; nothing that was there is lost"
            raise TransportError(_WHERE, got=failed, need="enough memory on every rank", hint=hint)


def _mapped(control: Control, layout: Layout, host: dict[str, Any], memfd: int) -> tuple[Any, str]:
    """Map the file and set this rank's part aside; return the mapping, or why not."""
    from comm_shm import segment

    native, rank = control.native, control.rank
    fetched = -1
    try:
        if rank:
            fetched = segment.fetch(replace(control.cards[0], memfd=host["memfd"], segment=host["name"]))
        mapping = native.map_memory(native.Mapping, fetched if rank else memfd, layout.total_bytes)
        begin, end = (layout.part(rank) if rank else 0), layout.part(rank + 1)
        if end > begin:
            os.posix_fallocate(fetched if rank else memfd, begin, end - begin)
        return mapping, ""
    except (OSError, TransportError) as error:
        why = error.got if isinstance(error, TransportError) else str(error)
        return None, f"rank {rank}, which wants {layout.stride} of {layout.total_bytes} bytes: {why[:600]}"
    finally:
        if fetched >= 0:
            os.close(fetched)


def _up(size: int, to: int) -> int:
    return (size + to - 1) // to * to
