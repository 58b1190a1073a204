"""How ranks of other hosts notice that a rank ends while their group is being made: the kernel closes its door.

A door is a TCP socket that listens and that nobody answers at: who connects to it waits at it. When the process ends,
however it does, the kernel resets all these connections, and refuses new ones. Nothing is sent and nothing has to be
sent in time, so a rank that is slow or stopped is never taken for one that has ended.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from types import TracebackType
from typing import Self

from comm_shm.rendezvous import HOST

_SIOCGIFADDR = 0x8915  # of <linux/sockios.h>
_ROOM = 4096  # for those who wait at it; the kernel may allow for fewer
_ENDED = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)


class Door:
    """A door of this process, opened at once where its group is known to have ranks elsewhere; it may stay shut.

    Args:
        world: how many ranks the group has.

    Example:
        >>> with Door(1) as door:
        ...     opened = bool(door.address)
        ...     door.open()
        ...     peer = knock(door.address)
        >>> opened, ended(peer)
        (False, True)
        >>> peer.close()
    """

    def __init__(self, world: int) -> None:
        self.address = ""
        """Where it is, as `10.0.0.1 29511`; empty while it is shut, or where there is no address."""
        self._socket: socket.socket | None = None
        near = os.environ.get("LOCAL_WORLD_SIZE", "")  # torchrun's word
        if HOST in os.environ or (near.isdecimal() and int(near) < world):
            self.open()

    def open(self) -> None:
        """Open it, unless it is open."""
        if self._socket is not None:
            return
        for family, address in _own_addresses():
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                made = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                made.bind((address, 0))
                made.listen(_ROOM)
                self._socket, self.address = made, f"{address} {made.getsockname()[1]}"
                stack.pop_all()
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()


def knock(address: str) -> socket.socket | None:
    """Go to wait at a door; return the connection, which need not be there yet, None where there cannot be one."""
    host, _, port = address.partition(" ")
    with contextlib.suppress(OSError):
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        if made.connect_ex((host, int(port))) not in (0, errno.EINPROGRESS, *_ENDED):
            made.close()
            return None
        return made
    return None


def ended(connection: socket.socket) -> bool:
    """Return whether who a connection goes to has ended, once something has happened to it.

    Otherwise there is no way to that door, and nothing is known.
    """
    try:
        why = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return why in _ENDED or (why == 0 and not connection.recv(1))
    except OSError as error:
        return error.errno in _ENDED


def _own_addresses() -> list[tuple[socket.AddressFamily, str]]:
    """Return the addresses at which gloo would be reached too, the likeliest first."""
    found: list[tuple[socket.AddressFamily, str]] = []
    name = os.environ.get("GLOO_SOCKET_IFNAME", "").partition(",")[0].strip()
    if name:
        return _of_interface(name)
    with contextlib.suppress(OSError):
        for family, _, _, _, (address, *_) in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM):
            found.append((family, str(address)))
    return [*found, (socket.AF_INET, "127.0.0.1")]


def _of_interface(name: str) -> list[tuple[socket.AddressFamily, str]]:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        told = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("16s24x", name.encode()[:15]))
        return [(socket.AF_INET, socket.inet_ntoa(told[20:24]))]
    return []
