"""Plans: everything about a gather or a reduction that is known before the first byte moves.

A plan is made from shapes and dtypes alone, with no process group, so it can be printed, compared, stored and tested
on any machine. `gather.py` and `reduce.py` do what it says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from comm_core.catalog import ALL_GATHER, REDUCE_SCATTER
from comm_core.errors import ArgumentError, DtypeError
from fsdp_collectives import plan_json, plan_table
from fsdp_collectives.lanes import Lane, TensorSpec, check_plan_arguments, lay_out


@dataclass(frozen=True)
class GatherPlan:
    """How the whole parameters are put together from every rank's shards; make one with `GatherPlan.build`.

    Args:
        specs: the parameters, in the order in which tensors are handed over.
        world: the number of ranks.
        param_dtype: the dtype that floating-point parameters are gathered in; None keeps each one's own.
        lanes: one collective each.

    Example:
        >>> specs = [TensorSpec("weight", (5, 2), torch.float32), TensorSpec("bias", (5,), torch.float32)]
        >>> plan = GatherPlan.build(specs, world=2)
        >>> [(slot.spec.name, slot.offset, slot.numel) for slot in plan.lanes[0].slots]
        [('weight', 0, 6), ('bias', 6, 3)]
        >>> plan.block_bytes, plan.wire_bytes, plan.padding_bytes
        (36, 36, 12)
        >>> GatherPlan.from_json(plan.to_json()) == plan
        True

    Source: the typed lanes answer FSDP2, which turns a group of mixed dtypes into bytes.
    """

    specs: tuple[TensorSpec, ...]
    world: int
    param_dtype: torch.dtype | None
    lanes: tuple[Lane, ...]

    @classmethod
    def build(cls, specs: Iterable[TensorSpec], world: int, param_dtype: torch.dtype | None = None) -> GatherPlan:
        """Plan the gather of these parameters.

        Raises:
            ArgumentError: the world is not a positive int, or two parameters have one name.
            DtypeError: `param_dtype` is not a floating-point dtype.
        """
        specs = tuple(specs)
        check_plan_arguments("GatherPlan", specs, world)
        check_float("GatherPlan", "param_dtype", param_dtype)
        lanes = lay_out(specs, world, lambda spec: cast_dtype(spec.dtype, param_dtype), copies=False)
        return cls(specs, world, param_dtype, lanes)

    def full_dtype(self, spec: TensorSpec) -> torch.dtype:
        """Return the dtype of a gathered parameter."""
        return cast_dtype(spec.dtype, self.param_dtype)

    @property
    def block_bytes(self) -> int:
        """The bytes that each rank brings, padding included."""
        return sum(lane.block_bytes for lane in self.lanes)

    @property
    def full_bytes(self) -> int:
        """The bytes of the whole parameters that are put together, without padding."""
        return sum(slot.spec.numel * lane.dtype.itemsize for lane in self.lanes for slot in lane.slots)

    @property
    def padding_bytes(self) -> int:
        """The bytes of all ranks' blocks that belong to no parameter."""
        return self.block_bytes * self.world - self.full_bytes

    @property
    def wire_bytes(self) -> int:
        """The bytes that each rank has to send at least."""
        return sum(ALL_GATHER.wire_bytes(lane.block_bytes, self.world, 0, dim=0) for lane in self.lanes)

    @property
    def collectives(self) -> int:
        """How many collectives one gather launches."""
        return 0 if self.world == 1 else sum(lane.block_numel > 0 for lane in self.lanes)

    def to_json(self) -> str:
        """Return the plan as JSON text, with every offset spelled out so that two plans can be compared."""
        return plan_json.dump("gather", self, param_dtype=plan_json.word(self.param_dtype))

    @classmethod
    def from_json(cls, text: str) -> GatherPlan:
        """Return the plan that `to_json` wrote.

        Raises:
            ArgumentError: the text is not a gather plan, or its offsets are not the ones that its shapes give.
        """
        read = plan_json.load("gather", text)
        plan = cls.build(read.specs, read.world, read.dtype("param_dtype"))
        plan_json.check_same(text, plan.to_json(), "gather")
        return plan

    def __str__(self) -> str:
        head = (
            f"gather over {self.world} ranks: each brings {self.block_bytes} bytes and sends {self.wire_bytes}; "
            f"{self.padding_bytes} bytes are padding"
        )
        return plan_table.table(head, self.lanes, self.world)


