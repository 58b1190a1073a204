"""all_gather_v: every rank gets all ranks' tensors, whose sizes along a dim differ, concatenated along it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from comm_core.catalog.blocks import Fill, beside, check_extent, concatenated, in_place, joined, numels, resized
from comm_core.catalog.rules import Emit, batch_last
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.extents import check_sizes, normalize_dim, total
from comm_core.pending import Pending
from comm_core.transports import Transport


def check(x: torch.Tensor, world: int, rank: int, *, dim: int, sizes: Sequence[int]) -> Params:
    dim = normalize_dim(dim, x.ndim, "all_gather_v")
    sizes = check_sizes(sizes, world, "all_gather_v")
    check_extent(x, dim, sizes[rank], f"as sizes[{rank}] says of this rank", "all_gather_v")
    return {"dim": dim, "sizes": sizes}


def agrees(x: torch.Tensor, *, dim: int, sizes: Shape) -> tuple[object, ...]:
    around = beside(tuple(x.shape), dim)
    return ("device", x.device.type, "dtype", x.dtype, "shape beside dim", around, "dim", dim, "sizes", sizes)


def shape(shape: Shape, world: int, rank: int, *, dim: int, sizes: Shape) -> Shape:
    return resized(shape, dim, total(sizes))


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    return [concatenated(inputs, params[0]["dim"]) for _ in inputs]


def kernel(wire: Transport, x: torch.Tensor, *, dim: int, sizes: Shape, fill: Fill | None = None) -> Pending:
    counts = numels(x.shape, dim, sizes)
    sent, room = in_place(x, dim, counts, wire.rank, fill)
    return joined(wire.all_gather_v(sent.reshape(-1), counts, room), x.shape, dim, sizes)


def gradient(emit: Emit, cotangent: torch.Tensor, *, dim: int, sizes: Shape) -> torch.Tensor:
    return emit("reduce_scatter_v", cotangent, reduce_op="sum", dim=dim, sizes=sizes)


def identity(emit: Emit, cotangent: torch.Tensor, *, dim: int, sizes: Shape) -> torch.Tensor:
    return cotangent.narrow(dim, sum(sizes[: emit.rank]), sizes[emit.rank])


def wire_bytes(input_bytes: int, world: int, rank: int, *, dim: int, sizes: Shape) -> int:
    return input_bytes * (world - 1)


ALL_GATHER_V = Collective(
    name="all_gather_v",
    summary="Every rank gets all ranks' tensors, of sizes that may differ along a dim, concatenated along it.",
    schema="all_gather_v(Tensor x, *, int dim, int[] sizes) -> Tensor",
    check=check,
    agrees=agrees,
    shape=shape,
    oracle=oracle,
    kernel=kernel,
    gradient=gradient,
    identity=identity,
    partial=missing("the collective is linear"),
    batch=batch_last,
    twin=missing("torch's all-gather needs equal sizes: it is traced as all_to_all_single of the block, repeated"),
    in_place=missing("the result is larger than the input"),
    wire_bytes=wire_bytes,
    lowering=Lowering.COMPOSITE,
)
