"""Groups: every spelling of "these ranks" is parsed here, once, into one frozen value."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias, cast

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from comm_core import compat
from comm_core.errors import GroupError, said


@dataclass(frozen=True, slots=True)
class Group:
    """A process group as commbook sees it.

    Args:
        name: c10d's name of the group; unique in the process.
        rank: this process's position in the group.
        world: the number of ranks in the group.
        ranks: the global rank of each position.
        backend: c10d's name of the transport, for example `"gloo"`.
        source: the process group itself, held weakly; None where only the name is known, as in a graph.

    Attributes:
        kept: what others keep with the group, such as its transport; it goes when the process group goes.
    """

    name: str
    rank: int
    world: int
    ranks: tuple[int, ...]
    backend: str
    source: weakref.ref[dist.ProcessGroup] | None = field(default=None, compare=False, repr=False)
    kept: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    is_simulated: ClassVar[bool] = False

    def __reduce__(self) -> tuple[Any, ...]:
        return Group, (self.name, self.rank, self.world, self.ranks, self.backend)

    @property
    def process_group(self) -> dist.ProcessGroup:
        """The c10d process group.

        Raises:
            GroupError: it has been destroyed since.
        """
        if self.source is not None:
            known = self.source()
            if known is not None and compat.is_registered(known):
                return known
            raise self._destroyed()  # not by name: another group may have it by now
        try:
            return compat.group_by_name(self.name)
        except (RuntimeError, LookupError) as error:
            raise self._destroyed() from error

    def _destroyed(self) -> GroupError:
        got = f"group {self.name!r}, which has been destroyed"
        return GroupError("group", got=got, need="a group of this process")


class AnyGroup(Protocol):
    """What every group says of itself: a `Group` of a process, or a `comm_core.SimulatedGroup`."""

    @property
    def name(self) -> str:
        """The name by which c10d's ops find it."""
        ...

    @property
    def rank(self) -> int:
        """This rank's position in it."""
        ...

    @property
    def world(self) -> int:
        """The number of its ranks."""
        ...

    @property
    def ranks(self) -> tuple[int, ...]:
        """The global rank of each position."""
        ...

    @property
    def backend(self) -> str:
        """The name of what moves its bytes."""
        ...

    @property
    def is_simulated(self) -> bool:
        """Whether it is a group of a `World`."""
        ...

    @property
    def process_group(self) -> dist.ProcessGroup:
        """It as torch's own functions take it."""
        ...


GroupLike: TypeAlias = (
    "AnyGroup | dist.ProcessGroup | DeviceMesh | tuple[DeviceMesh, int | str] | str | Sequence[int] | None"
)

_Parsed = tuple[weakref.ref[dist.ProcessGroup], Group]
_parsed: dict[int, _Parsed] = {}  # of each living ProcessGroup, by its id()
_simulated = threading.local()  # .group: the SimulatedGroup of this thread while a World runs


@compat.never_compiled  # Dynamo takes a look at what it does not know of a process group for an error of its own
def as_group(group: GroupLike = None) -> AnyGroup:
    """Return the one value that stands for a group, from any of its spellings.

    Args:
        group: None for the default group (in a simulated rank: the simulated one), a `ProcessGroup`, a
            `DeviceMesh` (an n-D mesh is flattened, so all its ranks must ask), `(mesh, axis)` with the axis as
            index or name, a group name, a list of global ranks that some group has, or a `Group`.

    Raises:
        GroupError: it names no group of this process, or one that this rank is not in.

    Example:
        >>> from comm_core import World
        >>> World(3).run(lambda group: (as_group().rank, as_group().world))
        [(0, 3), (1, 3), (2, 3)]
    """
    found = _parsed.get(id(group))  # the question of every call, so not asked by `_known`
    if found is not None and found[0]() is group:
        return found[1]
    if isinstance(group, Group):
        return group
    if group is None:
        return _default_group()
    if getattr(group, "is_simulated", False):
        return cast(AnyGroup, group)
    if isinstance(group, str):
        return _named_group(group)
    if isinstance(group, tuple) and group and isinstance(group[0], DeviceMesh):
        return _parse(_axis_group(*group))
    if isinstance(group, DeviceMesh):
        _check_member(group)
        mesh = group if group.ndim == 1 else compat.flatten_mesh(group)
        return _parse(mesh.get_group())
    if isinstance(group, (list, tuple)):
        return _parse(_group_of_ranks(group))
    if isinstance(group, dist.ProcessGroup):
        return _parse(group)
    if cast(object, group) is dist.GroupMember.NON_GROUP_MEMBER:
        raise GroupError(
            "group",
            got="the placeholder that new_group() gives to ranks outside the group",
            need="a group that this rank is in",
            hint="call the collective only on the ranks of the group",
        )
    raise GroupError(
        "group",
        got=f"a {type(group).__name__}",
        need="a ProcessGroup, DeviceMesh, (mesh, axis), group name, list of ranks, simulated group or None",
    )


