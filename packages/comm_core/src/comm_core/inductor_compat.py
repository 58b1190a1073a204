"""The private names of Inductor that comm_core uses, to keep ops of our own and waits in their order among collectives.

Inductor lowers an op with an ordered effect and notes that it depends on the one before, but by the names of buffers
where its scheduler looks up those of operations (2.13; found by reading, proven by
`packages/functional_collectives/tests/test_order.py`); and of collectives of other names it notes nothing. Its
scheduler then sorts such ops as it likes, for memory for one, and not alike on all ranks: messages that ranks exchange
in different orders are a deadlock. So our ops are lowered to what Inductor lowers its own collectives to, which its
scheduler keeps in the order of the program, and whose waits it knows (2.11 to 2.14).

Of what it knows it forgets a part: where it gives a kernel for the CPU the loops of another one, so that the two become
one, it analyses anew what the kernel reads, and notes the buffer that the collective wrote, not the one that stands for
the wait. Then the kernel may read before the wait (2.13, found in the code that it makes, proven by `test_order.py`;
2.14 notes the right one). What it made so may be in its cache, under a key that a mended one must not ask for.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch.torch_version import TorchVersion

from comm_core import compat

_SCHEDULER = "torch._inductor.scheduler"
_REMEMBERS = TorchVersion(torch.__version__) >= "2.14"
_ours: dict[Any, Any] = {}
_mending = threading.Lock()  # for all that follow
_owners: set[str] = set()
_unmend: list[Callable[[], None]] = []
_waiting: list[_WhenLoaded] = []


def keep_order(op: Any) -> None:
    """Give an op its lowering if Inductor is there; fake kernels call this, as they run before anything is lowered."""
    if op not in _ours and "torch._inductor.lowering" in sys.modules:
        _ours[op] = sys.modules["torch._inductor.lowering"].lowerings[op] = _ordered(op)


def forget_order() -> None:
    """Take the lowerings out again."""
    for op in _ours:
        sys.modules["torch._inductor.lowering"].lowerings.pop(op, None)
    _ours.clear()


def _ordered(op: Any) -> Any:
    from torch._inductor import ir

    def lowered(x: Any, *args: Any) -> Any:
        kernel: Any = ir._CollectiveKernel.create_out_of_place(op, x, *args)
        return ir.TensorBox.create(kernel)

    return lowered


@compat.constant_in_graphs
def keep_reads(owner: str) -> bool:
    """Have Inductor remember which reads are behind a wait, until all owners have said `forget_reads`.

    Where its scheduler is not loaded yet, that is mended as soon as it is. A second time nothing happens, nor does
    anything with torch from 2.14 on, whose scheduler remembers by itself.

    Args:
        owner: who needs it: "tracing" (whatever traces a collective calls this) or "lowering". A constant, for Dynamo.

    Returns:
        True.
    """
    if _REMEMBERS:
        return True
    loaded = importlib.import_module(_SCHEDULER) if _SCHEDULER in sys.modules else None  # another thread may be at it
    with _mending:
        _owners.add(owner)
        if loaded is not None:
            _mend(loaded)
        elif not _waiting:
            _waiting.append(_WhenLoaded())
            sys.meta_path.insert(0, _waiting[0])
    return True


def forget_reads(owner: str) -> None:
    """Give Inductor its own way back, unless another owner needs what `keep_reads` does."""
    with _mending:
        _owners.discard(owner)
        if not _owners:
            _stop_waiting()
            while _unmend:
                _unmend.pop()()


def _stop_waiting() -> None:
    while _waiting:
        sys.meta_path.remove(_waiting.pop())


def _mend(scheduler: ModuleType) -> None:
    _stop_waiting()
    if not _unmend:
        from torch._inductor.codecache import FxGraphHashDetails

        _unmend.append(_after(scheduler.SchedulerNode, "recompute_size_and_body", _rename))
        _unmend.append(_after(FxGraphHashDetails, "__init__", _tell_apart))


def _rename(node: Any) -> None:
    node.set_read_writes(node.read_writes.rename(node.mutation_renames))


def _tell_apart(key: Any) -> None:
    key.comm_core = "reads behind waits"


def _after(cls: Any, name: str, then: Callable[[Any], None]) -> Callable[[], None]:
    """Have a method end with a step more, and return what undoes that."""
    before = getattr(cls, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> None:
        before(self, *args, **kwargs)
        then(self)

    def undo() -> None:
        if getattr(cls, name) is method:
            setattr(cls, name, before)

    setattr(cls, name, method)
    return undo


class _WhenLoaded(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds Inductor's scheduler where it is, and mends it when it has been loaded."""

    _loader: Any

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname != _SCHEDULER:
            return None
        with _mending:
            _stop_waiting()
        spec = importlib.util.find_spec(fullname)
        if spec is not None:
            self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        with _mending:
            if _owners:
                _mend(module)


def keep_waits() -> Callable[[], None]:
    """Have Inductor leave each wait behind the collectives that are started before it, and return what undoes that.

    It moves a wait for memory, also before the start of another collective or message, for which another rank may be
    waiting before it starts what this wait is for (2.11 to 2.14). A wait that follows its own start is not touched.
    """
    from torch._inductor import ir
    from torch._inductor.lowering import lowerings
    from torch._inductor.virtualized import V

    op = torch.ops._c10d_functional.wait_tensor.default
    before = lowerings[op]

    def lowered(x: Any) -> Any:
        operations = V.graph.operations
        known = len(operations)
        result = before(x)
        starts = (made for made in reversed(operations[:known]) if isinstance(made, ir._CollectiveKernel))
        last = next((made for made in starts if not isinstance(made, ir._WaitKernel)), None)
        for wait in operations[known:]:
            for buffer in last.get_outputs() if last is not None else ():
                V.graph.additional_buffer_deps[wait.get_operation_name()].add(buffer.get_name())
        return result

    def undo() -> None:
        if lowerings[op] is lowered:
            lowerings[op] = before

    lowerings[op] = lowered
    return undo
