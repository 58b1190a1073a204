"""`dist.monitored_barrier` for groups over shared memory.

In torch 2.11 to 2.14 that function asks for the backend's name and raises for all but gloo's, whatever the group can
do. From the first shm group on a function stands in its place that hands groups over shared memory what is theirs, and
everything else on to torch's. `comm_shm.unregister()` puts torch's back. Whoever took the function out of
torch.distributed before then has torch's, and can call the group's method of that name.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d

from comm_shm.stand_in import StandIn


def _monitored_barrier(
    torchs: Any, group: Any = None, timeout: timedelta | float | None = None, wait_all_ranks: bool = False
) -> Any:
    chosen: Any = group if group is not None else dist.group.WORLD
    if not getattr(chosen, "monitors", False):
        return torchs(group, timeout, wait_all_ranks)
    if isinstance(timeout, (int, float)):
        timeout = timedelta(seconds=timeout)
    return chosen.monitored_barrier(timeout, wait_all_ranks=wait_all_ranks)


BARRIER = StandIn("monitored_barrier", [distributed_c10d, dist], _monitored_barrier)
