"""Gather: every rank's shards become the whole parameters on every rank.

The recipe is `pack_shards`, one all-gather per lane, `unpack_full`. Each shard is copied and cast once, straight into
this rank's block of the buffer that the all-gather fills; each whole parameter is copied out of it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from comm_core import GroupLike, Pending, as_group, transport
from comm_core.errors import ArgumentError
from fsdp_collectives.blocks import Tensors, all_rows, as_rows, check_tensor, in_order, one_device, own_rows, paired
from fsdp_collectives.lanes import Lane
from fsdp_collectives.plan import GatherPlan


@dataclass(frozen=True, eq=False)
class Gathered:
    """The whole parameters.

    Args:
        plan: what was carried out.
        tensors: one for each of the plan's `specs`, in that order.
    """

    plan: GatherPlan
    tensors: tuple[torch.Tensor, ...]

    def named(self) -> dict[str, torch.Tensor]:
        """Return the parameters by name."""
        return {spec.name: x for spec, x in zip(self.plan.specs, self.tensors, strict=True)}


class PendingGather:
    """A gather in flight; `finish` waits for it and hands out the parameters.

    Args:
        plan: what is carried out.
        shards: this rank's shards, alive until the end.
        buffers: the all-gather of each lane; empty for a world of one.
        out: tensors to write the parameters into, or None for new ones.

    Example:
        >>> from comm_core import World
        >>> from fsdp_collectives import GatherPlan, TensorSpec, shard_of, start_gather
        >>> spec = TensorSpec("bias", (3,), torch.float32)
        >>> plan = GatherPlan.build([spec], world=2)
        >>> def body(group):
        ...     pending = start_gather(plan, [shard_of(spec, torch.arange(3.0), 2, group.rank)], group)
        ...     return pending.finish().named()["bias"].tolist()  # other work fits in between
        >>> World(2).run(body)
        [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]
    """

    def __init__(
        self,
        plan: GatherPlan,
        shards: list[torch.Tensor],
        buffers: list[Pending],
        out: list[torch.Tensor] | None,
    ) -> None:
        self._plan = plan
        self._shards = shards
        self._buffers = buffers
        self._out = out
        self._result: Gathered | None = None

    @torch.no_grad()
    def finish(self) -> Gathered:
        """Wait and return the parameters; a second call returns the same ones.

        Raises:
            TransportError: the transport failed.
        """
        if self._result is None:
            out = self._out if self._out is not None else empty_full(self._plan, self._shards)
            if self._plan.world == 1:
                copy_full(self._shards, out)
            else:
                copy_whole_kept(self._plan, self._shards, out)
                for lane, pending in zip(self._plan.lanes, self._buffers, strict=True):
                    unpack_full(lane, pending.wait(), self._plan.world, out)
            self._shards, self._buffers = [], []
            self._result = Gathered(self._plan, tuple(out))
        return self._result


@torch.no_grad()
def start_gather(
    plan: GatherPlan, shards: Tensors, group: GroupLike = None, out: Sequence[torch.Tensor] | None = None
) -> PendingGather:
    """Start to put the whole parameters together; do something else, then call `finish`.

    Args:
        plan: made for these shards and the group's size; the same on every rank.
        shards: this rank's shards, in the plan's order or by name.
        group: anything that `as_group` takes.
        out: tensors to write into, in the plan's order; new ones if None.

    Shapes: shard i is `specs[i].shard_shape(world, rank)`; parameter i is `specs[i].shape`.

    Gradient: none is recorded; the adjoint is `reduce_gradients` with `divide_by=1`.

    Raises:
        ArgumentError: the plan is for another world, or the number of tensors is wrong.
        ShapeError, DtypeError: a tensor is not what the plan says.

    Example:
        >>> from comm_core import World
        >>> from fsdp_collectives import GatherPlan, TensorSpec, shard_of, start_gather
        >>> spec = TensorSpec("bias", (3,), torch.float32)
        >>> plan = GatherPlan.build([spec], world=2)
        >>> def body(group):
        ...     pending = start_gather(plan, [shard_of(spec, torch.arange(3.0), 2, group.rank)], group)
        ...     return pending.finish().named()["bias"].tolist()  # other work fits in between
        >>> World(2).run(body)
        [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]
    """
    on = as_group(group)
    wire = transport(on)
    given = _checked_shards(plan, shards, wire.rank, wire.world)
    into = None if out is None else _checked_out(plan, out)
    if wire.world == 1:
        return PendingGather(plan, given, [], into)
    buffers = []
    for lane in plan.lanes:
        buffer = given[0].new_empty(lane.block_numel * wire.world, dtype=lane.dtype)
        mine = buffer.narrow(0, wire.rank * lane.block_numel, lane.block_numel)
        pack_shards(lane, given, mine)
        buffers.append(wire.all_gather(mine, out=buffer) if lane.block_numel else Pending(buffer))
    return PendingGather(plan, given, buffers, into)


def gather_parameters(
    plan: GatherPlan, shards: Tensors, group: GroupLike = None, out: Sequence[torch.Tensor] | None = None
) -> Gathered:
    """Put the whole parameters together on every rank.

    Args:
        plan: made for these shards and the group's size; the same on every rank.
        shards: this rank's shards, in the plan's order or by name.
        group: anything that `as_group` takes.
        out: tensors to write into, in the plan's order; new ones if None.

    Shapes: shard i is `specs[i].shard_shape(world, rank)`; parameter i is `specs[i].shape`.

    Gradient: none is recorded; the adjoint is `reduce_gradients` with `divide_by=1`.

    Raises:
        ArgumentError: the plan is for another world, or the number of tensors is wrong.
        ShapeError, DtypeError: a tensor is not what the plan says.
        TransportError: the transport failed.

    Example:
        >>> from comm_core import World
        >>> from fsdp_collectives import GatherPlan, TensorSpec, gather_parameters, shard_of
        >>> spec = TensorSpec("bias", (3,), torch.float32)
        >>> plan = GatherPlan.build([spec], world=2)
        >>> def body(group):
        ...     shard = shard_of(spec, torch.arange(3.0), 2, group.rank)
        ...     return gather_parameters(plan, [shard], group).named()["bias"].tolist()
        >>> World(2).run(body)
        [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]
    """
    return start_gather(plan, shards, group, out).finish()


def pack_shards(lane: Lane, shards: Sequence[torch.Tensor], block: torch.Tensor) -> None:
    """Copy and cast this rank's shards into its block of a lane, and zero the rows that no parameter has."""
    for slot in lane.slots:
        shard, rows = as_rows(shards[slot.index]), own_rows(slot, block)
        rows[: len(shard)].copy_(shard)
        rows[len(shard) :].zero_()


