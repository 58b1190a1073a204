"""Claim: between hosts, shared memory inside each costs less than gloo between all ranks.

The hosts are made on one machine, by dividing its ranks with `COMM_SHM_HOST`: between them is the loopback device, as
quick as memory. So the figures say what the work on the hosts costs; what a network is spared is in the bytes. Both
backends run in the same processes, taking turns.

    python tools/bench/shm_hosts.py [--layout aabb] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _machine import machine

from comm_core.testing import run_ranks

SIZES = [4 << 10, 64 << 10, 1 << 20, 8 << 20]
TURNS = 3
BUDGET_BYTES = 8 << 20
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")


def calls_of(size: int, world: int) -> dict[str, Callable[[Any], object]]:
    """Return the calls that are compared; the bytes are those of the whole tensor."""
    import torch
    import torch.distributed as dist

    part = torch.zeros(size // 4 // world)
    whole, other = torch.zeros(part.numel() * world), torch.zeros(part.numel() * world)
    return {
        "all_reduce": lambda group: dist.all_reduce(whole, group=group),
        "all_gather": lambda group: dist.all_gather_into_tensor(whole, part, group=group),
        "reduce_scatter": lambda group: dist.reduce_scatter_tensor(part, whole, group=group),
        "all_to_all": lambda group: dist.all_to_all_single(other, whole, group=group),
        "broadcast": lambda group: dist.broadcast(whole, 0, group=group),
    }


def measure(group: Any, layout: str, turns: int) -> dict[str, dict[str, list[float]]]:
    """Return the median seconds of each collective for each backend and size, on this rank."""
    import os
    import statistics
    import time

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ["COMM_SHM_HOST"] = layout[group.rank]
    groups = {name: dist.new_group(backend=name) for name in ("gloo", "shm")}
    del os.environ["COMM_SHM_HOST"]
    medians: dict[str, dict[str, list[float]]] = {what: {name: [] for name in groups} for what in COLLECTIVES}
    for size in SIZES:
        for what, call in calls_of(size, group.world).items():
            seen: dict[str, list[float]] = {name: [] for name in groups}
            for turn in range(turns + 1):
                for name, members in groups.items():
                    for _ in range(max(3, min(20, BUDGET_BYTES // size))):
                        began = time.perf_counter()
                        call(members)
                        if turn > 0:  # the first turn warms up
                            seen[name].append(time.perf_counter() - began)
            for name, times in seen.items():
                medians[what][name].append(statistics.median(times))
    return medians


def main() -> None:
    """Run on this machine and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layout", default="aabb", help="a letter for each rank's host")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    ranks = len(arguments.layout)
    per_rank = run_ranks(measure, ranks, "gloo", timeout=600.0, args=(arguments.layout, TURNS))
    rows = []
    print(f"float32, {ranks} ranks on hosts {arguments.layout}: medians of one run")
    print(f"{'collective':>15} {'bytes':>10} {'gloo us':>10} {'shm us':>10} {'shm/gloo':>9}")
    for what in COLLECTIVES:
        for place, size in enumerate(SIZES):
            gloo, shm = (max(rank[what][name][place] for rank in per_rank) * 1e6 for name in ("gloo", "shm"))
            rows.append({"collective": what, "bytes": size, "gloo_us": gloo, "shm_us": shm, "ratio": shm / gloo})
            print(f"{what:>15} {size:>10} {gloo:>10.1f} {shm:>10.1f} {shm / gloo:>9.3f}")
    if arguments.json is not None:
        written = {"machine": machine(), "layout": arguments.layout, "rows": rows}
        arguments.json.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
