"""DDP's built-in communication hooks for groups over shared memory.

In torch 2.11 to 2.14 the one that compresses, `FP16_COMPRESS`, is C++ and wants a future of C++ tensors, which a group
that is written in Python cannot give: it ends in an internal assertion. From the first shm group on a method stands in
the place of DDP's that registers torch's own Python hook of the same arithmetic for groups over shared memory, and
hands everything else on to torch's. `comm_shm.unregister()` puts torch's back.
"""

from __future__ import annotations

from typing import Any

from torch._C import _distributed_c10d as c10d
from torch.nn.parallel import DistributedDataParallel

from comm_shm.stand_in import StandIn


def _register_builtin_comm_hook(torchs: Any, ddp: Any, comm_hook_type: Any) -> None:
    ours = getattr(ddp.process_group, "monitors", False)
    if not ours or comm_hook_type != c10d.BuiltinCommHookType.FP16_COMPRESS:
        torchs(ddp, comm_hook_type)
        return
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook  # few need it

    ddp.logger._set_comm_hook_name(str(comm_hook_type))
    c10d._register_comm_hook(ddp.reducer, ddp.process_group, fp16_compress_hook)


HOOKS = StandIn("_register_builtin_comm_hook", [DistributedDataParallel], _register_builtin_comm_hook)
