"""Where every tensor stands in a block: tensors of one dtype share a lane, and a lane is one collective.

A lane's buffer has `world` blocks of `block_numel` elements, one per rank. Inside each block every tensor has a slot
at the same offset, so the shard of a tensor is one run of a block and the whole tensor is the same run of all blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from comm_core.errors import ArgumentError, DtypeError, ShapeError
from comm_core.extents import ceil_div, chunk_sizes


@dataclass(frozen=True)
class TensorSpec:
    """One parameter, as a plan sees it.

    Args:
        name: what errors, tables and results call it.
        shape: the shape of the whole tensor; a 0-D tensor counts as one row.
        dtype: the dtype of the shards.
        dim: 0 to split the rows as `torch.chunk` does, None to keep the whole tensor on every rank.

    Raises:
        ShapeError: another dim, or a negative size.
        DtypeError: `dtype` is not a torch dtype.

    Example:
        >>> TensorSpec("weight", (5, 2), torch.float32).shard_shape(world=2, rank=1)
        (2, 2)
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    dim: int | None = 0

    def __post_init__(self) -> None:
        if not isinstance(self.dtype, torch.dtype):
            raise DtypeError(self.where, got=f"dtype {self.dtype!r}", need="a torch.dtype")
        if not all(isinstance(size, int) and size >= 0 for size in self.shape):
            raise ShapeError(self.where, got=f"shape {self.shape}", need="sizes of at least 0")
        object.__setattr__(self, "shape", tuple(self.shape))
        if self.dim is not None and (self.dim != 0 or isinstance(self.dim, bool)):
            raise ShapeError(
                self.where,
                got=f"shard dim {self.dim!r}",
                need="0, or None for a copy on every rank",
                hint="store the parameter transposed to split another of its dims",
            )

    @property
    def where(self) -> str:
        """How errors name this tensor."""
        return f"tensor {self.name!r}"

    @property
    def rows(self) -> int:
        """The size of dim 0."""
        return self.shape[0] if self.shape else 1

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        return self.shape[1:]

    @property
    def numel(self) -> int:
        """The number of elements of the whole tensor."""
        return math.prod(self.shape)

    def shard_rows(self, world: int) -> list[int]:
        """Return how many rows each rank has."""
        return [self.rows] * world if self.dim is None else chunk_sizes(self.rows, world)

    def shard_shape(self, world: int, rank: int) -> tuple[int, ...]:
        """Return the shape of a rank's shard; the shard of a 0-D tensor has one row or none."""
        return self.shape if self.dim is None else (self.shard_rows(world)[rank], *self.row_shape)


@dataclass(frozen=True)
class Slot:
    """A tensor's place in a block.

    Args:
        spec: the tensor.
        index: its position in the plan's `specs`.
        offset: its first element in the block.
        rows: the rows set aside in each block.
    """

    spec: TensorSpec
    index: int
    offset: int
    rows: int

    @cached_property
    def numel(self) -> int:
        """The elements set aside in each block."""
        return self.rows * math.prod(self.spec.row_shape)


@dataclass(frozen=True)
class Lane:
    """The tensors that travel together because they have one dtype.

    Args:
        dtype: the dtype on the wire.
        slots: the tensors, in the plan's order, one after another.
        flags: elements at the end of the block that are not parameters.
    """

    dtype: torch.dtype
    slots: tuple[Slot, ...]
    flags: int = 0

    @cached_property
    def block_numel(self) -> int:
        """The elements of one rank's block."""
        return sum(slot.numel for slot in self.slots) + self.flags

    @property
    def block_bytes(self) -> int:
        """The bytes of one rank's block."""
        return self.block_numel * self.dtype.itemsize


def lay_out(
    specs: Sequence[TensorSpec],
    world: int,
    wire_dtype: Callable[[TensorSpec], torch.dtype],
    copies: bool,
) -> tuple[Lane, ...]:
    """Give every tensor its slot: one lane per wire dtype, slots in the order of `specs`.

    Args:
        specs: the tensors.
        world: the number of ranks.
        wire_dtype: which dtype a tensor travels in.
        copies: whether tensors that every rank keeps whole have slots, and each lane a flag per tensor.
    """
    lanes: dict[torch.dtype, list[Slot]] = {}
    for index, spec in enumerate(specs):
        if spec.dim is None and not copies:
            continue
        slots = lanes.setdefault(wire_dtype(spec), [])
        offset = slots[-1].offset + slots[-1].numel if slots else 0
        rows = spec.rows if spec.dim is None else ceil_div(spec.rows, world)
        slots.append(Slot(spec, index, offset, rows))
    return tuple(Lane(dtype, tuple(slots), len(slots) if copies else 0) for dtype, slots in lanes.items())


def check_plan_arguments(where: str, specs: Sequence[TensorSpec], world: int) -> None:
    """Refuse worlds that are no number of ranks and names that say two things.

    Raises:
        ArgumentError: one of the two.
    """
    if not isinstance(world, int) or isinstance(world, bool) or world < 1:
        raise ArgumentError(where, got=f"world {world!r}", need="a positive number of ranks")
    names = [spec.name for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ArgumentError(where, got=f"several tensors called {twice[0]!r}", need="different names")
