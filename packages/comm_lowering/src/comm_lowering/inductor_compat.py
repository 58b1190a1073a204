"""The only file that knows torch's compiler internals: each private name with the version that needs it.

Import it inside functions: it loads `torch._inductor`. `probe()` names whatever this torch lacks.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch._dynamo
import torch._functorch.config as functorch_config
import torch._inductor.compile_fx
import torch._inductor.config as inductor_config
import torch.distributed as dist
from torch import fx
from torch._inductor import ir, lowering
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch._inductor.virtualized import V

from comm_core.errors import TransportError
from comm_lowering.graph_state import Schedule, Step

# name -> where it was last seen; checked on torch 2.13, the same in the sources of 2.11, 2.12 and 2.14
_NEEDED = {
    "torch._inductor.ir:_CollectiveKernel": "2.11 to 2.14",
    "torch._inductor.ir:_CollectiveKernel.create_inplace": "2.11 to 2.14",
    "torch._inductor.ir:_CollectiveKernel.create_out_of_place": "2.11 to 2.14",
    "torch._inductor.ir:_WaitKernel.create_wait": "2.11 to 2.14",
    "torch._inductor.ir:ExternKernel.require_contiguous": "2.11 to 2.14",
    "torch._inductor.lowering:lowerings": "2.11 to 2.14",
    "torch._inductor.lowering:clone": "2.11 to 2.14",
    "torch._inductor.config:post_grad_custom_post_pass": "2.11 to 2.14",
    "torch._inductor.custom_graph_pass:CustomGraphPass": "2.11 to 2.14",
    "torch._inductor.compile_fx:compile_fx": "2.11 to 2.14",
    "torch._dynamo.config:recompile_limit": "2.11 to 2.14",
    "torch.ops:_c10d_functional.wait_tensor": "2.11 to 2.14, built with distributed",
}
_ABSENT = object()
_STATE = "_comm_lowering"  # our attribute on Inductor's graph objects

Handler = Callable[..., Any]


def probe() -> None:
    """Check that this torch has every private name in use.

    Raises:
        TransportError: a name is missing; the message says which.
    """
    for place, versions in _NEEDED.items():
        module, _, path = place.partition(":")
        found: Any = torch.ops if module == "torch.ops" else importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part, _ABSENT)
        if found is _ABSENT:
            raise TransportError(
                "comm_lowering",
                got=f"torch {torch.__version__} without {place.replace(':', '.')}",
                need=f"a torch that has it: {versions}",
            )


# ---- the table of lowerings ----


def _tables() -> tuple[dict[Any, Handler], ...]:
    """The table to write into: `user_lowerings` (2.12 on) is consulted first and lets a handler decline."""
    user = getattr(lowering, "user_lowerings", None)
    return (lowering.lowerings,) if user is None else (user, lowering.lowerings)


def set_lowering(op: Any, handler: Handler) -> Callable[[], None]:
    """Make Inductor ask `handler` for `op`, falling through to what was there when it returns None.

    Returns:
        A function that puts back what was there, unless somebody else has replaced the handler since.
    """
    table, builtin = _tables()[0], lowering.lowerings
    before = table.get(op)
    fallback = before if before is not None else builtin.get(op)

    def consult(*args: Any, **kwargs: Any) -> Any:
        out = handler(*args, **kwargs)
        if out is not None or (table is not builtin and before is None):
            return out
        return None if fallback is None else fallback(*args, **kwargs)

    def restore() -> None:
        if table.get(op) is consult:
            if before is None:
                del table[op]
            else:
                table[op] = before

    table[op] = consult
    return restore


def functional_op(name: str) -> Any:
    """Return torch's functional collective of this name, as the overload that graphs contain.

    Raises:
        TransportError: this torch has no such op.
    """
    found = getattr(getattr(torch.ops._c10d_functional, name, None), "default", None)
    if found is None:
        raise TransportError("comm_lowering", got=f"no torch.ops._c10d_functional.{name} in torch {torch.__version__}")
    return found


# ---- the graph that is being lowered ----


def current_node() -> fx.Node:
    """Return the node of the FX graph that Inductor is lowering."""
    return V.graph.current_node


def state_of_graph(make: Callable[[Any], Any]) -> Any:
    """Return what we keep on the graph that is being lowered, made by `make(graph)` at the first call."""
    graph = V.graph
    if not hasattr(graph, _STATE):
        setattr(graph, _STATE, make(graph))
    return getattr(graph, _STATE)


def last_operation() -> str:
    """Return the name of the operation that was added to the graph last."""
    return str(V.graph.operations[-1].get_operation_name())


def phase_of(graph: Any) -> str:
    """Return `forward`, `backward` or `inference`."""
    if graph.is_backward:
        return "backward"
    return "inference" if graph.is_inference else "forward"


def schedule_of(graph: Any) -> Schedule | None:
    """Return the final schedule of a compiled graph, or None where it has none."""
    scheduler = getattr(graph, "scheduler", None)
    if scheduler is None:
        return None
    steps = []
    for node in scheduler.nodes:
        parts = node.get_nodes()
        names = frozenset(str(part.node.get_operation_name()) for part in parts if part.node is not None)
        steps.append(Step(names, not any(isinstance(part.node, ir._CollectiveKernel) for part in parts)))
    shared = getattr(graph, "inplaced_to_remove", ())  # buffers whose memory a kernel handed on to its result
    return Schedule(tuple(steps), frozenset(graph.removed_buffers) | frozenset(shared))


# ---- building blocks of the handlers ----


def is_graph_input(box: Any) -> bool:
    """Return whether a value is memory that Inductor was handed: an input or a constant."""
    base = _storage(box).data
    if isinstance(base, ir.Buffer):
        return base.get_name() in V.graph.graph_inputs or base.get_name() in V.graph.constants
    return False


def buffer_name(box: Any) -> str:
    """Return the name of the buffer behind a value, giving it one where it has none yet."""
    box.realize()
    return str(_storage(box).get_name())


def clone(box: Any) -> Any:
    """Return a copy as a value of its own; it fuses with the kernel that makes the original where that is possible."""
    out = lowering.clone(box)
    if inductor_config.reorder_for_compute_comm_overlap:  # fused with others, the copy would delay the start
        out.realize()
        V.graph.no_fuse_buffer_names.add(out.get_name())
    return out


def contiguous(box: Any) -> tuple[Any, bool]:
    """Return the value in a contiguous buffer, and whether that took a copy."""
    box.realize()
    out: Any = ir.ExternKernel.require_contiguous(box)
    return out, bool(out.get_name() != box.get_name())


def start_in_place(op: Any, box: Any, *args: Any) -> None:
    """Start a collective that writes into the buffer of `box`."""
    kind = getattr(ir, "_AllReduce_Kernel", None) if op.name().endswith("::all_reduce_") else None
    (kind or ir._CollectiveKernel).create_inplace(op, box, *args)  # the former has a C++ shim for cpp_wrapper


def start_out_of_place(op: Any, box: Any, *args: Any) -> Any:
    """Start a collective into a new buffer and return that."""
    started: Any = ir._CollectiveKernel.create_out_of_place(op, box, *args)
    return ir.TensorBox.create(started)


def wait(op: Any, box: Any) -> None:
    """Wait on the whole buffer behind `box`.

    A wait on a view would not keep the collective's input from being reused too early: Inductor's own rule for
    that looks only at waits on the collective's result itself.
    """
    ir._WaitKernel.create_wait(op, ir.TensorBox(_storage(box)))


def _storage(box: Any) -> Any:
    data = box.data
    while isinstance(data, ir.BaseView):
        data = data.data
    return data


# ---- the cache key ----


class CacheKeyPass(CustomGraphPass):
    """A pass that changes nothing; its uuid brings the lowering into Inductor's cache key.

    Args:
        key: what the key is to hold, asked for at every compilation.
        earlier: passes that it runs first, where the config has room for only one.

    Source: the key of Inductor's caches holds the uuids of custom passes, and neither lowerings nor packages.
    """

    def __init__(self, key: Callable[[], str], earlier: Any = None) -> None:
        self.key = key
        self.earlier = earlier
        self.before: Any = None  # what the config held before it
        self.value: Any = None  # and with it

    def __call__(self, graph: fx.Graph) -> None:
        """Run the passes it stands in for; change nothing itself."""
        for earlier in _as_passes(self.earlier):
            earlier(graph)

    def uuid(self) -> Any:
        """Return the key, with the uuids of the passes it stands in for; None (no caching) where one has none."""
        ids = [getattr(earlier, "uuid", lambda: None)() for earlier in _as_passes(self.earlier)]
        return None if not all(ids) else (*ids, self.key())


def _as_passes(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _takes_lists() -> bool:
    """Inductor takes a list of passes from 2.13 on."""
    return hasattr(importlib.import_module("torch._inductor.custom_graph_pass"), "get_custom_graph_passes")


def install_pass(key: Callable[[], str]) -> None:
    """Put a `CacheKeyPass` after the user's own passes, in the calling thread's config (it is per thread from 2.13)."""
    before = inductor_config.post_grad_custom_post_pass
    together = before is None or not _takes_lists()
    ours = CacheKeyPass(key, before if together else None)
    ours.before = before
    ours.value = ours if together else [*_as_passes(before), ours]
    inductor_config.post_grad_custom_post_pass = ours.value


def remove_pass() -> None:
    """Put back what the calling thread's config held before, keeping what somebody else has added since."""
    now = inductor_config.post_grad_custom_post_pass
    for ours in _as_passes(now):
        if isinstance(ours, CacheKeyPass):
            others = [one for one in _as_passes(now) if one is not ours]
            inductor_config.post_grad_custom_post_pass = ours.before if now is ours.value else others or None
            return


