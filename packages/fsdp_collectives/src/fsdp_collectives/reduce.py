"""Reduce: every rank's whole gradients become the shards of their mean.

The recipe is `pack_gradients`, one reduce-scatter per lane, `hand_out`. Each gradient is copied, cast and, where a sum
could overflow, divided in one pass; the rest of the division touches only the shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from comm_core import GroupLike, Pending, as_group, transport
from comm_core.errors import ArgumentError, DtypeError
from fsdp_collectives.blocks import all_rows, as_rows, check_tensor, in_order, one_device, own_rows, padding, paired
from fsdp_collectives.lanes import Lane, Slot
from fsdp_collectives.plan import ReducePlan

Gradients = Sequence[torch.Tensor | None] | Mapping[str, torch.Tensor | None]


@dataclass(frozen=True, eq=False)
class Reduced:
    """This rank's shards of the reduced gradients.

    Args:
        plan: what was carried out.
        gradients: one for each of the plan's `specs`, in that order; None where no rank had a gradient.
    """

    plan: ReducePlan
    gradients: tuple[torch.Tensor | None, ...]

    def named(self) -> dict[str, torch.Tensor | None]:
        """Return the gradients by name."""
        return {spec.name: x for spec, x in zip(self.plan.specs, self.gradients, strict=True)}


class PendingReduce:
    """A reduction in flight; `finish` waits for it and hands out the shards.

    Args:
        plan: what is carried out.
        rank: this rank.
        present: whether this rank has each gradient.
        blocks: the reduce-scatter of each lane.
        result: the shards, when nothing had to move.

    Example:
        >>> from comm_core import World
        >>> from fsdp_collectives import ReducePlan, TensorSpec, start_reduce
        >>> plan = ReducePlan.build([TensorSpec("bias", (3,), torch.float32)], world=2)
        >>> def body(group):
        ...     pending = start_reduce(plan, [torch.full((3,), float(group.rank))], group)
        ...     return pending.finish().gradients[0].tolist()  # other work fits in between
        >>> World(2).run(body)
        [[0.5, 0.5], [0.5]]
    """

    def __init__(
        self,
        plan: ReducePlan,
        rank: int,
        present: list[bool],
        blocks: list[Pending],
        result: Reduced | None = None,
    ) -> None:
        self._plan = plan
        self._rank = rank
        self._present = present
        self._blocks = blocks
        self._result = result

    @torch.no_grad()
    def finish(self) -> Reduced:
        """Wait and return the shards; a second call returns the same ones.

        Raises:
            TransportError: the transport failed.
        """
        if self._result is None:
            out: list[torch.Tensor | None] = [None] * len(self._plan.specs)
            for lane, pending in zip(self._plan.lanes, self._blocks, strict=True):
                block = pending.wait()
                for slot, is_used in zip(lane.slots, used_anywhere(lane, block, self._present), strict=True):
                    if is_used:
                        out[slot.index] = hand_out(self._plan, lane, slot, block, self._rank)
            self._blocks = []
            self._result = Reduced(self._plan, tuple(out))
        return self._result


@torch.no_grad()
def start_reduce(
    plan: ReducePlan, gradients: Gradients, group: GroupLike = None, device: torch.device | None = None
) -> PendingReduce:
    """Start to reduce the gradients; do something else, then call `finish`.

    Args:
        plan: made for these parameters and the group's size; the same on every rank.
        gradients: this rank's whole gradients, in the plan's order or by name; None counts as zeros.
        group: anything that `as_group` takes.
        device: where to work when this rank has no gradient at all; the CPU if None.

    Shapes: gradient i is `specs[i].shape`; its shard is `specs[i].shard_shape(world, rank)`.

    Gradient: none is recorded; with `divide_by=1` the adjoint is `gather_parameters`.

    Raises:
        ArgumentError: the plan is for another world, or the number of gradients is wrong.
        ShapeError, DtypeError: a gradient is not what the plan says.

    Example:
        >>> from comm_core import World
        >>> from fsdp_collectives import ReducePlan, TensorSpec, start_reduce
        >>> plan = ReducePlan.build([TensorSpec("bias", (3,), torch.float32)], world=2)
        >>> def body(group):
        ...     pending = start_reduce(plan, [torch.full((3,), float(group.rank))], group)
        ...     return pending.finish().gradients[0].tolist()  # other work fits in between
        >>> World(2).run(body)
        [[0.5, 0.5], [0.5]]
    """
    on = as_group(group)
    wire = transport(on)
    given = _checked_gradients(plan, gradients, wire.world)
    if wire.world == 1:
        return PendingReduce(plan, 0, [], [], _reduced_alone(plan, given))
    found = [x for x in given if x is not None]
    where = one_device("reduce", found) if found else device
    blocks = []
    for lane in plan.lanes:
        buffer = torch.empty(lane.block_numel * wire.world, dtype=lane.dtype, device=where)
        pack_gradients(plan, lane, given, buffer)
        blocks.append(wire.reduce_scatter(buffer, "sum"))
    return PendingReduce(plan, wire.rank, [x is not None for x in given], blocks)


def reduce_gradients(
    plan: ReducePlan, gradients: Gradients, group: GroupLike = None, device: torch.device | None = None
) -> Reduced:
    """Add the gradients over ranks, divide, and keep this rank's shards.

    Args:
        plan: made for these parameters and the group's size; the same on every rank.
        gradients: this rank's whole gradients, in the plan's order or by name; None counts as zeros.
        group: anything that `as_group` takes.
        device: where to work when this rank has no gradient at all; the CPU if None.

    Shapes: gradient i is `specs[i].shape`; its shard is `specs[i].shard_shape(world, rank)`.

    Gradient: none is recorded; with `divide_by=1` the adjoint is `gather_parameters`.

    Raises:
        ArgumentError: the plan is for another world, or the number of gradients is wrong.
        ShapeError, DtypeError: a gradient is not what the plan says.
        TransportError: the transport failed.

    Example:
        >>> from comm_core import World
        >>> from fsdp_collectives import ReducePlan, TensorSpec, reduce_gradients
        >>> plan = ReducePlan.build([TensorSpec("bias", (3,), torch.float32)], world=2)
        >>> def body(group):
        ...     gradient = torch.full((3,), float(group.rank))
        ...     return reduce_gradients(plan, [gradient], group).gradients[0].tolist()
        >>> World(2).run(body)
        [[0.5, 0.5], [0.5]]
    """
    return start_reduce(plan, gradients, group, device).finish()


def pack_gradients(
    plan: ReducePlan, lane: Lane, gradients: Sequence[torch.Tensor | None], buffer: torch.Tensor
) -> None:
    """Fill all ranks' blocks of a lane: gradients cast and divided, zeros in the padding, and the flags."""
    before = plan.divisors(lane).before
    for slot in lane.slots:
        gradient, rows = gradients[slot.index], all_rows(slot, lane, buffer, plan.world)
        if gradient is None:
            rows.zero_()
        elif slot.spec.dim is None:
            _divide_into(rows, as_rows(gradient).expand_as(rows), before)
        else:
            for part, piece in paired(slot, rows, gradient):
                _divide_into(part, piece, before)
            for rest in padding(slot, rows):
                rest.zero_()
    flags = buffer.view(plan.world, lane.block_numel)[:, lane.block_numel - lane.flags :]
    present = [float(gradients[slot.index] is not None) for slot in lane.slots]
    flags.copy_(torch.tensor(present, dtype=lane.dtype).expand_as(flags))


