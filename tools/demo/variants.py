"""The four ways to train the same model; each returns what the table shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from model import Transformer, attention, mlp, new_model, new_optimizer
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from traffic import Traffic

import comm_lowering
import fsdp_collectives
import functional_collectives as fc
from func_map import local_map

Batch = tuple[torch.Tensor, torch.Tensor]
Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Progress = Callable[[int, float], None]


@dataclass(frozen=True)
class Outcome:
    """One row of the table."""

    name: str
    losses: list[float]
    steps_per_second: float
    collectives: int = 0
    bytes: int = 0
    report: str = ""


def train(name: str, model: nn.Module, step: Step, batches: list[Batch], progress: Progress) -> Outcome:
    """Train, and time all steps but the first two, which allocate and may compile."""
    optimizer = new_optimizer(model)
    losses, began = [], 0.0
    progress(0, float("nan"))
    for number, batch in enumerate(batches):
        if number == 2:
            began = time.perf_counter()
        losses.append(update(step, optimizer, batch))
        progress(number + 1, losses[-1])
    return Outcome(name, losses, (len(batches) - 2) / (time.perf_counter() - began))


def update(step: Step, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    """Do one step of training and return its loss."""
    optimizer.zero_grad()
    loss = step(*batch)
    loss.backward()
    optimizer.step()
    return loss.item()


def single_process(batches: list[Batch], progress: Progress) -> Outcome:
    """Train in one process: the reference."""
    model = new_model()
    return train("single process", model, model, batches, progress)


def parallel_attention(x: torch.Tensor, qkv: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Run this rank's heads and add up all ranks' shares of the output."""
    return fc.all_reduce(attention(x, qkv, out), "sum")


def parallel_mlp(x: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Run this rank's hidden units and add up all ranks' shares of the output."""
    return fc.all_reduce(mlp(x, up, down), "sum")


def tensor_parallel_model(mesh: DeviceMesh) -> Transformer:
    """Return the model with heads and hidden units split over the ranks, everything else replicated."""
    model = new_model()
    rows, columns, whole = [Shard(0)], [Shard(1)], [Replicate()]
    placements = {"qkv": rows, "up": rows, "out": columns, "down": columns}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            placed = distribute_tensor(parameter.detach(), mesh, placements.get(name, whole))
            setattr(module, name, nn.Parameter(placed))
    for block in model.blocks:
        maps = {"out_placements": whole, "in_placements": (whole, rows, columns), "device_mesh": mesh}
        block.attention = local_map(parallel_attention, **maps)
        block.mlp = local_map(parallel_mlp, **maps)
    return model


def replicated(step: Step, mesh: DeviceMesh) -> Step:
    """Return a step that takes plain batches, the same on every rank, and gives a plain loss."""

    def on_mesh(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        placed = [DTensor.from_local(x, mesh, [Replicate()], run_check=False) for x in (text, following)]
        loss = step(*placed)
        return loss.to_local() if isinstance(loss, DTensor) else loss

    return on_mesh


def tensor_parallel(batches: list[Batch], progress: Progress) -> Outcome:
    """Train with layers written with `func_map` and `functional_collectives`."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = tensor_parallel_model(mesh)
    step = replicated(model, mesh)
    return counted(train("tensor parallel", model, step, batches, progress), model, step, batches[0])


def sharded(batches: list[Batch], progress: Progress) -> Outcome:
    """Train with parameters sharded by `fsdp_collectives`; each rank has its share of the batch."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = fsdp_collectives.shard(new_model(), mesh)
    rank, world = dist.get_rank(), dist.get_world_size()
    mine = [(text.chunk(world)[rank], following.chunk(world)[rank]) for text, following in batches]
    outcome = counted(train("fully sharded", model, model, mine, progress), model, model, mine[0])
    means = fc.all_reduce(torch.tensor(outcome.losses), "avg").tolist()
    return Outcome(outcome.name, means, outcome.steps_per_second, outcome.collectives, outcome.bytes)


def compiled(batches: list[Batch], progress: Progress) -> Outcome:
    """Train tensor-parallel with the step compiled and its collectives lowered by `comm_lowering`."""
    comm_lowering.enable()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = tensor_parallel_model(mesh)
    step = replicated(torch.compile(model), mesh)
    outcome = train("compiled, lowered", model, step, batches, progress)
    reports = comm_lowering.reports()
    records = [record for report in reports for record in report.collectives]
    comm_lowering.disable()
    return Outcome(
        outcome.name,
        outcome.losses,
        outcome.steps_per_second,
        len(records),
        sum(record.nbytes or 0 for record in records),
        "\n\n".join(map(str, reports)),
    )


def counted(outcome: Outcome, model: nn.Module, step: Step, batch: Batch) -> Outcome:
    """Add the collectives and bytes of one more step to an outcome."""
    optimizer = new_optimizer(model)
    with Traffic() as traffic:
        update(step, optimizer, batch)
    return Outcome(outcome.name, outcome.losses, outcome.steps_per_second, traffic.collectives, traffic.bytes)


PARALLEL = {"tensor parallel": tensor_parallel, "fully sharded": sharded, "compiled, lowered": compiled}
