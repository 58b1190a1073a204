"""Claim: a step of torch's fully_shard on CPU costs at most half over shm of what it costs over gloo.

A transformer of 5M parameters trains in the same processes over both backends, taking turns with c10d's fake one, which
moves nothing and waits for nobody (fully_shard's own work), and with the model alone. After the run both backends have
the same losses, up to the rounding of gloo's order.

    python tools/bench/shm_fully_shard.py [--ranks 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _machine import machine

from comm_core.testing import run_ranks

TURNS = 6
STEPS = 3
LIMIT = 0.5
WORDS = {
    "gloo": "fully_shard over gloo",
    "shm": "fully_shard over comm_shm",
    "fake": "fully_shard that moves nothing",
    "bare": "the model alone",
}


def measure(group: Any, turns: int, steps: int) -> dict[str, Any]:
    """Return the median seconds of a step for each backend and `bare`, and the last losses, on this rank."""
    import statistics
    import time

    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    from comm_core.testing.rank_compat import register_fake_backend

    register_fake_backend()
    torch.set_num_threads(1)

    def build(backend: str) -> tuple[Any, Any]:
        torch.manual_seed(0)
        layers = [nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True) for _ in range(6)]
        model = nn.Sequential(*layers, nn.Linear(256, 256))
        if backend != "bare":
            ranks = list(range(group.world))
            members = dist.new_group(ranks, backend=backend)
            mesh = DeviceMesh.from_group(members, "cpu", ranks)
            for layer in layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
        return model, torch.optim.SGD(model.parameters(), lr=0.01)

    x = torch.randn(2, 32, 256, generator=torch.Generator().manual_seed(group.rank))
    trained = {backend: build(backend) for backend in ("gloo", "shm", "fake", "bare")}
    seen: dict[str, list[float]] = {backend: [] for backend in trained}
    losses: dict[str, float] = {}
    for turn in range(turns + 1):
        for backend, (model, optimizer) in trained.items():
            for _ in range(steps):
                began = time.perf_counter()
                loss = model(x).square().mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                if turn > 0:  # the first turn warms up
                    seen[backend].append(time.perf_counter() - began)
                losses[backend] = loss.item()
    return {"seconds": {name: statistics.median(times) for name, times in seen.items()}, "losses": losses}


def main() -> None:
    """Run on this machine and print the step times."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    per_rank = run_ranks(measure, arguments.ranks, "gloo", timeout=600.0, args=(TURNS, STEPS))
    for rank, answer in enumerate(per_rank):
        gloo, shm = answer["losses"]["gloo"], answer["losses"]["shm"]
        if abs(gloo - shm) > 1e-4 * abs(gloo):
            raise SystemExit(f"rank {rank}: got loss {shm} over shm; need that over gloo, {gloo}")
    slowest = {name: max(answer["seconds"][name] for answer in per_rank) for name in per_rank[0]["seconds"]}
    rows = [
        {"what": WORDS[name], "ms": seconds * 1e3, "ratio": seconds / slowest["gloo"], "limit": None}
        for name, seconds in slowest.items()
    ]
    rows[1]["limit"] = LIMIT
    for row in rows:
        print(f"{row['what']:>30}: {row['ms']:7.1f} ms a step, {row['ratio']:.3f} of gloo's")
    if arguments.json is not None:
        what = {"claim": "shm_fully_shard", "machine": machine(), "ranks": arguments.ranks, "rows": rows}
        arguments.json.write_text(json.dumps(what, indent=1) + "\n")


if __name__ == "__main__":
    main()
