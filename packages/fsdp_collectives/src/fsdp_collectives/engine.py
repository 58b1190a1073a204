"""The reference engine: `shard` makes a module's parameters DTensors, and hooks gather and reduce them.

`units.py` says which parameters go together, `sharded_unit.py` holds them, `hooks.py` is forward, `visit.py` backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from comm_core import as_group
from comm_core.errors import ArgumentError, GroupError
from fsdp_collectives.blocks import shard_of
from fsdp_collectives.hooks import UnitHooks
from fsdp_collectives.lanes import TensorSpec
from fsdp_collectives.policy import Policy
from fsdp_collectives.sharded_unit import ShardedUnit
from fsdp_collectives.units import Entry, find_units
from fsdp_collectives.visit import Visit

AnyModule = TypeVar("AnyModule", bound=nn.Module)

_STATE = "_fsdp_collectives"


@dataclass(frozen=True)
class Sharded:
    """What `shard` has made of a module.

    Args:
        units: the root first; units without parameters are left out.
        mesh: the ranks.
        policy: the choices.
    """

    units: tuple[ShardedUnit, ...]
    mesh: DeviceMesh
    policy: Policy


def shard(module: AnyModule, mesh: DeviceMesh, policy: Policy | None = None) -> AnyModule:
    """Split a module's parameters over the ranks of a mesh, in place, and train it as before.

    Every parameter becomes a DTensor with placement `Shard(0)` of this rank's rows; a 0-D one stays whole on every
    rank, `Replicate()`. A unit (every element of a ModuleList or Sequential and, for what remains, the root) has whole
    parameters only while its forward or backward runs. Gradients arrive as DTensors in `.grad`: the mean over ranks,
    added up over backwards until they are zeroed. Build the optimizer after this call, from `module.parameters()`.

    Call it on every rank. Ranks must then call the same units in the same order; the data may differ.

    Args:
        module: a module with plain parameters on the mesh's device.
        mesh: a 1-D mesh, for example `init_device_mesh("cpu", (4,))` or `mesh["data"]`.
        policy: dtypes, divisor and more; the default computes in the parameters' own dtype.

    Returns:
        The same module.

    Gradient: of the mean over ranks of the local losses (`policy.divide_by` for another divisor).

    Raises:
        GroupError: `mesh` is not a 1-D DeviceMesh of the parameters' device.
        ArgumentError: the module has no parameters, or some without data, on several devices or kept in a second place.
        PlacementError: it has been sharded already.

    Example:
        >>> import torch
        >>> from comm_core.testing import run_ranks
        >>> def body(group):
        ...     from torch.distributed.device_mesh import init_device_mesh
        ...     from fsdp_collectives import shard
        ...     torch.manual_seed(0)
        ...     model = shard(torch.nn.Linear(2, 3), init_device_mesh("cpu", (group.world,)))
        ...     model(torch.full((1, 2), float(group.rank))).sum().backward()
        ...     return model.weight.grad.to_local().tolist()
        >>> run_ranks(body, world=2)
        [[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5]]]

    Source: gathering and freeing around every module follows PyTorch's fully_shard; the node that reduces does not.
    """
    policy = _checked_policy(policy)
    found = find_units(module, policy.smallest_unit)
    _check_mesh(mesh, next(module.parameters()).device)
    group = as_group(mesh)
    for members in found:
        for entry in members.entries:
            _replace(entry, mesh)
    units = tuple(
        ShardedUnit(members, group, policy, policy.reshard_after_forward and bool(members.name))
        for members in found
        if members.entries
    )
    for unit in units:
        UnitHooks(unit).install()
    vars(module)[_STATE] = Sharded(units, mesh, policy)
    return module


def sharded(module: nn.Module) -> Sharded:
    """Return what `shard` has made of a module.

    Raises:
        ArgumentError: nothing, so far.
    """
    state = vars(module).get(_STATE) if isinstance(module, nn.Module) else None
    if not isinstance(state, Sharded):
        raise ArgumentError(
            "sharded module",
            got=f"a {type(module).__name__} that shard() was not called on",
            need="the module that was given to shard()",
        )
    return state


@contextmanager
def full_parameters(module: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Make all parameters whole, to read them: `module.weight` and the dict that this yields.

    All ranks enter together. What is written into the tensors is lost.

    Raises:
        ArgumentError: `shard` was not called on the module.

    Example:
        >>> from comm_core.testing import run_ranks
        >>> def body(group):
        ...     import torch
        ...     from torch.distributed.device_mesh import init_device_mesh
        ...     from fsdp_collectives import full_parameters, shard
        ...     model = shard(torch.nn.Linear(2, 3), init_device_mesh("cpu", (group.world,)))
        ...     with full_parameters(model) as full:
        ...         return {name: tuple(x.shape) for name, x in full.items()}
        >>> run_ranks(body, world=2)[1]
        {'weight': (3, 2), 'bias': (3,)}
    """
    units = sharded(module).units
    visits: list[Visit] = []
    try:
        for unit in units:
            visits.append(Visit(unit, for_reading=True))
            unit.open.append(visits[-1])
            unit.show()
        yield {
            entry.name: x
            for unit, visit in zip(units, visits, strict=True)
            for entry, x in zip(unit.entries, visit.full, strict=True)
        }
    finally:
        for visit in visits:
            visit.unit.open.remove(visit)
            visit.unit.show()


def _replace(entry: Entry, mesh: DeviceMesh) -> None:
    """Put the DTensor of this rank's rows in every place of a parameter."""
    first = entry.places[0]
    old: nn.Parameter = getattr(first.owner, first.attribute)
    spec = TensorSpec(entry.name, tuple(old.shape), old.dtype, 0 if old.ndim else None)
    part = shard_of(spec, old.detach(), mesh.size(), mesh.get_local_rank())
    data = DTensor.from_local(
        part.clone(memory_format=torch.contiguous_format),
        mesh,
        [Shard(0) if old.ndim else Replicate()],
        run_check=False,
        shape=old.shape,
        stride=torch.empty(old.shape, device="meta").stride(),
    )
    new = nn.Parameter(data, requires_grad=old.requires_grad)
    vars(new).update(vars(old))
    for place in entry.places:
        place.owner.register_parameter(place.attribute, new)


def _checked_policy(policy: Policy | None) -> Policy:
    if policy is not None and not isinstance(policy, Policy):
        raise ArgumentError("shard", got=f"policy of type {type(policy).__name__}", need="a Policy or None")
    return policy or Policy()


def _check_mesh(mesh: DeviceMesh, device: torch.device) -> None:
    if not isinstance(mesh, DeviceMesh):
        raise GroupError(
            "shard",
            got=f"a {type(mesh).__name__} as mesh",
            need="a 1-D DeviceMesh, because the parameters become DTensors",
            hint='make one with torch.distributed.device_mesh.init_device_mesh("cpu", (world,))',
        )
    if mesh.ndim != 1:
        raise GroupError(
            "shard", got=f"a {mesh.ndim}-D mesh", need="a 1-D mesh", hint='pass one axis, as in mesh["data"]'
        )
    if mesh.device_type != device.type:
        raise GroupError(
            "shard", got=f"a mesh of {mesh.device_type}", need=f"a mesh of {device.type}, as the parameters"
        )
