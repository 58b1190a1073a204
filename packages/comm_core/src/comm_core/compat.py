"""The private names of torch that comm_core uses, each with the reason and the versions that have it."""

from __future__ import annotations

import contextlib
import functools
import operator
import threading
import types
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d
from torch.distributed.device_mesh import DeviceMesh
from torch.utils._python_dispatch import _disable_current_modes

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)

_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_transforms = torch._C._are_functorch_transforms_active
_modes = torch._C._len_torch_dispatch_stack
_forward_ad = torch.autograd.forward_ad


def never_compiled(fn: Function) -> Function:
    """Have Dynamo leave a function's own frame alone, where it meets that in eager code (2.11 to 2.14).

    `torch.compiler.disable` also imports Dynamo, and costs a wrapper at each call.
    """
    frames = torch._C._dynamo.eval_frame
    leave = frames._FrameExecStrategy(frames._FrameAction.SKIP, frames._FrameAction.SKIP)  # it, and what it calls
    frames.set_code_exec_strategy(fn.__code__, leave)
    return fn


def untraced(fn: Function, why: str) -> Function:
    """Have Dynamo call a function as it is: it breaks the graph where it would inline the call (2.11 to 2.14)."""
    marked: Any = never_compiled(fn)
    marked._torchdynamo_disable = True
    marked._torchdynamo_disable_msg = why
    return fn


def group_by_name(name: str) -> dist.ProcessGroup:
    """Return the process group registered under a name (2.11 to 2.14: no public look-up exists).

    Raises:
        RuntimeError, LookupError: no group has that name.
    """
    return torch._C._distributed_c10d._resolve_process_group(cast(Any, name))


untraced(group_by_name, "c10d looks the name up")  # a builtin, which Dynamo warns of


def is_registered(group: object) -> bool:
    """Tell whether c10d still knows a group: made by it, and not destroyed since (2.11 to 2.14)."""
    return group in c10d._world.pg_map


def register_group(name: str, group: dist.ProcessGroup) -> None:
    """Make a group known by name to the `_c10d_functional` ops (2.11 to 2.14)."""
    group._set_group_name(cast(Any, name))
    torch._C._distributed_c10d._register_process_group(cast(Any, name), group)


def unregister_group(name: str) -> None:
    """Forget a name given to `register_group` (2.11 to 2.14)."""
    torch._C._distributed_c10d._unregister_process_group(cast(Any, name))


def known_groups() -> list[tuple[dist.ProcessGroup, tuple[int, ...]]]:
    """Return every process group of this process with its global ranks in group order (2.11 to 2.14)."""
    known = c10d._world.pg_group_ranks.items()  # a rank outside of some group has a placeholder among the keys
    return [(group, tuple(ranks)) for group, ranks in known if isinstance(group, dist.ProcessGroup)]


def timeout_of(group: dist.ProcessGroup) -> float | None:
    """Return a group's time limit in seconds, or None where its backend does not say (2.11 to 2.14: no public name)."""
    try:
        return float(group._get_backend(torch.device("cpu")).options._timeout.total_seconds())
    except (RuntimeError, AttributeError):
        return None


def flatten_mesh(mesh: DeviceMesh) -> DeviceMesh:
    """Return a mesh's 1-D form; all its ranks must ask, as a group is made the first time (2.11 to 2.14).

    No dispatch mode sees it: a graph that is being traced has no use for what a mesh computes of its ranks.
    """
    with _disable_current_modes():
        return mesh._flatten()


def _first_of(*names: str) -> str:
    known = [name for name in names if hasattr(dist.ProcessGroup, name)]
    if not known:
        raise ImportError(
            f"torch {torch.__version__}: its process groups have none of {', '.join(names)}; need 2.11 to 2.14"
        )
    return known[0]


# The methods of a process group `(out, x) -> Work`, along dim 0 into one tensor, and `(out, x, options) -> Work`: the
# first of each is there from 2.13 on.
ALL_GATHER = _first_of("all_gather_single", "_allgather_base")
REDUCE_SCATTER = _first_of("reduce_scatter_single", "_reduce_scatter_base")


