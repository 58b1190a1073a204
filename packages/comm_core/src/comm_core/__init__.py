"""The shared core of commbook: the catalogue of collectives, groups, the simulator, errors and test ranks."""

from comm_core import catalog, errors
from comm_core.catalog import CATALOG
from comm_core.checking import checked
from comm_core.collective import Collective, Lowering, Missing, missing
from comm_core.execution import launch, run, start, transport, wait
from comm_core.groups import Group, GroupLike, as_group
from comm_core.pending import Pending
from comm_core.premul import premul_sum
from comm_core.simulate import SimulatedGroup, World
from comm_core.symmetric import SymmetricBuffer, SymmetricMemory, symmetric_memory
from comm_core.transports import Transport

__version__ = "0.1.0"

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
