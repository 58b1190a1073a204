"""`local_map`, and what happens when the function that it returns is called.

Dynamo walks this file, so it stays plain; the one closure is the decorated function, which must be one to be a method.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from comm_core.errors import ArgumentError, GroupError, PlacementError
from func_map import pytree_compat
from func_map.boundary import enter, join, leave, settled
from func_map.global_shapes import Memory, Outputs, global_shapes
from func_map.naming import InputNames, Leaf, OutputNames, title
from func_map.placements import Spec, check_spec, dtensor_spec, gradient_of, without_gradient, words
from func_map.spread import InputSpecs, Wanted, parse_inputs, spread_inputs, spread_outputs


@dataclass(frozen=True)
class Plan:
    """What `local_map` was told, checked as far as it can be before a call."""

    func: Callable[..., Any]
    out_placements: Any
    in_placements: InputSpecs
    in_grad_placements: InputSpecs
    device_mesh: DeviceMesh | None
    redistribute_inputs: bool
    memory: Memory = field(default_factory=Memory)


def local_map(
    func: Callable[..., Any] | None = None,
    out_placements: Any = None,
    in_placements: Any = None,
    in_grad_placements: Any = None,
    device_mesh: DeviceMesh | None = None,
    *,
    redistribute_inputs: bool = False,
) -> Callable[..., Any]:
    """Turn a function on local tensors, which may call collectives, into a function on DTensors.

    Args:
        func: the body. Without it, a decorator is returned.
        out_placements: for one output a list of placements, one per mesh axis; for several, a sequence of such lists
            over the flattened output, or a tree (prefix) of the output's structure. None stands for what is no tensor.
        in_placements: what the body needs: a sequence over the positional arguments or their leaves, a tree prefix of
            them, one spec for all, or a dict by argument name, which is also how keyword arguments are addressed.
            None inside stands for "no DTensor". What is not mentioned is taken with the placements that it has.
        in_grad_placements: in the same forms, how the body's gradients of its inputs are placed, where that is not
            what follows from the inputs; None inside stands for what follows.
        device_mesh: the mesh of all DTensors; by default that of the arguments.
        redistribute_inputs: redistribute an argument whose placements differ from `in_placements`, instead of
            refusing it.

    Returns:
        The mapped function. DTensors are unwrapped wherever they stand in its arguments, keyword arguments and
        containers included; other values are handed through.

    Shapes: every rank's output is its piece. Pieces may be uneven if they are `torch.chunk`'s; sizes are exchanged
        between ranks when an input is sharded unevenly, and in the first call.

    Gradient: right for every body made of adjoint collectives. Per mesh axis, for inputs: Shard gives Shard, Replicate
        gives Partial(sum), Partial(sum) gives Replicate, Partial(avg) gives Partial(sum). For outputs the body is
        handed: its chunk for Shard, all of the gradient for Partial(sum), the n-th part for Replicate and
        Partial(avg). `Invariant` and `in_grad_placements` are for bodies that reduce gradients by themselves. If any
        input requires a gradient, then so does every floating-point output, on every rank.

    Raises:
        ArgumentError: `func` or `device_mesh` is something else, or there is no DTensor and no mesh.
        PlacementError: placements are missing, do not fit, or have no exact gradient where one is required; meshes
            differ; the body returned a DTensor.
        ShapeError: a Shard dim does not exist, or pieces do not form a DTensor.
        GroupError: this rank is not in the mesh.

    Example:
        >>> import torch, torch.distributed as dist
        >>> from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> mesh = init_device_mesh("cpu", (1,))
        >>> @local_map(out_placements=[Shard(0)], in_placements=([Shard(0)], [Replicate()]))
        ... def project(x, w):
        ...     return x @ w
        >>> x = distribute_tensor(torch.ones(4, 2), mesh, [Shard(0)])
        >>> w = distribute_tensor(torch.ones(2, 3), mesh, [Replicate()]).requires_grad_()
        >>> y = project(x, w)
        >>> y.sum().backward()
        >>> tuple(y.shape), w.grad.placements
        ((4, 3), (Partial(sum),))
        >>> dist.destroy_process_group()

    Source: torch.distributed.tensor.experimental.local_map for the signature; JAX's shard_map for the gradients.
    """
    if func is None:
        return functools.partial(
            local_map,
            out_placements=out_placements,
            in_placements=in_placements,
            in_grad_placements=in_grad_placements,
            device_mesh=device_mesh,
            redistribute_inputs=redistribute_inputs,
        )
    plan = make_plan(func, out_placements, in_placements, in_grad_placements, device_mesh, redistribute_inputs)

    @functools.wraps(func)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        return call(plan, args, kwargs)

    return mapped


def make_plan(
    func: Any, out_placements: Any, in_placements: Any, in_grad_placements: Any, mesh: Any, redistribute_inputs: bool
) -> Plan:
    """Check what can be checked before a call.

    Raises:
        ArgumentError: `func` cannot be called, or `mesh` is no mesh.
        PlacementError: placements of a form that no call could fit.
    """
    if not callable(func):
        raise ArgumentError("local_map", got=f"a {type(func).__name__} as func", need="a function")
    if mesh is not None and not isinstance(mesh, DeviceMesh):
        raise ArgumentError(title(func), got=f"a {type(mesh).__name__} as device_mesh", need="a DeviceMesh or None")
    return Plan(
        func,
        out_placements,
        parse_inputs("in_placements", in_placements, func),
        parse_inputs("in_grad_placements", in_grad_placements, func),
        mesh,
        redistribute_inputs,
    )


def call(plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the body on local tensors and wrap what it returns.

    Raises:
        CommError: as `local_map` says.
    """
    leaves, structure = pytree_compat.flatten((args, kwargs))
    names = InputNames(plan.func, args, kwargs)
    mesh = find_mesh(plan, leaves, names)
    inputs = prepare(plan, mesh, leaves, names)
    locals_, anchor = enter_all(leaves, inputs)
    local_args, local_kwargs = pytree_compat.unflatten(locals_, structure)
    out = plan.func(*local_args, **local_kwargs)
    return wrap(plan, mesh, out, [x.tensor for x in inputs if x is not None], anchor)


