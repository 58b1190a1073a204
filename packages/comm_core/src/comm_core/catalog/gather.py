"""gather: one rank gets all ranks' tensors, concatenated along a dim."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from comm_core.catalog.blocks import Fill, beside, check_extent, concatenated, in_place, joined, numels, resized
from comm_core.catalog.rules import Emit, batch_last, check_root
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.extents import check_sizes, normalize_dim, total
from comm_core.pending import Pending
from comm_core.transports import Transport


def check(x: torch.Tensor, world: int, rank: int, *, dst: int, dim: int, sizes: Sequence[int] | None) -> Params:
    dst = check_root(dst, world, "gather", "dst")
    dim = normalize_dim(dim, x.ndim, "gather")
    if sizes is None:
        return {"dst": dst, "dim": dim, "sizes": (x.shape[dim],) * world}
    sizes = check_sizes(sizes, world, "gather")
    check_extent(x, dim, sizes[rank], f"as sizes[{rank}] says of this rank", "gather")
    return {"dst": dst, "dim": dim, "sizes": sizes}


def agrees(x: torch.Tensor, *, dst: int, dim: int, sizes: Shape) -> tuple[object, ...]:
    around = beside(tuple(x.shape), dim)
    facts = ("device", x.device.type, "dtype", x.dtype, "shape beside dim", around)
    return (*facts, "dst", dst, "dim", dim, "sizes", sizes)


def shape(shape: Shape, world: int, rank: int, *, dst: int, dim: int, sizes: Shape) -> Shape:
    return resized(shape, dim, total(sizes) if rank == dst else 0)


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    dst, dim = params[0]["dst"], params[0]["dim"]
    nothing = [x.new_empty(resized(tuple(x.shape), dim, 0)) for x in inputs]
    return [concatenated(inputs, dim) if rank == dst else empty for rank, empty in enumerate(nothing)]


def kernel(wire: Transport, x: torch.Tensor, *, dst: int, dim: int, sizes: Shape, fill: Fill | None = None) -> Pending:
    here = wire.rank == dst
    blocks = sizes if here else (0,) * wire.world
    counts = numels(x.shape, dim, blocks)
    sent, room = in_place(x, dim, counts, wire.rank, fill)
    splits = [x.numel() if rank == dst else 0 for rank in range(wire.world)]
    return joined(wire.all_to_all(sent.reshape(-1), counts, splits, room), x.shape, dim, blocks)


def gradient(emit: Emit, cotangent: torch.Tensor, *, dst: int, dim: int, sizes: Shape) -> torch.Tensor:
    return emit("scatter", cotangent, src=dst, dim=dim, sizes=sizes)


def wire_bytes(input_bytes: int, world: int, rank: int, *, dst: int, dim: int, sizes: Shape) -> int:
    return 0 if rank == dst else input_bytes


GATHER = Collective(
    name="gather",
    summary="The destination rank gets all ranks' tensors, concatenated along a dim; the others get nothing.",
    schema="gather(Tensor x, *, int dst, int dim, int[]? sizes) -> Tensor",
    check=check,
    agrees=agrees,
    shape=shape,
    oracle=oracle,
    kernel=kernel,
    gradient=gradient,
    identity=gradient,
    partial=missing("the collective is linear"),
    batch=batch_last,
    twin=missing("torch has no functional gather: it is traced as all_to_all_single with the other blocks empty"),
    in_place=missing("the result has another size than the input"),
    wire_bytes=wire_bytes,
    lowering=Lowering.COMPOSITE,
)