def pass_in_config() -> bool:
    """Return whether a cache key pass stands in the config that this compilation is keyed with."""
    return any(isinstance(one, CacheKeyPass) for one in _as_passes(inductor_config.post_grad_custom_post_pass))


def groups() -> list[tuple[str, int, str]]:
    """Return name, size and backend of every process group, because a cached kernel depends on them."""
    if not dist.is_initialized():
        return []
    names = dist.distributed_c10d._world.pg_names
    return sorted((str(name), group.size(), str(group.name())) for group, name in names.items())


# ---- compiling for a report ----


def plain(fn: Any) -> Any:
    """Return what `torch.compile` was given, for a function or module that it has wrapped."""
    return getattr(fn, "_orig_mod", None) or getattr(fn, "_torchdynamo_orig_callable", None) or fn


@contextmanager
def uncached() -> Iterator[None]:
    """Compile everything anew inside: no cache of graphs is read or written, and no recompile limit counts.

    `force_disable_caches` would do too, but also compiles torch's C++ headers anew, which takes ten seconds.
    """
    limits = {"recompile_limit": 2**16, "accumulated_recompile_limit": 2**16}
    with ExitStack() as stack:
        stack.enter_context(inductor_config.patch(fx_graph_cache=False, fx_graph_remote_cache=False))
        stack.enter_context(functorch_config.patch(enable_autograd_cache=False, enable_remote_autograd_cache=False))
        stack.enter_context(torch._dynamo.config.patch(limits))
        yield


def compile_graph(graph: fx.GraphModule, inputs: Any, compiled: Callable[[], None]) -> Callable[..., Any]:
    """Compile one traced graph with Inductor, calling `compiled()` for every graph that Inductor makes of it."""

    def inner(*args: Any, **kwargs: Any) -> Any:
        compiled()
        return torch._inductor.compile_fx.compile_fx_inner(*args, **kwargs)

    compile_fx: Any = torch._inductor.compile_fx.compile_fx  # typed for its export modes too
    return compile_fx(graph, inputs, inner_compile=inner)


def graph_breaks() -> dict[str, int]:
    """Return how often Dynamo has broken a graph in this process so far, by reason."""
    return dict(torch._dynamo.utils.counters["graph_break"])
