"""The global shapes of outputs: assumed even where inputs are, agreed between the ranks where they may not be.

A rank sees only its own piece, and may not ask the others unless they all ask. So whether to ask is decided from what
every rank knows: the placements and global shapes of the inputs, and what was agreed in earlier calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from comm_core import as_group, catalog, run
from comm_core.errors import ShapeError
from func_map.boundary import uneven_axes
from func_map.placements import Spec, words

_SLOTS = 64  # sizes travel in messages of a multiple of this length, so that ranks agree on it


@dataclass
class Memory:
    """What a mapped function has learned: for which kinds of inputs its outputs are the same size on all ranks."""

    uniform: dict[Any, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Outputs:
    """The tensors that one call of a body returned, and what was said about them.

    Args:
        tensors: the local tensors.
        specs: their placements.
        where: how messages call each.
    """

    tensors: Sequence[torch.Tensor]
    specs: Sequence[Spec]
    where: Sequence[object]


def global_shapes(
    outputs: Outputs, inputs: Sequence[DTensor], mesh: DeviceMesh, memory: Memory
) -> list[tuple[int, ...] | None]:
    """Return each output's global shape, or None where every rank's piece has this rank's size.

    Shapes: DTensor has one layout only, `torch.chunk`'s: sizes that are not it are refused.

    Raises:
        ShapeError: the pieces do not form a DTensor; or the sizes are uneven where ranks cannot ask each other,
            inside `torch.compile`.
    """
    none: list[tuple[int, ...] | None] = [None] * len(outputs.tensors)
    sharded = {axis for spec in outputs.specs for axis, p in enumerate(spec) if isinstance(p, Shard)}
    if not sharded:
        return none
    uneven = {axis for x in inputs for axis in uneven_axes(x)} & sharded
    key = None if torch.compiler.is_compiling() else (mesh, tuple(x.placements for x in inputs), tuple(outputs.specs))
    if not uneven and key is not None and memory.uniform.get(key, False):
        return none
    if not can_ask(outputs.tensors, mesh):
        if uneven:
            raise ShapeError(
                str(outputs.where[0]),
                got=f"an output sharded over mesh axis {min(uneven)}, where an input is sharded unevenly",
                need="even shards inside torch.compile, or on tensors without data",
                hint="pad the inputs, or call it outside of the compiled region",
            )
        return none
    shapes = agree(outputs, mesh)
    if not uneven:
        memory.uniform[key] = all(shape is None for shape in shapes)
    return shapes


def can_ask(tensors: Sequence[torch.Tensor], mesh: DeviceMesh) -> bool:
    """Tell whether the ranks can exchange sizes: not in a traced graph, nor on tensors or groups without data."""
    if torch.compiler.is_compiling():
        return False
    if not all(type(y) in (torch.Tensor, torch.nn.Parameter) or hasattr(y, "trigger_wait") for y in tensors):
        return False
    return as_group((mesh, 0)).backend != "fake"


def agree(outputs: Outputs, mesh: DeviceMesh) -> list[tuple[int, ...] | None]:
    """Exchange sizes between all ranks of the mesh; return the global shapes, None where all sizes are equal.

    Raises:
        ShapeError: on every rank alike, the pieces do not form a DTensor.
    """
    mine: list[int] = []
    for y in outputs.tensors:
        mine.extend([y.ndim, *y.shape])
    length = -(-max(len(mine), 1) // _SLOTS) * _SLOTS
    padded = torch.tensor(mine + [-1] * (length - len(mine)), dtype=torch.int64, device=mesh.device_type)
    gathered = padded
    for axis in reversed(range(mesh.ndim)):
        gathered = run(catalog.ALL_GATHER, gathered, (mesh, axis), dim=0)
    table = gathered.cpu().reshape(*mesh.shape, length)
    shapes: list[tuple[int, ...] | None] = []
    start = 0
    for spec, where in zip(outputs.specs, outputs.where, strict=True):
        ndim = int(table.reshape(-1, length)[0, start])
        column = table[..., start : start + 1 + ndim]
        shapes.append(assemble(column, spec, where))
        start += 1 + ndim
    return shapes


def assemble(column: torch.Tensor, spec: Spec, where: object) -> tuple[int, ...] | None:
    """Return the global shape that all ranks' pieces add up to, or None if all pieces have one size.

    Args:
        column: for every position of the mesh, the number of dims of the piece there and then its sizes.
        spec: the placements.
        where: how messages call the output.

    Raises:
        ShapeError: the pieces are not those of `torch.chunk`, or differ where they must not.

    Example:
        >>> assemble(torch.tensor([[2, 3, 5], [2, 2, 5]]), (Shard(0),), "output")
        (5, 5)
    """
    if int(column[..., 0].min()) != int(column[..., 0].max()):
        raise ShapeError(str(where), got="a different number of dims on different ranks", need="the same on all")
    flat = column.reshape(-1, column.shape[-1])
    if bool((flat == flat[0]).all()):
        return None
    shape = []
    for dim in range(column.shape[-1] - 1):
        sizes = column[..., dim + 1]
        for axis in reversed(range(len(spec))):
            placement = spec[axis]
            if isinstance(placement, Shard) and placement.dim == dim:
                sizes = _total(sizes, axis, dim, where)
        if int(sizes.min()) != int(sizes.max()):
            seen = sorted(set(sizes.flatten().tolist()))
            raise ShapeError(
                str(where),
                got=f"sizes {seen} along dim {dim} on different ranks, placed {words(spec)}",
                need="one size where the output is not sharded",
            )
        shape.append(int(sizes.flatten()[0]))
    return tuple(shape)


def _total(sizes: torch.Tensor, axis: int, dim: int, where: object) -> torch.Tensor:
    """Add up the pieces along one mesh axis, once they are seen to be `torch.chunk`'s."""
    world = sizes.shape[axis]
    total = sizes.sum(axis, keepdim=True)
    chunk = (total + world - 1) // world
    position = torch.arange(world).reshape([-1 if a == axis else 1 for a in range(sizes.ndim)])
    expected = torch.minimum(chunk, (total - chunk * position).clamp(min=0))
    if not bool((sizes == expected).all()):
        bad = int((sizes != expected).any(axis, keepdim=True).flatten().nonzero()[0])
        got = sizes.movedim(axis, -1).reshape(-1, world)[bad].tolist()
        need = expected.movedim(axis, -1).reshape(-1, world)[bad].tolist()
        raise ShapeError(
            str(where),
            got=f"pieces of sizes {got} along dim {dim} over mesh axis {axis}",
            need=f"{need}, the only sizes that a DTensor can have for {sum(got)}",
            hint="pad the pieces, or return them replicated",
        )
    return total
