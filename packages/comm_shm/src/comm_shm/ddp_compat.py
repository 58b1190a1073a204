"""DDP's built-in communication hooks for groups over shared memory.

In torch 2.11 to 2.14 the one that compresses, `FP16_COMPRESS`, is C++ and wants a future of C++ tensors, which a group
that is written in Python cannot give: it ends in an internal assertion. From the first shm group on a method stands in
the place of DDP's that registers torch's own Python hook of the same arithmetic for groups over shared memory, and
hands everything else on to torch's. `comm_shm.unregister()` puts torch's back.
"""

from __future__ import annotations

import functools
from typing import Any

from torch._C import _distributed_c10d as c10d
from torch.nn.parallel import DistributedDataParallel

_replaced: list[Any] = []


def install() -> None:
    """Put the method in the place of torch's; a second time changes nothing."""
    if _replaced:
        return
    torchs: Any = DistributedDataParallel._register_builtin_comm_hook

    @functools.wraps(torchs)
    def _register_builtin_comm_hook(self: Any, comm_hook_type: Any) -> None:
        ours = getattr(self.process_group, "monitors", False)
        if not ours or comm_hook_type != c10d.BuiltinCommHookType.FP16_COMPRESS:
            torchs(self, comm_hook_type)
            return
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook  # few need it

        self.logger._set_comm_hook_name(str(comm_hook_type))
        c10d._register_comm_hook(self.reducer, self.process_group, fp16_compress_hook)

    _replaced.append(torchs)
    DistributedDataParallel._register_builtin_comm_hook = _register_builtin_comm_hook  # type: ignore[method-assign]


def uninstall() -> None:
    """Put torch's method back."""
    while _replaced:
        DistributedDataParallel._register_builtin_comm_hook = _replaced.pop()  # type: ignore[method-assign]