@dataclass(frozen=True)
class Input:
    """One DTensor argument as the body wants it, and the placements of the body's gradient of it."""

    tensor: DTensor
    label: Spec


def find_mesh(plan: Plan, leaves: list[Any], names: InputNames) -> DeviceMesh:
    """Return the one mesh that all DTensors are on.

    Raises:
        PlacementError: two meshes.
        ArgumentError: no DTensor and no mesh.
        GroupError: this rank is not in the mesh.
    """
    mesh, first = plan.device_mesh, -1
    for index, leaf in enumerate(leaves):
        if not isinstance(leaf, DTensor):
            continue
        if mesh is None:
            mesh, first = leaf.device_mesh, index
        elif leaf.device_mesh != mesh:
            other = "device_mesh" if first < 0 else names.leaf(first).split(", ", 1)[1]
            raise PlacementError(
                names.leaf(index),
                got=f"a DTensor on {leaf.device_mesh}",
                need=f"the mesh of {other}, {mesh}",
                hint="move the argument to that mesh first",
            )
    if mesh is None:
        raise ArgumentError(
            title(plan.func),
            got="no DTensor among the arguments and no device_mesh",
            need="one of them, to know which ranks the outputs are on",
            hint="to run it on plain tensors call the function itself, which is .__wrapped__ of the mapped one",
        )
    if mesh.get_coordinate() is None:
        raise GroupError(title(plan.func), got="a call on a rank outside the mesh", need="a rank of the mesh")
    return mesh


def prepare(plan: Plan, mesh: DeviceMesh, leaves: list[Any], names: InputNames) -> list[Input | None]:
    """Return each DTensor leaf placed as the body wants it, and None for every other leaf.

    Raises:
        PlacementError: placements are missing, do not fit, or have no gradient where one is required.
        ShapeError: a Shard dim does not exist.
    """
    wanted = spread_inputs(plan.in_placements, leaves, names)
    labels = spread_inputs(plan.in_grad_placements, leaves, names)
    inputs: list[Input | None] = []
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, DTensor):
            where = Leaf(names, index)
            rule = rule_of(leaf, wanted[index], mesh, where)
            label = label_of(leaf, rule, labels[index], mesh, where)
            inputs.append(Input(placed(leaf, dtensor_spec(rule), plan.redistribute_inputs, where), label))
        else:
            inputs.append(None)
    return inputs


def rule_of(x: DTensor, wanted: Wanted, mesh: DeviceMesh, where: Leaf) -> Spec:
    """Return the placements with which `x` enters the body."""
    if wanted is None:
        raise PlacementError(
            str(where),
            got="a DTensor where in_placements has None",
            need="its placements, a list with one per mesh axis",
            hint="a dict by argument name may leave it out: then it is taken as it is",
        )
    if isinstance(wanted, str):
        return tuple(x.placements)
    return check_spec(wanted, mesh, x.ndim, where)


def label_of(x: DTensor, rule: Spec, given: Wanted, mesh: DeviceMesh, where: Leaf) -> Spec:
    """Return the placements of the body's gradient of `x`: what was given, or else what follows from the rule."""
    if given is not None and not isinstance(given, str):
        return check_spec(given, mesh, x.ndim, where)
    if torch.is_grad_enabled() and x.requires_grad:
        refuse_without_gradient(rule, where)
    return gradient_of(rule)


