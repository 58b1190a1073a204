"""Collectives between the ranks of one machine in shared memory: the c10d backend `"shm"`.

Importing this package registers the backend (so does `import torch` alone, through the entry point in the group
`torch.backends`); that is the only effect, and `unregister()` undoes it. From then on
`torch.distributed.init_process_group("shm")` and `new_group(backend="shm")` work wherever `available()` is true.

Example:
    >>> import torch, comm_shm
    >>> import torch.distributed as dist
    >>> dist.init_process_group("shm", store=dist.HashStore(), rank=0, world_size=1)
    >>> x = torch.ones(3)
    >>> dist.all_reduce(x)
    >>> x
    tensor([1., 1., 1.])
    >>> dist.destroy_process_group()
"""

from comm_shm.availability import available, why_not
from comm_shm.registration import BACKEND, register, unregister

__all__ = ["BACKEND", "available", "register", "unregister", "why_not"]

register()
