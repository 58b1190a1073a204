"""The process that imports torch once and is forked for each rank, so that a new rank costs milliseconds.

Started by the pool as `python -m comm_core.testing.forker_process CONNECTION OWNER`: an inherited descriptor and the
process id of the pool's process. It has one thread, and nothing in it has touched a device or a process group.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
import traceback

from comm_core.testing import rank_process
from comm_core.testing.wire import FORK, FORKER_READY, REAP

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Answer requests until the connection closes."""
    descriptor, owner = (int(argument) for argument in arguments)
    os.set_inheritable(descriptor, False)
    end_with_parent(owner)
    rank_process.preload()
    gc.freeze()  # so that collections in the ranks leave the shared pages alone
    with socket.socket(fileno=descriptor) as connection:
        connection.sendall(FORKER_READY)
        while True:
            request, descriptors, _, _ = socket.recv_fds(connection, 64, 3)
            if not request:
                return
            connection.sendall(_answer(request, descriptors, owner, connection))


def end_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends; end at once if that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _answer(request: bytes, descriptors: list[int], owner: int, connection: socket.socket) -> bytes:
    if request != FORK:
        _, status = os.waitpid(int(request.removeprefix(REAP)), 0)
        return str(os.waitstatus_to_exitcode(status)).encode()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_rank(descriptors, parent, owner, connection)
    for descriptor in descriptors:
        os.close(descriptor)
    return str(pid).encode()


def _become_rank(descriptors: list[int], parent: int, owner: int, connection: socket.socket) -> None:
    try:
        connection.close()
        os.setsid()
        end_with_parent(parent)
        theirs, output, stacks = descriptors
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        rank_process.serve(theirs, stacks, owner)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
