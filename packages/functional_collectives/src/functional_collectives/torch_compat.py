"""The private names of torch that functional_collectives uses, each with the reason and the versions that have it."""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.compiler import is_dynamo_compiling

from comm_core import inductor_compat
from comm_core.compat import as_made, forward_ad_active, is_transformed

__all__ = [
    "as_made",
    "collectives_in_graphs",
    "forward_ad_active",
    "inflight_inputs",
    "is_functional",
    "is_leaf_or_view_of_one",
    "is_transformed",
    "is_watched",
    "no_torch_function",
    "outer_storage",
    "same_memory",
    "shares_storage",
    "view_retaken",
    "without_dispatch",
    "wrapper",
]

# A wrapper subclass handles everything in __torch_dispatch__, so the outer protocol is switched off (2.11 to 2.14).
no_torch_function: Any = torch._C._disabled_torch_function_impl


# `(class, buffer)` -> a tensor of that class over the buffer's memory, with its count of writes (2.11 to 2.14).
same_memory: Any = torch.Tensor._make_subclass
without_dispatch = torch._C._DisableTorchDispatch  # a context in which a tensor subclass is its memory (2.11 to 2.14)


_modes = torch._C._len_torch_dispatch_stack
_forward_ad = torch.autograd.forward_ad


def is_watched() -> bool:
    """Tell whether Dynamo, a dispatch mode or forward-mode AD watches the ops (2.11 to 2.14)."""
    return _modes() > 0 or _forward_ad._current_level >= 0 or is_dynamo_compiling()


_DESCRIBES = "torch._subclasses.meta_utils"  # makes fake tensors of real ones, for every compiler (2.11 to 2.14)
_COMPARES_INPUTS = "torch._functorch._aot_autograd.runtime_wrappers"  # (2.11 to 2.14)


def outer_storage(finished: torch.UntypedStorage) -> torch.UntypedStorage | None:
    """Return what stands for the memory of a subclass where a compiler asks, of the memory that it holds; else None.

    To a compiler the two differ, but for the question which inputs a write to one of them reaches; and those of two
    subclasses over one memory do not differ. Each is new to what makes the fake tensors (2.11 to 2.14).
    """
    asks = sys._getframe(1).f_back
    where = None if asks is None else asks.f_globals.get("__name__")
    if where == _DESCRIBES:
        return torch.UntypedStorage(0, device=finished.device)
    if where == _COMPARES_INPUTS or torch._guards.TracingContext.try_get() is None:
        return None
    outer: torch.UntypedStorage | None = getattr(finished, "outer", None)
    if outer is None:
        outer = torch.UntypedStorage(0, device=finished.device)
        finished.outer = outer  # type: ignore[attr-defined]
    return outer


def view_retaken() -> bool | None:
    """Tell whether what torch takes once more, of a fake base, is a view of a subclass; None where it does not do that.

    It makes a fake tensor of a view by the view's own op, which has to give the class again that the view is of
    (2.11 to 2.14).
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__") == _DESCRIBES:
            found = getattr(frame.f_locals.get("t"), "is_traceable_wrapper_subclass", None)
            if found is not None:
                return bool(found)
        frame = frame.f_back
    return None


_remapping = threading.Lock()
_inside: list[None] = []  # one for each thread that is inside of `collectives_in_graphs`
_before: dict[Any, Any] = {}
_undo: list[Callable[[], None]] = []  # what the first that came in did besides


def wrapper(cls: type[torch.Tensor], like: torch.Tensor, device: torch.device) -> Any:
    """Make a tensor of class `cls` with the metadata of `like` on `device`, and no storage (2.11 to 2.14)."""
    return torch.Tensor._make_wrapper_subclass(
        cls,
        like.size(),
        strides=like.stride(),
        storage_offset=like.storage_offset(),
        dtype=like.dtype,
        layout=like.layout,
        device=device,
        requires_grad=False,
    )


def shares_storage(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Tell whether two tensors are views of one storage; works for meta tensors too (2.11 to 2.14)."""
    return a.untyped_storage()._cdata == b.untyped_storage()._cdata


def is_functional(x: torch.Tensor) -> bool:
    """Tell whether a compiler follows the writes to a tensor, which it then makes without any (2.11 to 2.14).

    Asked by its name: the module that has the class takes long to import.
    """
    return type(x).__name__ == "FunctionalTensor"


def is_leaf_or_view_of_one(x: torch.Tensor) -> bool:
    """Tell whether autograd refuses a write to a tensor that requires grad (2.11 to 2.14).

    In a compiled graph the answer is no: torch itself refuses it there, while it traces.
    """
    if torch.compiler.is_compiling():
        return False
    return x.is_leaf or (x._is_view() and x._base is not None and x._base.is_leaf)


@contextlib.contextmanager
def collectives_in_graphs(table: Mapping[str, Any]) -> Iterator[None]:
    """Let Dynamo replace calls of torch.distributed, by name, with other functions (2.11 to 2.14).

    Dynamo reads torch's own table, and guards on each function as an attribute of the module that the table is in. Both
    are the process's: of several threads, as of simulated ranks, the last to leave puts back what was there.
    """
    from torch.distributed import _functional_collectives as home

    remaps: dict[Any, Any] = home.traceable_collective_remaps
    with _remapping:
        if not _inside:
            _before.update(remaps)
            for fn in table.values():
                setattr(home, fn.__name__, fn)
            remaps.update({getattr(dist, name): fn for name, fn in table.items() if hasattr(dist, name)})
            _undo.extend((_asynchronous_allowed(), inductor_compat.keep_waits()))
        _inside.append(None)
    try:
        with _messages_allowed():
            yield
    finally:
        with _remapping:
            _inside.pop()
            if not _inside:
                while _undo:
                    _undo.pop()()
                remaps.clear()
                remaps.update(_before)
                _before.clear()
                for name in {fn.__name__ for fn in table.values()}:
                    delattr(home, name)


def _asynchronous_allowed() -> Callable[[], None]:
    """Let Dynamo replace calls with `async_op=True` too, and return what undoes it (2.11 to 2.14).

    Dynamo breaks the graph at them, as torch's own replacements give back nothing to wait for.
    """
    from torch._dynamo.variables.functions import CollectiveFunctionRewriteVariable as Rewritten

    before = Rewritten.call_function

    def call_function(self: Any, tx: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        given = inspect.signature(self.fn).bind(*args, **kwargs).arguments
        started = "async_op" in given and given["async_op"].as_python_constant()
        return self.replacement_var.call_function(tx, [], given) if started else before(self, tx, args, kwargs)

    def undo() -> None:
        cast(Any, Rewritten).call_function = before

    cast(Any, Rewritten).call_function = call_function
    return undo


def _messages_allowed() -> contextlib.AbstractContextManager[object]:
    """Let Dynamo look up send and recv in the table; torch 2.13 wants to be asked, for each thread."""
    import torch._dynamo.config as settings

    known = hasattr(settings, "enable_p2p_compilation")
    return settings.patch(enable_p2p_compilation=True) if known else contextlib.nullcontext()


@contextlib.contextmanager
def inflight_inputs(allowed: bool) -> Iterator[None]:
    """Let torch note the works of `async_op=True` calls, so that a wait in a graph finds them (2.11 to 2.14)."""
    c10d = torch._C._distributed_c10d
    before = c10d._allow_inflight_collective_as_graph_input()
    c10d._set_allow_inflight_collective_as_graph_input(allowed)
    try:
        yield
    finally:
        c10d._set_allow_inflight_collective_as_graph_input(before)