@dataclass(frozen=True)
class ReducePlan:
    """How every rank's whole gradients become the shards of their mean; make one with `ReducePlan.build`.

    Gradients are added over ranks and divided by `divide_by`, all in the lane's dtype. A flag per tensor travels along,
    so that a gradient that no rank has stays None instead of becoming zeros.

    Args:
        specs: the parameters, in the order in which gradients are handed over; `dtype` is the result's.
        world: the number of ranks.
        reduce_dtype: the dtype that gradients are added in; None takes the parameter's.
        divide_by: what the sum over ranks is divided by.
        lanes: one collective each.

    Example:
        >>> plan = ReducePlan.build([TensorSpec("weight", (5, 2), torch.float32)], world=2)
        >>> plan.divide_by, plan.lanes[0].block_numel
        (2.0, 7)
        >>> ReducePlan.from_json(plan.to_json()) == plan
        True
    """

    specs: tuple[TensorSpec, ...]
    world: int
    reduce_dtype: torch.dtype | None
    divide_by: float
    lanes: tuple[Lane, ...]

    @classmethod
    def build(
        cls,
        specs: Iterable[TensorSpec],
        world: int,
        reduce_dtype: torch.dtype | None = None,
        divide_by: float | None = None,
    ) -> ReducePlan:
        """Plan the reduction of these parameters' gradients; `divide_by` None takes the mean over ranks.

        Raises:
            ArgumentError: the world or the divisor is not positive, or two parameters have one name.
            DtypeError: `reduce_dtype` is not a floating-point dtype, or integers are to be divided.
        """
        specs = tuple(specs)
        check_plan_arguments("ReducePlan", specs, world)
        check_float("ReducePlan", "reduce_dtype", reduce_dtype)
        divisor = float(world) if divide_by is None else check_divisor("ReducePlan", divide_by)
        for spec in specs:
            if divisor != 1 and not (spec.dtype.is_floating_point or spec.dtype.is_complex):
                raise DtypeError(spec.where, got=f"{spec.dtype} to divide by {divisor:g}", need="divide_by=1")
        lanes = lay_out(specs, world, lambda spec: cast_dtype(spec.dtype, reduce_dtype), copies=True)
        return cls(specs, world, reduce_dtype, divisor, lanes)

    def divisors(self, lane: Lane) -> Divisors:
        """Return what gradients are divided by before and after the sum."""
        return split_divisor(self.divide_by, lane.dtype)

    @property
    def block_bytes(self) -> int:
        """The bytes of each rank's result, padding and flags included."""
        return sum(lane.block_bytes for lane in self.lanes)

    @property
    def full_bytes(self) -> int:
        """The bytes of the whole gradients on the wire, without padding, flags and further copies."""
        return sum(slot.spec.numel * lane.dtype.itemsize for lane in self.lanes for slot in lane.slots)

    @property
    def padding_bytes(self) -> int:
        """The bytes of all ranks' blocks beyond one copy of each gradient: padding, flags, copies for every rank."""
        return self.block_bytes * self.world - self.full_bytes

    @property
    def wire_bytes(self) -> int:
        """The bytes that each rank has to send at least."""
        return sum(
            REDUCE_SCATTER.wire_bytes(lane.block_bytes * self.world, self.world, 0, reduce_op="sum", dim=0)
            for lane in self.lanes
        )

    @property
    def collectives(self) -> int:
        """How many collectives one reduction launches."""
        return 0 if self.world == 1 else len(self.lanes)

    def to_json(self) -> str:
        """Return the plan as JSON text, with every offset spelled out so that two plans can be compared."""
        return plan_json.dump("reduce", self, reduce_dtype=plan_json.word(self.reduce_dtype), divide_by=self.divide_by)

    @classmethod
    def from_json(cls, text: str) -> ReducePlan:
        """Return the plan that `to_json` wrote.

        Raises:
            ArgumentError: the text is not a reduce plan, or its offsets are not the ones that its shapes give.
        """
        read = plan_json.load("reduce", text)
        plan = cls.build(read.specs, read.world, read.dtype("reduce_dtype"), read.number("divide_by"))
        plan_json.check_same(text, plan.to_json(), "reduce")
        return plan

    def __str__(self) -> str:
        head = (
            f"reduce over {self.world} ranks, divide by {self.divide_by:g}: each gets {self.block_bytes} bytes "
            f"and sends {self.wire_bytes}; {self.padding_bytes} bytes are padding and flags"
        )
        return plan_table.table(head, self.lanes, self.world)


@dataclass(frozen=True)
class Divisors:
    """What gradients are divided by before and after they are added, and why."""

    before: float
    after: float
    why: str


def split_divisor(divide_by: float, dtype: torch.dtype) -> Divisors:
    """Choose how to divide: after the sum, where only a shard is touched, unless the sum could overflow.

    Example:
        >>> split_divisor(8, torch.float32).after, split_divisor(8, torch.float16).before
        (8, 2)
    """
    if dtype is not torch.float16 or divide_by <= 1:
        return Divisors(1, divide_by, "the sum fits this dtype")
    _, exponent = math.frexp(divide_by)  # exact, where log2 rounds just below a power of 2
    before = 2 ** ((exponent - 1) // 2)
    return Divisors(before, divide_by / before, "a float16 sum could overflow: half of the division goes first")


def cast_dtype(dtype: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    """Return the dtype that a tensor travels in: only floating-point tensors change theirs."""
    return wanted if wanted is not None and dtype.is_floating_point else dtype


def check_float(where: str, what: str, dtype: torch.dtype | None) -> None:
    """Refuse anything but None and the floating-point dtypes.

    Raises:
        DtypeError: it is something else.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise DtypeError(where, got=f"{what}={dtype!r}", need="a floating-point dtype or None")


def check_divisor(where: str, divide_by: float) -> float:
    """Return a divisor of gradients as a float.

    Raises:
        ArgumentError: not a positive finite number.
    """
    number = isinstance(divide_by, (int, float)) and not isinstance(divide_by, bool)
    if not number or not 0 < divide_by < math.inf:
        raise ArgumentError(where, got=f"divide_by={divide_by!r}", need="a positive number")
    return float(divide_by)
