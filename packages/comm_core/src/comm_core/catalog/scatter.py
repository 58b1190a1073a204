"""scatter: every rank gets its own block, along a dim, of one rank's tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from comm_core.catalog.blocks import Fill, beside, check_extent, numels, resized, stacked, viewed
from comm_core.catalog.rules import Emit, batch_last, check_root
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.extents import check_sizes, normalize_dim, total
from comm_core.pending import Pending
from comm_core.transports import Transport


def check(x: torch.Tensor, world: int, rank: int, *, src: int, dim: int, sizes: Sequence[int]) -> Params:
    src = check_root(src, world, "scatter", "src")
    dim = normalize_dim(dim, x.ndim, "scatter")
    sizes = check_sizes(sizes, world, "scatter")
    extent = total(sizes) if rank == src else 0
    said = "the sum of the sizes" if rank == src else "as only the source's blocks are sent"
    check_extent(x, dim, extent, said, "scatter")
    return {"src": src, "dim": dim, "sizes": sizes}


def agrees(x: torch.Tensor, *, src: int, dim: int, sizes: Shape) -> tuple[object, ...]:
    around = beside(tuple(x.shape), dim)
    facts = ("device", x.device.type, "dtype", x.dtype, "shape beside dim", around)
    return (*facts, "src", src, "dim", dim, "sizes", sizes)


def shape(shape: Shape, world: int, rank: int, *, src: int, dim: int, sizes: Shape) -> Shape:
    return resized(shape, dim, sizes[rank])


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    of = params[0]
    blocks = inputs[of["src"]].split(list(of["sizes"]), of["dim"])
    return [block.clone(memory_format=torch.contiguous_format) for block in blocks]


def kernel(wire: Transport, x: torch.Tensor, *, src: int, dim: int, sizes: Shape, fill: Fill | None = None) -> Pending:
    own = resized(tuple(x.shape), dim, sizes[wire.rank])
    received = [math.prod(own) if rank == src else 0 for rank in range(wire.world)]
    blocks = sizes if wire.rank == src else (0,) * wire.world
    sent = numels(x.shape, dim, blocks)
    return viewed(wire.all_to_all(stacked(x, dim, blocks, fill), received, sent), own)


def gradient(emit: Emit, cotangent: torch.Tensor, *, src: int, dim: int, sizes: Shape) -> torch.Tensor:
    return emit("gather", cotangent, dst=src, dim=dim, sizes=sizes)


def wire_bytes(input_bytes: int, world: int, rank: int, *, src: int, dim: int, sizes: Shape) -> int:
    extent = sum(sizes)
    return input_bytes * (extent - sizes[src]) // extent if rank == src and extent else 0


SCATTER = Collective(
    name="scatter",
    summary="Every rank gets its own block, along a dim, of the source rank's tensor.",
    schema="scatter(Tensor x, *, int src, int dim, int[] sizes) -> Tensor",
    check=check,
    agrees=agrees,
    shape=shape,
    oracle=oracle,
    kernel=kernel,
    gradient=gradient,
    identity=gradient,
    partial=missing("the collective is linear"),
    batch=batch_last,
    twin=missing("torch has no functional scatter: it is traced as all_to_all_single with the other blocks empty"),
    in_place=missing("the result has another size than the input"),
    wire_bytes=wire_bytes,
    lowering=Lowering.COMPOSITE,
)
