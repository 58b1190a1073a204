"""Units: which parameters are gathered together, and where in the module they are used.

Every element of a ModuleList or Sequential is a unit; what remains is the root's. A parameter belongs to the nearest
unit around it, and one that several units share belongs to the root, whose parameters are whole throughout forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

from comm_core.errors import ArgumentError, PlacementError
from fsdp_collectives.compat import registered_modules, registered_parameters


@dataclass(frozen=True)
class Place:
    """One attribute that holds a parameter."""

    owner: nn.Module
    attribute: str


@dataclass(frozen=True)
class Entry:
    """A parameter of a unit: its first name, and every place that holds it (several when weights are tied)."""

    name: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Members:
    """A unit before it is sharded.

    Args:
        name: the module's name in the root; `""` for the root.
        module: the module whose forward uses the parameters.
        entries: its parameters.
    """

    name: str
    module: nn.Module
    entries: tuple[Entry, ...]


@dataclass
class _Found:
    """A parameter met on the walk: all its places, and the units that use it."""

    name: str
    places: list[Place] = field(default_factory=list)
    units: set[int] = field(default_factory=set)


def find_units(root: nn.Module, smallest: int = 0) -> list[Members]:
    """Divide a module's parameters into units, the root first.

    Args:
        root: the module.
        smallest: elements with fewer parameters than this stay in the unit around them.

    Raises:
        ArgumentError: the module has no parameters, or has a part whose parameters cannot be swapped.
        PlacementError: its parameters are DTensors already.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> [(unit.name, [entry.name for entry in unit.entries]) for unit in find_units(model)]
        [('', []), ('0', ['0.weight', '0.bias']), ('2', ['2.weight', '2.bias'])]
    """
    check_module(root)
    homes: dict[int, tuple[str, nn.Module]] = {id(root): ("", root)}
    found: dict[int, _Found] = {}
    for name, module, unit in _walk(root, "", root, smallest):
        if unit is module:
            homes.setdefault(id(module), (name, module))
        for attribute, parameter in registered_parameters(module).items():
            one = found.setdefault(id(parameter), _Found(_join(name, attribute)))
            place = Place(module, attribute)
            if place not in one.places:
                one.places.append(place)
            one.units.add(id(unit))
    entries: dict[int, list[Entry]] = {unit: [] for unit in homes}
    for one in found.values():
        home = next(iter(one.units)) if len(one.units) == 1 else id(root)
        entries[home].append(Entry(one.name, tuple(one.places)))
    return [
        Members(name, module, tuple(entries[unit]))
        for unit, (name, module) in homes.items()
        if entries[unit] or module is root
    ]


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _walk(module: nn.Module, name: str, unit: nn.Module, smallest: int) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Visit every module by every path: its name, itself, and the unit that it is in."""
    yield name, module, unit
    holds_units = isinstance(module, (nn.ModuleList, nn.Sequential))
    for key, child in registered_modules(module).items():
        starts = holds_units and _can_be_unit(child, smallest)
        yield from _walk(child, _join(name, key), child if starts else unit, smallest)


def _can_be_unit(module: nn.Module, smallest: int) -> bool:
    """Tell whether a module has a forward to hook, and enough parameters."""
    if type(module).forward is nn.Module.forward:
        return False
    return sum(p.numel() for p in module.parameters()) >= max(smallest, 1)


def check_module(root: nn.Module) -> None:
    """Refuse what cannot be sharded.

    Raises:
        ArgumentError: it is no module with parameters on one real device, or it keeps them in a second place.
        PlacementError: its parameters are DTensors already.
    """
    if not isinstance(root, nn.Module):
        raise ArgumentError("shard", got=f"a {type(root).__name__}", need="a torch.nn.Module")
    parameters = dict(root.named_parameters())
    if not parameters:
        raise ArgumentError("shard", got="a module without parameters", need="at least one parameter")
    for name, parameter in parameters.items():
        _check_parameter(name, parameter)
    devices = {parameter.device for parameter in parameters.values()}
    if len(devices) > 1:
        where = ", ".join(sorted(map(str, devices)))
        raise ArgumentError("shard", got=f"parameters on {where}", need="parameters on one device")
    for name, module in root.named_modules():
        if isinstance(module, nn.RNNBase):
            raise ArgumentError(
                "shard",
                got=f"{name!r}, a {type(module).__name__}, which keeps a second list of its weights",
                need="modules that use their parameters as attributes",
                hint="shard the modules around it one by one",
            )


def _check_parameter(name: str, parameter: nn.Parameter) -> None:
    if hasattr(parameter, "to_local"):
        raise PlacementError(
            "shard",
            got=f"parameter {name!r}, which is a DTensor already",
            need="plain parameters",
            hint="shard a module once, at its root",
        )
    if isinstance(parameter, nn.UninitializedParameter) or parameter.device.type == "meta":
        raise ArgumentError(
            "shard",
            got=f"parameter {name!r} without data (lazy, or on the meta device)",
            need="parameters with data",
            hint="call module.to_empty(device=...) and initialise it, or run a lazy module once",
        )
