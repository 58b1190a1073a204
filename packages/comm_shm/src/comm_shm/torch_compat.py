"""Every private name of torch that this package touches, with the versions that need it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch._C import _distributed_c10d as c10d

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


def tensors_for_c() -> object | None:
    """Return the capsule through which C code looks into tensors, or None where this torch does not fit.

    It is DLPack's exchange API (torch 2.10 and later). The core also takes a reduce op's hash for its kind, so that is
    looked at first.
    """
    kinds = ("SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR")
    if [hash(dist.ReduceOp(getattr(dist.ReduceOp, kind))) for kind in kinds] != list(range(len(kinds))):
        return None
    return getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)


def is_fake(x: torch.Tensor) -> bool:
    """Return whether a tensor is a FakeTensor, of which torch 2.11 to 2.14 have the class in a private module."""
    module = sys.modules.get("torch._subclasses.fake_tensor")
    return module is not None and isinstance(x, module.FakeTensor)


_count_writes = torch._C._increment_version


def written(tensors: Sequence[torch.Tensor]) -> None:
    """Tell autograd that tensors have been written, so that it refuses what it had saved of them.

    `torch.autograd.graph.increment_version` is the public name, and takes three times as long (2.11 to 2.14).

    Example:
        >>> x = torch.ones(2)
        >>> written([x])
        >>> x._version
        1
    """
    _count_writes(tensors)


def note_work(work: dist.Work, tensors: list[torch.Tensor]) -> None:
    """Have `wait_tensor` find the work of a tensor, where the program has asked torch for it (2.11 to 2.14).

    Torch does so for its own backends, in `allow_inflight_collective_as_graph_input_ctx`.
    """
    if c10d._allow_inflight_collective_as_graph_input():
        for tensor in tensors:
            c10d._register_work(tensor, work)


class NamedGroup(dist.ProcessGroup):
    """A Python process group that answers to the names by which torch and DeviceMesh look it up.

    In torch 2.11 to 2.14 the base class keeps these in a C++ backend that a Python subclass does not have: asking for
    `group_name` raises, and with it everything that finds a group by its name.
    """

    monitors = True  # see monitored_compat, and timeout_compat
    supports_splitting = supports_coalescing = supports_time_estimate = supports_shrinking = False  # asked of a backend
    use_pg_for_symm_mem_rendezvous = False

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

    def supports_tensor_alloc(self, device: torch.device) -> bool:
        """Return False: FSDP2 asks its backend for buffers only where this says so (2.11 to 2.14)."""
        return False

    def _set_sequence_number_for_group(self) -> None:
        """Do nothing: the ranks compare the numbers of their calls anyway."""

    def _set_default_backend(self, backend_type: object) -> None:
        """Do nothing: this group is its own backend."""

    @property
    def _device_types(self) -> list[torch.device]:
        return [torch.device("cpu")]


def prefixed(name: str, store: Store) -> Store:
    """Return a store whose keys begin with a name; torch.distributed has the class, but not in its stubs."""
    return c10d.PrefixStore(f"{name}/", store)


def group_of_backend(name: str, device: str, options: Any) -> Any:
    """Return a process group of another backend for one device, over the same ranks and store.

    In torch 2.11 to 2.14 the public `new_group` would have to be called by every rank of the job, and would name the
    device's group differently from this one.

    Raises:
        RuntimeError: this torch does not have the backend, or it cannot be used here.
    """
    kinds = dist.Backend.backend_type_map
    store = prefixed(device, options.store)
    rank, world = options.group_rank, options.group_size
    plugin = getattr(dist.Backend, "_plugins", {}).get(name.upper())
    if name == "nccl":
        if not dist.is_nccl_available():
            raise RuntimeError("this torch was built without NCCL")
        chosen = dist.ProcessGroupNCCL.Options()
        chosen._timeout = options.timeout
        chosen.global_ranks_in_group = options.global_ranks_in_group
        chosen.group_name = options.group_id
        backend: Any = dist.ProcessGroupNCCL(store, rank, world, chosen)
    elif name == "gloo":
        backend = dist.ProcessGroupGloo(store, rank, world, timeout=options.timeout)
    elif plugin is None:
        raise RuntimeError(f"torch.distributed knows no backend {name!r}")
    elif plugin.extended_api:
        backend = plugin.creator_fn(options, None)
    else:
        backend = plugin.creator_fn(store, rank, world, options.timeout)
    if isinstance(backend, dist.ProcessGroup):
        return backend
    group = dist.ProcessGroup(store, rank, world)
    kind = kinds.get(name, dist.ProcessGroup.BackendType.CUSTOM)
    group._set_default_backend(kind)
    group._register_backend(torch.device(device), kind, backend)
    group._set_group_name(options.group_id)
    return group


def gloo_group(store: Store, rank: int, world: int, timeout: timedelta) -> Any:
    """Return a gloo group that torch does not know of (2.11 to 2.14), once every rank is connected with every rank.

    `TORCH_GLOO_LAZY_INIT` would have a rank look for another one at the first message, where it waits for a dead one.
    """
    gloo: Any = dist.ProcessGroupGloo
    if not os.environ.get("TORCH_GLOO_LAZY_INIT"):
        return gloo(store, rank, world, timeout)
    options = gloo._Options()
    names = [name for name in os.environ.get("GLOO_SOCKET_IFNAME", "").split(",") if name]
    options._devices = [gloo.create_device(interface=name, lazy_init=False) for name in names] or [
        gloo.create_default_device(lazy_init=False)
    ]
    options._threads, options._timeout = 2 * len(options._devices), timeout
    return gloo(store, rank, world, options)


class AskedStore(c10d.Store):
    """A store for gloo that asks this program each time it waits; `dist.Store` may be subclassed so (2.11 to 2.14).

    Args:
        inner: the store behind it.
        limit: how long to wait where gloo does not say.
        come: called with the store behind it, keys and a time limit; returns when they are there.
    """

    def __init__(self, inner: Store, limit: timedelta, come: Callable[[Store, list[str], timedelta], None]) -> None:
        super().__init__()
        self._inner, self._limit, self._come = inner, limit, come
        self._keys: list[str] = []

    def set(self, key: str, value: Any) -> None:
        """Set a key."""
        self._inner.set(key, value)
        self._keys.append(key)

    def get(self, key: str) -> bytes:
        """Return the value of a key, once it is there."""
        self._come(self._inner, [key], self._limit)
        return self._inner.get(key)

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Wait until keys are there."""
        self._come(self._inner, keys, self._limit if timeout is None else timeout)

    def add(self, key: str, amount: int) -> int:
        """Add to a counter."""
        return self._inner.add(key, amount)

    def check(self, keys: list[str]) -> bool:
        """Return whether keys are there."""
        return self._inner.check(keys)

    def forget(self) -> None:
        """Take back what was set."""
        for key in self._keys:
            self._inner.delete_key(key)
