"""Claim: all_gather and reduce_scatter of float32 cost a small part over shm of what they cost over gloo.

Both backends run in the same processes, taking turns, so that the ratio holds whatever else the machine does. The bytes
are those of the whole tensor: the output of all_gather, the input of reduce_scatter.

    python tools/bench/shm_movement.py [--ranks 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from _machine import machine

from comm_core.testing import run_ranks

SIZES = [64, 4 << 10, 64 << 10, 1 << 20, 4 << 20, 32 << 20]
TURNS = 5
BUDGET_BYTES = 8 << 20
COLLECTIVES = ("all_gather", "reduce_scatter", "all_to_all", "broadcast")


def measure(group: Any, sizes: list[int], turns: int) -> dict[str, dict[str, list[float]]]:
    """Return the median seconds of each collective for each backend and size, on this rank."""
    import statistics
    import time

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    groups = {name: dist.new_group(backend=name) for name in ("gloo", "shm")}
    medians: dict[str, dict[str, list[float]]] = {what: {name: [] for name in groups} for what in COLLECTIVES}
    for size in sizes:
        whole, other = torch.ones(size // 4), torch.ones(size // 4)
        part = torch.ones(size // 4 // group.world)
        whole, other = whole[: part.numel() * group.world], other[: part.numel() * group.world]
        calls: dict[str, Callable[[Any], object]] = {
            "all_gather": partial(_all_gather, whole, part),
            "reduce_scatter": partial(_reduce_scatter, part, whole),
            "all_to_all": partial(_all_to_all, other, whole),
            "broadcast": partial(_broadcast, whole),
        }
        for what, call in calls.items():
            seen: dict[str, list[float]] = {name: [] for name in groups}
            for turn in range(turns + 1):
                for name, members in groups.items():
                    for _ in range(max(3, min(100, BUDGET_BYTES // size))):
                        began = time.perf_counter()
                        call(members)
                        if turn > 0:  # the first turn warms up
                            seen[name].append(time.perf_counter() - began)
            for name, times in seen.items():
                medians[what][name].append(statistics.median(times))
    return medians


def _all_gather(out: Any, x: Any, group: Any) -> None:
    import torch.distributed as dist

    dist.all_gather_into_tensor(out, x, group=group)


def _reduce_scatter(out: Any, x: Any, group: Any) -> None:
    import torch.distributed as dist

    dist.reduce_scatter_tensor(out, x, op=dist.ReduceOp.MAX, group=group)


def _all_to_all(out: Any, x: Any, group: Any) -> None:
    import torch.distributed as dist

    dist.all_to_all_single(out, x, group=group)


def _broadcast(x: Any, group: Any) -> None:
    import torch.distributed as dist

    dist.broadcast(x, 0, group=group)


def table(sizes: list[int], per_rank: list[dict[str, dict[str, list[float]]]]) -> list[dict[str, Any]]:
    """Return one row a collective and size: microseconds of each backend, the slowest rank's, and their ratio."""
    rows = []
    for what in COLLECTIVES:
        for place, size in enumerate(sizes):
            gloo, shm = (max(rank[what][name][place] for rank in per_rank) * 1e6 for name in ("gloo", "shm"))
            rows.append({"collective": what, "bytes": size, "gloo_us": gloo, "shm_us": shm, "ratio": shm / gloo})
    return rows


def main() -> None:
    """Run on this machine and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    rows = table(SIZES, run_ranks(measure, arguments.ranks, "gloo", timeout=600.0, args=(SIZES, TURNS)))
    print(f"float32, {arguments.ranks} ranks: medians of one run")
    print(f"{'collective':>15} {'bytes':>10} {'gloo us':>10} {'shm us':>10} {'shm/gloo':>9}")
    for row in rows:
        print(
            f"{row['collective']:>15} {row['bytes']:>10} {row['gloo_us']:>10.1f} {row['shm_us']:>10.1f} "
            f"{row['ratio']:>9.3f}"
        )
    if arguments.json is not None:
        what = {"claim": "shm_movement", "ranks": arguments.ranks, "machine": machine(), "rows": rows}
        arguments.json.write_text(json.dumps(what, indent=1) + "\n")


if __name__ == "__main__":
    main()
