"""The memory that the ranks of a group share: an anonymous file that lives as long as somebody has it mapped.

Rank 0 makes a memfd, and the others open it as `/proc/<pid of rank 0>/fd/<number>`. The kernel allows that to processes
of the same user only. Passing the descriptor over a unix socket would do as well, but needs rank 0 to serve each peer
in turn, a name for the socket, and a check of who connects, because abstract names are open to all users. There is no
name under /dev/shm, so nothing can collide and nothing is left behind, however the ranks end.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comm_core.errors import TransportError
from comm_shm import _native
from comm_shm.faults import Status
from comm_shm.memory_left import room_bytes
from comm_shm.rendezvous import Card, open_pidfds

SLOT_BYTES = 96 * 1024  # eight of them, in a group of two, stay in a second-level cache of 1 MiB, beside the message
LEAST_FOR_A_RANK = 512  # of a slot, so that in a large group every rank has a part of each

_BROKEN_AT = 128  # of shm_preamble.broken in csrc/shm.h, which segment.c asserts
_WHERE = 'backend "shm"'
_PR_GET_DUMPABLE = 3  # of <linux/prctl.h>
_CAP_SYS_PTRACE = 19  # of <linux/capability.h>


def slot_bytes(world: int) -> int:
    """Return the size of one slot of a group of so many ranks.

    Example:
        >>> slot_bytes(2), slot_bytes(1024)
        (98304, 524288)
    """
    return max(SLOT_BYTES, LEAST_FOR_A_RANK * world)


def create(world: int, slot: int | None = None) -> tuple[int, str]:
    """Return the descriptor and the name of a new segment, with the memory of its collectives set aside.

    The rings of messages between two ranks lie behind that, and take memory when a rank first sends to the other.

    Args:
        world: how many ranks share it.
        slot: bytes of a slot; `slot_bytes(world)` by default.

    Raises:
        TransportError: there is not enough memory, or other ranks could not open what this process has.
    """
    if world > 1 and _is_protected():
        raise TransportError(
            _WHERE,
            got="a process that is protected from its own user (prctl PR_SET_DUMPABLE, or a change of user)",
            need="one whose segment the other ranks can open",
            hint='start it anew as that user (exec), or use backend="gloo" for this group',
        )
    slot = slot_bytes(world) if slot is None else slot
    size = _native.reserved_bytes(world, slot)
    what, room = f"{world} ranks, each with slots of {slot} bytes", room_bytes()
    if size > room:  # where a control group has less, the kernel would end the process
        raise no_room(size, what, f"{room} bytes are left")
    memfd, name = create_file(_native.segment_bytes(world, slot))
    try:
        os.posix_fallocate(memfd, 0, size)  # an error here, rather than SIGBUS at the first use
    except OSError as error:
        os.close(memfd)
        raise no_room(size, what, error) from error
    return memfd, name


def _is_protected() -> bool:
    """Tell whether other processes of this user, which may do what this one may, cannot open its descriptors."""
    if ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 1:
        return False
    allowed = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    return not int(allowed.split()[1], 16) >> _CAP_SYS_PTRACE & 1


def create_file(size: int) -> tuple[int, str]:
    """Return the descriptor and the name of an anonymous file of that size, for which no memory is set aside yet.

    Raises:
        TransportError: the kernel refuses.
    """
    name = f"comm_shm-{secrets.token_hex(8)}"
    memfd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(memfd, size)
        # A peer that shrank the file would kill the others.
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError as error:
        os.close(memfd)
        raise no_room(size, "a file of that size", error) from error
    return memfd, name


def no_room(size: int, what: str, why: object) -> TransportError:
    """Return the error for memory that cannot be had, with the numbers."""
    return TransportError(
        _WHERE,
        got=f"no room for {size} bytes of shared memory ({what}): {why}",
        need="that much free memory",
        hint='raise the memory limit, or use backend="gloo" for this group',
    )


def fetch(host: Card) -> int:
    """Return a descriptor of the segment that the rank with this card made.

    Raises:
        TransportError: the kernel refuses, or the segment is not there any more.
    """
    path = f"/proc/{host.pid}/fd/{host.memfd}"
    try:
        memfd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _given_up(host, path, "nothing") from None
    except OSError as error:
        raise TransportError(
            _WHERE,
            got=f"no access to rank 0's segment: {error}",
            need="rank 0 alive, of the same user, and not protected from its own user (prctl PR_SET_DUMPABLE)",
            hint='use backend="gloo" for this group',
        ) from error
    found = os.readlink(f"/proc/self/fd/{memfd}")
    if host.segment not in found:
        os.close(memfd)
        raise _given_up(host, path, found)
    return memfd


def _given_up(host: Card, path: str, found: str) -> TransportError:
    return TransportError(
        _WHERE,
        got=f"no access to rank 0's segment: {found} at {path}",
        need=f"the segment {host.segment}",
        hint="rank 0 has given the group up, or ended: its own error says why",
    )


def attach(memfd: int, cards: Sequence[Card], rank: int, slot: int | None = None) -> Any:
    """Return the C core's handle of a mapped segment; the descriptor may be closed afterwards.

    Raises:
        RankFailedError: a rank has ended already; the others see it as well.
        TransportError: the segment cannot be mapped, or the peers not be watched; the others are told.
    """
    slot = slot_bytes(len(cards)) if slot is None else slot
    try:
        pidfds = open_pidfds(cards, rank)
        try:
            return _native.open_group(memfd, rank, len(cards), slot, pidfds)
        except OSError as error:
            size = _native.segment_bytes(len(cards), slot)
            what = f"{len(cards)} ranks, each with slots of {slot} bytes; this process cannot map them"
            raise no_room(size, what, error) from error
    except TransportError:
        # Written as to a file, which needs no room in this process: it is the first failure of the group.
        os.pwrite(memfd, struct.pack("=Q", Status.NO_ROOM << 16 | rank), _BROKEN_AT)
        raise