def _known(group: object) -> Group | None:
    """Return what was made of this very object before: an equal name may be another group's by now."""
    found = _parsed.get(id(group))
    return found[1] if found is not None and found[0]() is group else None


def _parse(group: dist.ProcessGroup) -> AnyGroup:
    name = group.group_name
    group = compat.group_by_name(name)  # under Dynamo the argument is a stand-in
    simulated: AnyGroup | None = getattr(group, "simulated", None)
    if simulated is not None:
        return simulated
    known = _known(group)
    if known is not None:
        return known
    rank = group.rank()
    if rank < 0:
        raise GroupError("group", got=f"group {name!r}", need="a group that this rank is in")
    ranks, backend = tuple(dist.get_process_group_ranks(group)), dist.get_backend(group)
    if not compat.is_registered(group):
        return Group(name, rank, group.size(), ranks, backend)
    source = weakref.ref(group, functools.partial(_forget, id(group), _parsed))
    found = Group(name, rank, group.size(), ranks, backend, source)
    _parsed[id(group)] = source, found
    return found


def _forget(key: int, parsed: dict[int, _Parsed], source: weakref.ref[dist.ProcessGroup]) -> None:
    """Drop a group that is gone; `parsed` is handed over, as this module's names may be gone too when Python ends."""
    if key in parsed and parsed[key][0] is source:
        del parsed[key]


def _default_group() -> AnyGroup:
    simulated: AnyGroup | None = getattr(_simulated, "group", None)
    if simulated is not None:
        return simulated
    if not dist.is_initialized():
        raise GroupError(
            "group",
            got="None, and this process has no default group",
            need="an initialised process group",
            hint="call torch.distributed.init_process_group(), or run the function in comm_core.World(n).run(fn)",
        )
    default = cast(dist.ProcessGroup, dist.group.WORLD)
    return _known(default) or _parse(default)


def _named_group(name: str) -> AnyGroup:
    try:
        found = compat.group_by_name(name)
    except (RuntimeError, LookupError, ValueError) as error:
        known = ", ".join(repr(group.group_name) for group, _ in compat.known_groups()) or "none"
        raise GroupError("group", got=f"the name {name!r}", need=f"the name of a group; known: {known}") from error
    return _parse(found)


def _axis_group(mesh: DeviceMesh, axis: int | str = 0, *rest: object) -> dist.ProcessGroup:
    names = mesh.mesh_dim_names or ()
    by_name = isinstance(axis, str) and axis in names
    by_index = isinstance(axis, int) and not isinstance(axis, bool) and -mesh.ndim <= axis < mesh.ndim
    if rest or not (by_name or by_index):
        raise GroupError(
            "group",
            got=f"axis {said(axis)} of a mesh" + (f" and {len(rest)} more" if rest else ""),
            need=f"an index from {-mesh.ndim} to {mesh.ndim - 1}"
            + (f" or a name of {', '.join(names)}" if names else "; this mesh has no axis names"),
        )
    _check_member(mesh)
    return mesh.get_group(axis if isinstance(axis, str) else axis % mesh.ndim)


def _check_member(mesh: DeviceMesh) -> None:
    if mesh.get_coordinate() is None:
        raise GroupError("group", got=f"a mesh of shape {tuple(mesh.shape)}", need="a group that this rank is in")


def _group_of_ranks(ranks: Sequence[int]) -> dist.ProcessGroup:
    wanted = tuple(ranks)
    if not all(isinstance(rank, int) for rank in wanted) or len(set(wanted)) != len(wanted) or not wanted:
        raise GroupError("group", got=f"ranks {said(list(ranks))}", need="a list of different global ranks (ints)")
    for group, members in compat.known_groups():
        if members == wanted:
            return group
    ordered = next((list(members) for _, members in compat.known_groups() if sorted(members) == sorted(wanted)), None)
    raise GroupError(
        "group",
        got=f"ranks {list(wanted)}",
        need="the ranks of an existing group, in its order",
        hint=f"results would come in the order of the group of {ordered}; to have them so, pass that list"
        if ordered
        else f"make it once, on every rank of the job, with torch.distributed.new_group({list(wanted)})",
    )
