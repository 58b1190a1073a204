"""The shared core of commbook: the catalogue of collectives, groups, the simulator, errors and test ranks.

A name is imported from its module when it is first asked for, so that a package which needs the errors only, as
comm_shm does, does not pay for the catalogue.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comm_core import catalog, errors
    from comm_core.catalog import CATALOG
    from comm_core.checking import checked
    from comm_core.collective import Collective, Lowering, Missing, missing
    from comm_core.execution import launch, run, start
    from comm_core.groups import Group, GroupLike, as_group
    from comm_core.pending import Pending
    from comm_core.premul import premul_sum
    from comm_core.settling import wait
    from comm_core.simulate import SimulatedGroup, World
    from comm_core.symmetric import SymmetricBuffer, SymmetricMemory, symmetric_memory
    from comm_core.transports import Transport
    from comm_core.wires import transport

__version__ = "0.1.0"

_NAMES = {
    "catalog": ("CATALOG",),
    "checking": ("checked",),
    "collective": ("Collective", "Lowering", "Missing", "missing"),
    "errors": (),
    "execution": ("launch", "run", "start"),
    "groups": ("Group", "GroupLike", "as_group"),
    "pending": ("Pending",),
    "premul": ("premul_sum",),
    "settling": ("wait",),
    "simulate": ("SimulatedGroup", "World"),
    "symmetric": ("SymmetricBuffer", "SymmetricMemory", "symmetric_memory"),
    "transports": ("Transport",),
    "wires": ("transport",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "CATALOG",
    "Collective",
    "Group",
    "GroupLike",
    "Lowering",
    "Missing",
    "Pending",
    "SimulatedGroup",
    "SymmetricBuffer",
    "SymmetricMemory",
    "Transport",
    "World",
    "as_group",
    "catalog",
    "checked",
    "errors",
    "launch",
    "missing",
    "premul_sum",
    "run",
    "start",
    "symmetric_memory",
    "transport",
    "wait",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(import_module(f"comm_core.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name in _NAMES:
        return import_module(f"comm_core.{name}")
    raise AttributeError(f"module 'comm_core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
