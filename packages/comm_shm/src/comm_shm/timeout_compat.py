"""torch's `_set_pg_timeout` for groups over shared memory.

In torch 2.11 to 2.14 that function sets the time of gloo's and of NCCL's groups, and for all others warns that it does
nothing. From the first shm group on a function stands in its place that sets that of groups over shared memory, and
hands everything else on to torch's. `comm_shm.unregister()` puts torch's back.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d

from comm_shm.stand_in import StandIn


def _set_pg_timeout(torchs: Any, timeout: timedelta, group: Any = None) -> None:
    chosen: Any = group if group is not None else dist.group.WORLD
    if not getattr(chosen, "monitors", False):
        torchs(timeout, group)
    else:
        chosen.set_timeout(timeout)


SETTER = StandIn("_set_pg_timeout", [distributed_c10d], _set_pg_timeout)
