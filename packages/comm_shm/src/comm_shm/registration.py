"""Putting the backend `"shm"` into torch.distributed's table, and taking it out again.

Nothing heavy is imported here: torch runs `autoload` at the end of its own import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comm_shm.agreement import BackendOptions
    from comm_shm.group import SharedMemoryGroup

BACKEND = "shm"


def register() -> None:
    """Make `"shm"` a backend that `init_process_group` and `new_group` know; a second time changes nothing.

    Where torch was built without torch.distributed there is nothing to register with, and nothing happens. Where
    shared memory cannot be used the name is registered all the same: choosing it then says what is missing.

    Example:
        >>> import torch.distributed as dist
        >>> register()
        >>> "shm" in dist.Backend.backend_list
        True
    """
    import torch.distributed as dist

    if dist.is_available() and BACKEND not in dist.Backend.backend_list:
        dist.Backend.register_backend(BACKEND, _create, extended_api=True, devices=["cpu"])


def unregister() -> None:
    """Take `"shm"` out of torch.distributed's table; groups that exist stay as they are.

    What shm groups had changed in torch is as it was, except where somebody has put something over it: that stays.

    Example:
        >>> import torch.distributed as dist
        >>> unregister()
        >>> "shm" in dist.Backend.backend_list
        False
        >>> register()
    """
    from comm_shm import in_torch
    from comm_shm.torch_compat import forget_backend

    forget_backend(BACKEND)
    in_torch.uninstall()


def autoload() -> None:
    """Do what torch asks of an entry point in `torch.backends`: register, and never break `import torch`."""
    try:
        register()
    except Exception as error:
        import warnings

        warnings.warn(f"comm_shm could not register the backend {BACKEND!r}: {error}", stacklevel=2)


def _create(options: BackendOptions, _pg_options: object = None) -> SharedMemoryGroup:
    from comm_shm.group import create

    return create(options)
