"""The group of a compiled call: parsed while Dynamo traces, and a constant of the graph.

Dynamo walks this file, so it stays plain: module-level functions, no closures from factories.
"""

from __future__ import annotations

from typing import Any, cast

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from comm_core.compat import constant_in_graphs
from comm_core.errors import GroupError
from comm_core.groups import Group, GroupLike, as_group
from comm_core.simulate import SimulatedGroup


def compiled_group(group: GroupLike) -> Group:
    """Parse the group of a compiled call: a constant of the graph, guarded by Dynamo.

    Raises:
        GroupError: None inside a simulated rank, whose code other ranks share: nothing would tell them apart.
    """
    if isinstance(group, SimulatedGroup):
        found = constant_group(group.name, None)
    elif isinstance(group, tuple) and group and isinstance(group[0], DeviceMesh):
        found = constant_group(group[0], dist.group.WORLD, *map(constant_axis, group[1:]))
    elif isinstance(group, (list, tuple)):
        found = constant_group([constant_rank(rank) for rank in group], dist.group.WORLD)
    else:  # The world is read here, so that Dynamo guards on it: in another one a name means another group.
        found = constant_group(group, dist.group.WORLD)
    if isinstance(found, tuple):
        raise GroupError(*found)
    return found


def constant_rank(rank: Any) -> Any:
    """Return a rank as a constant of the graph: of a list's ints, too, Dynamo may have made symbols, on some ranks.

    The length of a string is always a constant to it, which what `int` gives is not (2.11 to 2.14).
    """
    if not isinstance(rank, int):
        return rank
    return len("." * rank) if rank >= 0 else -len("." * -rank)


def constant_axis(axis: Any) -> Any:
    """Return an axis of a mesh as a constant of the graph: Dynamo may have made a symbol of an int."""
    return axis if isinstance(axis, str) else next((place for place in range(-8, 8) if place == axis), None)


@constant_in_graphs
def constant_group(group: GroupLike, world: object, *axis: Any) -> Group | tuple[str, str, str, str]:
    """Parse a group at compile time; Dynamo guards on what it was given, and on the world it was parsed in.

    A refusal is returned, not raised: an error from here would look like one of Dynamo's own.
    """
    try:
        on = as_group((cast(Any, group), *axis) if axis else group)
        if isinstance(on, SimulatedGroup) and group is None:
            need = "the group that the rank was given"
            return "group", "None in a compiled function on a simulated rank", need, ""
        if isinstance(group, Group):
            on.process_group  # noqa: B018 - which asks whether it is still there
    except GroupError as error:
        return error.where, error.got, error.need, error.hint
    return Group(on.name, on.rank, on.world, on.ranks, on.backend)
