"""all_to_all: rank i sends its j-th block along dim 0 to rank j."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from comm_core.catalog.rules import Emit, batch_last
from comm_core.collective import Collective, Lowering, Params, Shape, missing
from comm_core.compat import holds
from comm_core.errors import MismatchError, ShapeError, said
from comm_core.extents import even_split, normalize_dim, sizes_of
from comm_core.pending import Pending
from comm_core.transports import Transport

Splits = Sequence[int] | None


def check(x: torch.Tensor, world: int, rank: int, *, output_splits: Splits, input_splits: Splits) -> Params:
    normalize_dim(0, x.ndim, "all_to_all")
    if output_splits is None and input_splits is None:
        even = (even_split(x.shape[0], world, "all_to_all"),) * world
        return {"output_splits": even, "input_splits": even}
    if output_splits is None or input_splits is None:
        given = "input" if output_splits is None else "output"
        raise ShapeError("all_to_all", got=f"only {given} splits", need="both split lists, or neither")
    output_splits, input_splits = parsed(output_splits, world, "output"), parsed(input_splits, world, "input")
    if not holds(sum(input_splits) == x.shape[0]):
        raise ShapeError(
            "all_to_all",
            got=f"input splits {list(input_splits)}, which sum to {sum(input_splits)}",
            need=f"a sum of {x.shape[0]}, the size of dim 0",
        )
    if not holds(output_splits[rank] == input_splits[rank]):
        raise ShapeError(
            "all_to_all",
            got=f"rank {rank} sends itself {input_splits[rank]} rows and expects {output_splits[rank]}",
            need=f"output_splits[{rank}] == input_splits[{rank}]",
        )
    return {"output_splits": output_splits, "input_splits": input_splits}


def parsed(splits: object, world: int, side: str) -> Shape:
    """Return a list of splits as sizes.

    Raises:
        ShapeError: not one size for each rank.
    """
    sizes = sizes_of(splits, world)
    if sizes is None:
        need = f"one size of at least 0 for each of {world} ranks"
        raise ShapeError("all_to_all", got=f"{side} splits {said(splits)}", need=need)
    return sizes


def agrees(x: torch.Tensor, *, output_splits: Shape, input_splits: Shape) -> tuple[object, ...]:
    return ("device", x.device.type, "dtype", x.dtype, "shape behind dim 0", tuple(x.shape[1:]))


def shape(shape: Shape, world: int, rank: int, *, output_splits: Shape, input_splits: Shape) -> Shape:
    return (sum(output_splits), *shape[1:])


def oracle(inputs: Sequence[torch.Tensor], params: Sequence[Params]) -> list[torch.Tensor]:
    for sender, sent in enumerate(params):
        for receiver, received in enumerate(params):
            sends, expects = sent["input_splits"][receiver], received["output_splits"][sender]
            if sends != expects:
                raise MismatchError(
                    "all_to_all",
                    got=f"rank {sender} sends {sends} rows to rank {receiver}, which expects {expects}",
                    need="input_splits[j] on rank i equal to output_splits[i] on rank j",
                )
    blocks = [x.split(list(of["input_splits"])) for x, of in zip(inputs, params, strict=True)]
    return [torch.cat([sent[rank] for sent in blocks]) for rank in range(len(inputs))]


def kernel(wire: Transport, x: torch.Tensor, *, output_splits: Shape, input_splits: Shape) -> Pending:
    return wire.all_to_all(x.contiguous(), output_splits, input_splits)


def gradient(emit: Emit, cotangent: torch.Tensor, *, output_splits: Shape, input_splits: Shape) -> torch.Tensor:
    return emit("all_to_all", cotangent, output_splits=input_splits, input_splits=output_splits)


def wire_bytes(input_bytes: int, world: int, rank: int, *, output_splits: Shape, input_splits: Shape) -> int:
    rows = sum(input_splits)
    return input_bytes * (rows - input_splits[rank]) // rows if rows else 0


ALL_TO_ALL = Collective(
    name="all_to_all",
    summary="Every rank sends its j-th block along dim 0 to rank j and concatenates what it receives.",
    schema="all_to_all(Tensor x, *, int[]? output_splits, int[]? input_splits) -> Tensor",
    check=check,
    agrees=agrees,
    shape=shape,
    oracle=oracle,
    kernel=kernel,
    gradient=gradient,
    identity=gradient,
    partial=missing("the collective is linear"),
    batch=batch_last,
    twin="all_to_all_single",
    in_place=missing("blocks change places, so the input cannot be written while it is sent"),
    wire_bytes=wire_bytes,
    lowering=Lowering.OUT_OF_PLACE,
)
