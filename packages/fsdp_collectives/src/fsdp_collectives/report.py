"""Report: what a sharded module holds and moves, unit by unit, computed from the plans alone."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from torch import nn

from fsdp_collectives.engine import sharded
from fsdp_collectives.plan_table import aligned
from fsdp_collectives.sharded_unit import ShardedUnit


@dataclass(frozen=True)
class UnitReport:
    """One unit.

    Args:
        name: the module's name; `"(root)"` for what remains.
        tensors: how many parameters it has, tied ones counted once.
        full_bytes: their bytes while they are whole.
        shard_bytes: the bytes that each rank brings to a gather, padding included.
        padding_bytes: the bytes of a gather, over all ranks, that belong to no parameter.
        gathers: collectives of a training step that gather, one forward and one backward taken.
        reduces: collectives of a training step that reduce gradients.
        wire_bytes: the bytes that each rank sends for them at least.
    """

    name: str
    tensors: int
    full_bytes: int
    shard_bytes: int
    padding_bytes: int
    gathers: int
    reduces: int
    wire_bytes: int


@dataclass(frozen=True)
class Report:
    """All units of a sharded module, for one training step.

    Args:
        world: the number of ranks.
        units: the root first.
    """

    world: int
    units: tuple[UnitReport, ...]

    @property
    def collectives(self) -> int:
        """The collectives of a step."""
        return sum(unit.gathers + unit.reduces for unit in self.units)

    @property
    def wire_bytes(self) -> int:
        """The bytes that each rank sends in a step at least."""
        return sum(unit.wire_bytes for unit in self.units)

    def __str__(self) -> str:
        heads = ["unit", "tensors", "full bytes", "shard bytes", "padding", "gathers", "reduces", "sent bytes"]
        rows = [[str(cell) for cell in astuple(unit)] for unit in self.units]
        head = f"{self.world} ranks: {self.collectives} collectives and {self.wire_bytes} bytes sent per rank and step"
        return "\n".join([head, *aligned([heads, *rows])])


def report(module: nn.Module) -> Report:
    """Say what a sharded module holds and moves in one training step; nothing is communicated.

    Raises:
        ArgumentError: `shard` was not called on the module.

    Example:
        >>> from comm_core.testing import run_ranks
        >>> def body(group):
        ...     import torch
        ...     from torch.distributed.device_mesh import init_device_mesh
        ...     from fsdp_collectives import report, shard
        ...     blocks = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
        ...     return report(shard(blocks, init_device_mesh("cpu", (group.world,))))
        >>> done = run_ranks(body, world=2)[0]
        >>> [(unit.name, unit.full_bytes, unit.gathers, unit.reduces) for unit in done.units]
        [('0', 80, 2, 1), ('1', 40, 2, 1)]
        >>> done.collectives
        6
    """
    state = sharded(module)
    return Report(state.mesh.size(), tuple(_unit(unit) for unit in state.units))


def _unit(unit: ShardedUnit) -> UnitReport:
    plans = unit.plans
    times = 2 if unit.reshards else 1
    reduces = plans.reduce.collectives
    return UnitReport(
        name=unit.name or "(root)",
        tensors=len(unit.entries),
        full_bytes=plans.gather.full_bytes,
        shard_bytes=plans.gather.block_bytes,
        padding_bytes=plans.gather.padding_bytes,
        gathers=times * plans.gather.collectives,
        reduces=reduces,
        wire_bytes=times * plans.gather.wire_bytes + plans.reduce.wire_bytes,
    )