def placed(x: DTensor, spec: Spec, redistribute: bool, where: Leaf) -> DTensor:
    """Return `x` with the placements `spec`.

    Raises:
        PlacementError: it has others, and may not or cannot be redistributed.
    """
    if tuple(x.placements) == spec:
        return x
    if not redistribute:
        raise PlacementError(
            str(where),
            got=f"a DTensor placed {words(x.placements)}",
            need=f"{words(spec)}, as in_placements says",
            hint="redistribute it first, or pass redistribute_inputs=True",
        )
    for now, then in zip(x.placements, spec, strict=True):
        if then.is_partial() and now != then:
            raise PlacementError(
                str(where),
                got=f"a DTensor placed {words(x.placements)}, to be redistributed to {words(spec)}",
                need="placements other than Partial: which shares the ranks should have is not determined",
                hint="let in_placements say Replicate, or build the Partial with DTensor.from_local",
            )
    return x.redistribute(placements=spec)


def refuse_without_gradient(spec: Spec, where: Leaf) -> None:
    """Raise if a gradient would have to pass a reduction that has no exact adjoint here."""
    bad = without_gradient(spec)
    if bad is not None:
        raise PlacementError(
            str(where),
            got=f"{bad!r} for a tensor that requires a gradient",
            need="Shard, Replicate, Partial(sum) or Partial(avg)",
            hint="detach the tensor, or reduce it in the body",
        )


def enter_all(leaves: list[Any], inputs: list[Input | None]) -> tuple[list[Any], torch.Tensor | None]:
    """Return the leaves with local tensors for DTensors, and the anchor that ties outputs to them."""
    locals_, anchor = join([enter(x.tensor, x.label) for x in inputs if x is not None])
    rest = iter(locals_)
    return [leaf if x is None else next(rest) for leaf, x in zip(leaves, inputs, strict=True)], anchor


def wrap(plan: Plan, mesh: DeviceMesh, out: Any, inputs: list[DTensor], anchor: torch.Tensor | None) -> Any:
    """Return the body's output with DTensors for its tensors.

    Raises:
        PlacementError: placements are missing or do not fit.
        ShapeError: a Shard dim does not exist, or pieces do not form a DTensor.
    """
    leaves, structure = pytree_compat.flatten(out)
    names = OutputNames(plan.func, out)
    wanted = spread_outputs(plan.out_placements, out, leaves, names)
    positions = [index for index, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    where = [Leaf(names, index) for index in positions]
    tensors = [checked_output(leaves[i], mesh, w) for i, w in zip(positions, where, strict=True)]
    specs = [output_spec(plan, wanted[i], leaves[i], mesh, w) for i, w in zip(positions, where, strict=True)]
    shapes = global_shapes(Outputs(tensors, specs, where), inputs, mesh, plan.memory)
    for index, y, spec, shape in zip(positions, tensors, specs, shapes, strict=True):
        tie = None if without_gradient(spec) else anchor
        leaves[index] = leave(y, tie, mesh, spec, shape)
    return pytree_compat.unflatten(leaves, structure)


def checked_output(y: torch.Tensor, mesh: DeviceMesh, where: Leaf) -> torch.Tensor:
    """Return a finished local tensor of the mesh's device.

    Raises:
        PlacementError: a DTensor.
        ArgumentError: a tensor on another kind of device.
    """
    if isinstance(y, DTensor):
        raise PlacementError(
            str(where),
            got="a DTensor",
            need="a local tensor",
            hint="a DTensor that the body reaches by closure or attribute is not unwrapped: pass it as an argument",
        )
    if y.device.type != mesh.device_type:
        raise ArgumentError(
            str(where), got=f"a tensor on {y.device.type}", need=f"one on {mesh.device_type}, as the mesh"
        )
    return settled(y)


def output_spec(plan: Plan, wanted: Wanted, y: torch.Tensor, mesh: DeviceMesh, where: Leaf) -> Spec:
    """Return the placements of one output.

    Raises:
        PlacementError: there are none, they do not fit, or have no gradient where one is required.
    """
    if wanted is None or isinstance(wanted, str):
        raise PlacementError(
            str(where),
            got="a tensor, and no out_placements" if plan.out_placements is None else "a tensor placed None",
            need="its placements, a list with one per mesh axis",
            hint="Shard(d) for pieces, Replicate() for equal copies, Partial() for shares that add up",
        )
    spec = check_spec(wanted, mesh, y.ndim, where)
    if torch.is_grad_enabled() and y.requires_grad:
        refuse_without_gradient(spec, where)
    return spec
