"""Every private name of torch that this package touches, with the versions that need it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store as Store  # torch.distributed has it, but not in its stubs


def forget_backend(name: str) -> None:
    """Undo `dist.Backend.register_backend(name, ...)`; torch 2.11 to 2.14 have no public way to do it."""
    backend = dist.Backend
    if name in backend.backend_list:
        backend.backend_list.remove(name)
    for table in (backend.backend_type_map, backend.backend_capability):
        table.pop(name, None)
    getattr(backend, "_plugins", {}).pop(name.upper(), None)
    if hasattr(backend, name.upper()):
        delattr(backend, name.upper())


def premul_factor(op: dist.ReduceOp) -> float | torch.Tensor:
    """Return the factor of a premultiplied sum, a number or a tensor of one element."""
    factor: float | torch.Tensor = op.__getstate__()[1]  # type: ignore[index]
    return factor


class NamedGroup(dist.ProcessGroup):
    """A Python process group that answers to the names by which torch and DeviceMesh look it up.

    In torch 2.11 to 2.14 the base class keeps these in a C++ backend that a Python subclass does not have: asking for
    `group_name` raises, and with it everything that finds a group by its name.
    """

    def __init__(self, rank: int, world: int, name: str) -> None:
        super().__init__(rank, world)  # type: ignore[call-arg]  # a constructor that the stubs do not have
        self._name = name
        self._description = "undefined"

    @property
    def group_name(self) -> str:  # type: ignore[override]
        """The name under which `torch.ops._c10d_functional.*` find this group."""
        return self._name

    @property
    def group_desc(self) -> str:
        """What the group is for, as given to `new_group(group_desc=...)`."""
        return self._description

    def _set_group_name(self, name: str) -> None:
        self._name = name

    def _set_group_desc(self, desc: str) -> None:
        self._description = desc

    @property
    def _device_types(self) -> list[torch.device]:
        return [torch.device("cpu")]