def unpack_full(lane: Lane, buffer: torch.Tensor, world: int, out: Sequence[torch.Tensor]) -> None:
    """Copy the whole parameters out of all ranks' blocks of a lane."""
    for slot in lane.slots:
        for rows, part in paired(slot, all_rows(slot, lane, buffer, world), out[slot.index]):
            part.copy_(rows)


def empty_full(plan: GatherPlan, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return tensors for the whole parameters, on the shards' device and not filled."""
    return [x.new_empty(spec.shape, dtype=plan.full_dtype(spec)) for spec, x in zip(plan.specs, like, strict=True)]


def copy_full(shards: Sequence[torch.Tensor], out: Sequence[torch.Tensor]) -> None:
    """Copy shards that are whole already."""
    for shard, full in zip(shards, out, strict=True):
        full.copy_(shard.view(full.shape) if not full.ndim else shard)


def copy_whole_kept(plan: GatherPlan, shards: Sequence[torch.Tensor], out: Sequence[torch.Tensor]) -> None:
    """Copy the parameters that every rank keeps whole."""
    for spec, shard, full in zip(plan.specs, shards, out, strict=True):
        if spec.dim is None:
            full.copy_(shard)


def _checked_shards(plan: GatherPlan, shards: Tensors, rank: int, world: int) -> list[torch.Tensor]:
    if plan.world != world:
        raise ArgumentError("gather", got=f"a plan for {plan.world} ranks", need=f"one for the group's {world}")
    given = in_order("gather", plan.specs, shards)
    for spec, shard in zip(plan.specs, given, strict=True):
        check_tensor(spec.where, shard, spec.shard_shape(world, rank), spec.dtype)
    one_device("gather", given)
    return [shard.detach() for shard in given]


def _checked_out(plan: GatherPlan, out: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    into = in_order("gather out", plan.specs, out)
    for spec, full in zip(plan.specs, into, strict=True):
        check_tensor(spec.where, full, spec.shape, plan.full_dtype(spec))
    return into
