"""Which transport moves the bytes of a group: a process group's, the simulator's, or the one that emits a graph's ops.

Dynamo walks this file, so it stays plain: module-level functions, no closures from factories.
"""

from __future__ import annotations

from typing import Any

import torch

from comm_core import checking
from comm_core.compiled_groups import compiled_group
from comm_core.groups import AnyGroup, GroupLike, as_group
from comm_core.simulate import SimulatedGroup, SimulatedTransport
from comm_core.simulated_process_group import SimulatedTracedTransport
from comm_core.traced_transport import TracedTransport
from comm_core.transports import ProcessGroupTransport, Transport


def process_transport(group: AnyGroup) -> ProcessGroupTransport:
    """Return the transport of a process group, which is made once and kept with it."""
    kept: dict[str, Any] = group.kept  # type: ignore[attr-defined]  # a simulated group has no process's transport
    known: ProcessGroupTransport | None = kept.get("transport")
    if known is None:
        known = kept["transport"] = ProcessGroupTransport(group)
    return known


def transport(group: GroupLike = None) -> Transport:
    """Return what moves contiguous blocks between the ranks of a group.

    Raises:
        GroupError: as `as_group` does.

    Example:
        >>> from comm_core import World
        >>> World(2).run(lambda group: transport(group).all_gather(torch.tensor([group.rank])).wait().tolist())
        [[0, 1], [0, 1]]
    """
    if torch.compiler.is_compiling():
        return traced_transport(compiled_group(group))
    return moving_transport(as_group(group))


def moving_transport(on: AnyGroup) -> Transport:
    """Return what moves bytes; ops of graphs ask for it, while another thread may be compiling."""
    if isinstance(on, SimulatedGroup):
        return SimulatedTransport(on)
    wire = process_transport(on)
    return wire if checking.mode is None else checking.CheckedTransport(wire, on)


def traced_transport(group: AnyGroup, waits: bool = True) -> TracedTransport:
    """Return the transport that emits a graph's ops, each with its wait or without."""
    simulated = group.backend == SimulatedGroup.backend
    return SimulatedTracedTransport(group, waits) if simulated else TracedTransport(group, waits)
