"""Whether shared memory can be used here, and if not, why."""

from __future__ import annotations

import functools
import importlib
import os
import sys


@functools.cache
def why_not() -> str | None:
    """Return why the backend `"shm"` cannot be used in this process, or None when it can.

    Example:
        >>> why_not() is None or isinstance(why_not(), str)
        True
    """
    if sys.platform != "linux":
        return f"it needs Linux (memfd, futex, pidfd), and this is {sys.platform}"
    return _no_extension() or _no_kernel_support()


def available() -> bool:
    """Return whether `init_process_group("shm")` works in this process.

    Example:
        >>> import comm_shm
        >>> backend = "shm" if comm_shm.available() else "gloo"
    """
    return why_not() is None


def _no_extension() -> str | None:
    try:
        importlib.import_module("comm_shm._native")
    except ImportError as error:
        return (
            f"its C extension was not built or does not load ({error}); "
            "install a C compiler and run `pip install --force-reinstall --no-deps comm-shm`"
        )
    return None


def _no_kernel_support() -> str | None:
    try:
        os.close(os.memfd_create("comm_shm-probe", os.MFD_CLOEXEC))
        os.close(os.pidfd_open(os.getpid()))
        os.stat("/proc/self/fd")
    except (AttributeError, OSError) as error:
        return f"the kernel does not offer memfd, pidfd and /proc here ({error})"
    return None