def is_transformed(x: torch.Tensor) -> bool:
    """Tell whether torch.func has wrapped this tensor: vmap, grad, jvp (2.11 to 2.14)."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)


def functions_transformed() -> bool:
    """Tell whether the running code stands under torch.func: vmap, grad, jvp (2.11 to 2.14)."""
    return torch._C._are_functorch_transforms_active()


def has_values(x: torch.Tensor) -> bool:
    """Tell whether a tensor has values to ask for: not on meta, nor as a fake without symbols (2.11 to 2.14)."""
    if torch.compiler.is_compiling():
        return True
    mode = getattr(x, "fake_mode", None)
    return not x.is_meta and (mode is None or mode.shape_env is not None)


def batch_level(x: torch.Tensor) -> int:
    """Return the level at which autograd batched a cotangent (`is_grads_batched`), 0 where it did not (2.11 to 2.14).

    That is torch's older vmap, of which torch.func and `autograd.Function` know nothing.
    """
    if torch.compiler.is_compiling():
        return 0
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    return level if level > 0 and torch._C._dispatch_keys(x).has("Batched") else 0


def as_batch(x: torch.Tensor, level: int) -> torch.Tensor:
    """Return the tensor that a batched cotangent stands for, its batch first (2.11 to 2.14)."""
    return torch._remove_batch_dim(x, level, 1, 0)


def as_batched(x: torch.Tensor, dim: int, level: int) -> torch.Tensor:
    """Return the batched tensor that stands for a result, whose batch is `dim` (2.11 to 2.14)."""
    return torch._add_batch_dim(x, dim, level)


@functools.cache
def applied(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """Return a function's `apply` for calls that stand under no transform of torch.func (2.11 to 2.14).

    `function.apply` looks first for what a transform has left in the arguments.
    """
    return cast(Any, super(torch.autograd.Function, function)).apply


def forward_ad_active() -> bool:
    """Tell whether forward-mode AD is on, so that tensors may carry tangents (2.11 to 2.14)."""
    return torch.autograd.forward_ad._current_level >= 0


def records_tangents(x: torch.Tensor) -> bool:
    """Tell whether make_fx records forward-mode AD of real tensors, as `torch.func.linearize` does (2.11 to 2.14)."""
    if torch.compiler.is_compiling() or type(x) is not torch.Tensor or not _modes() or not forward_ad_active():
        return False
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    return get_proxy_mode() is not None


def sees_saved_tensors() -> bool:
    """Tell whether something sees what is saved for backward: a hook, as a checkpoint's, or a mode (2.11 to 2.14)."""
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        return True
    return bool(_modes()) and torch._C._autograd._saved_tensors_hooks_is_enabled()  # type: ignore[attr-defined]


# Which backward this thread runs, a number; -1 outside of any (2.11 to 2.14).
current_backward = torch._C._current_graph_task_id


def after_backward(call: Callable[[], None]) -> None:
    """Have something called when the backward that this thread runs has ended well (2.11 to 2.14)."""
    cast(Any, torch.autograd.Variable)._execution_engine.queue_callback(call)


def dispatch_modes_active() -> bool:
    """Tell whether a dispatch mode such as FakeTensorMode or make_fx watches the ops (2.11 to 2.14)."""
    return bool(torch._C._len_torch_dispatch_stack())


def is_watched(x: torch.Tensor) -> bool:
    """Tell whether torch.func, a dispatch mode or forward-mode AD looks at an op on `x`: what is above in one."""
    return _is_wrapped(x) or _transforms() or _modes() > 0 or _forward_ad._current_level >= 0


def constant_in_graphs(fn: Function) -> Function:
    """Have Dynamo call a function while it traces and keep the result, without importing Dynamo now (2.11 to 2.14).

    `torch.compiler.assume_constant_result` does the same and imports Dynamo, which costs most of a second.
    """
    fn._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return fn