def used_anywhere(lane: Lane, block: torch.Tensor, present: Sequence[bool]) -> list[bool]:
    """Tell which gradients some rank had; the flags are read only if this rank lacks one of them."""
    here = [present[slot.index] for slot in lane.slots]
    if all(here):
        return here
    return [count != 0 for count in block[lane.block_numel - lane.flags :].tolist()]


def hand_out(plan: ReducePlan, lane: Lane, slot: Slot, block: torch.Tensor, rank: int) -> torch.Tensor:
    """Return one shard: a view of the block where the dtype is right, else a copy, divided in place."""
    rows = own_rows(slot, block)[: slot.spec.shard_rows(plan.world)[rank]].to(slot.spec.dtype)
    after = plan.divisors(lane).after
    if after != 1:
        rows.div_(after)
    return rows.view(slot.spec.shard_shape(plan.world, rank))


def _divide_into(out: torch.Tensor, x: torch.Tensor, divisor: float) -> None:
    if divisor == 1:
        out.copy_(x)
    else:
        torch.div(x, divisor, out=out)


def _reduced_alone(plan: ReducePlan, given: list[torch.Tensor | None]) -> Reduced:
    out: list[torch.Tensor | None] = [None] * len(given)
    for i, (spec, x) in enumerate(zip(plan.specs, given, strict=True)):
        if x is not None:
            mine = x.to(spec.dtype, copy=True, memory_format=torch.contiguous_format)
            out[i] = (mine if plan.divide_by == 1 else mine.div_(plan.divide_by)).view(spec.shard_shape(1, 0))
    return Reduced(plan, tuple(out))


def _checked_gradients(plan: ReducePlan, gradients: Gradients, world: int) -> list[torch.Tensor | None]:
    if plan.world != world:
        raise ArgumentError("reduce", got=f"a plan for {plan.world} ranks", need=f"one for the group's {world}")
    given = in_order("reduce", plan.specs, gradients)
    for spec, x in zip(plan.specs, given, strict=True):
        if x is None:
            continue
        check_tensor(spec.where, x, spec.shape, None)
        if _kind(x.dtype) != _kind(spec.dtype):
            raise DtypeError(spec.where, got=f"a gradient of {x.dtype}", need=f"one that casts to {spec.dtype}")
    return [None if x is None else x.detach() for x in given]


def _kind(dtype: torch.dtype) -> str:
    return "complex" if dtype.is_complex else "float" if dtype.is_floating_point else "integer"