def opaque(cls: Class) -> Class:
    """Have Dynamo call the methods of a class as they are, with those it inherits from its own package (2.11 to 2.14).

    Where a graph breaks at a call of c10d, the methods of a Python process group run as eager code, and Dynamo would
    trace them one after the other: in vain at best, and in a group, which it takes for an opaque object, that is an
    internal error of its own (2.13).
    """
    package = cls.__module__.partition(".")[0]
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] == package:
            for member in vars(base).values():
                fn = getattr(member, "fget", None) or getattr(member, "__func__", member)
                if isinstance(fn, types.FunctionType):
                    untraced(fn, f"{cls.__name__} works on real memory")
    return cls


def holds(condition: Any) -> bool:
    """Tell whether a condition on sizes holds; where only the data will tell, the graph checks it as it runs.

    `torch._check` and `guard_or_true` are how torch's own ops do that (2.11 to 2.14).
    """
    if condition is True or condition is False:
        return condition
    from torch.fx.experimental.symbolic_shapes import guard_or_true

    if not guard_or_true(condition):
        return False
    torch._check(condition)
    return True


def known(condition: Any) -> bool:
    """Tell whether a condition on sizes holds for sure; no graph is bound to the answer for sizes of the data."""
    if condition is True or condition is False:
        return condition
    from torch.fx.experimental.symbolic_shapes import guard_or_false

    return guard_or_false(condition)


def always(condition: Any) -> bool:
    """Tell whether a condition on sizes holds whatever the symbolic ones are; no graph is bound to the answer.

    `statically_known_true` adds no guard (2.11 to 2.14).
    """
    if condition is True or condition is False:
        return condition
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(condition)


# Of a tensor: how often its storage has been written, as autograd counts (2.11 to 2.14).
version: Callable[[torch.Tensor], int] = operator.attrgetter("_version")


def as_made(x: torch.Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a context in which ops on `x` make plain tensors of its kind, whatever modes are active (2.11 to 2.14).

    A result is finished once and kept, so it must not become an inference tensor or a FakeTensor only because its
    first use stands in such a mode.
    """
    if torch.is_inference_mode_enabled() == x.is_inference() and not dispatch_modes_active():
        return contextlib.nullcontext()
    stack = contextlib.ExitStack()
    stack.enter_context(_disable_current_modes())
    stack.enter_context(torch.inference_mode(x.is_inference()))
    return stack


def premul_factor(op: object) -> float | torch.Tensor | None:
    """Return the factor of torch's premultiplied sum, which only its pickled state tells (2.11 to 2.14); else None."""
    if type(op) is not c10d.ReduceOp or cast(object, op) != dist.ReduceOp.PREMUL_SUM:
        return None
    factor: float | torch.Tensor = cast(Any, op).__getstate__()[1]
    return factor


def keep_in_order(op: str, library: torch.library.Library) -> None:
    """Have compilers keep an op, used or not, in its place among its like (where this torch has tokens for that)."""
    register = getattr(torch.library, "_register_effectful_op", None)
    if register is not None:
        from torch._library.effects import EffectType

        register(op, EffectType.ORDERED, lib=library)


def register_work(x: torch.Tensor, work: dist.Work) -> None:
    """Have `_c10d_functional.wait_tensor` of a tensor wait for this work (2.11 to 2.14)."""
    torch._C._distributed_c10d._register_work(x, work)


def destroy(library: torch.library.Library) -> None:
    """Take back everything that a library registered (2.11 to 2.14)."""
    library._destroy()


_NODES = 1024  # of a graph with messages, made before the first one that is to be late
_late = threading.local()


def number_nodes() -> None:
    """Leave numbers below those of the nodes that autograd makes in this thread from now on (2.11 to 2.14)."""
    if not hasattr(_late, "count"):
        _late.count = 0
        with torch.enable_grad():
            leaf = torch.zeros(0, requires_grad=True)
            for _ in range(_NODES):
                leaf.view_as(leaf)


def last_in_backward(ctx: Any) -> None:
    """Let the backward of a node run when no other can: of two such nodes, first that of the later one (2.11 to 2.14).

    Autograd takes the ready node with the highest number, and numbers nodes as each thread makes them. These have
    numbers of their own, from 1, and every one comes with another node: so where a graph is made in one thread after
    `number_nodes`, and has no more of them than `_NODES`, all other nodes have higher ones.
    """
    _late.count += 1
    ctx._set_sequence_nr(_late.count)
