"""Claim: all_reduce of float32 between the ranks of one machine costs a small part over shm of what it costs over gloo.

Both backends run in the same processes, taking turns, so that the ratio holds whatever else the machine does. With more
ranks than cores the tail counts too: the 99th percentile is at most 10 medians:

    python tools/bench/shm_all_reduce.py [--ranks 2 4 8] [--bytes 4096 ...] [--json PREFIX]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _machine import machine

from comm_core.testing import run_ranks

SIZES = [4 << (2 * power) for power in range(12)] + [32 << 20]  # bytes: 4, 16, ... 16 Mi, and 32 Mi
OF_MORE = {4: [4 << 10, 64 << 10, 1 << 20], 8: [4 << 10]}  # bytes, with more ranks than cores
MOST_TAIL = 10.0
TURNS = 5
BUDGET_BYTES = 8 << 20


Times = dict[str, list[tuple[float, float]]]


def measure(group: Any, sizes: list[int], turns: int) -> Times:
    """Return the median and the 99th percentile of the seconds of `dist.all_reduce` for each backend and size."""
    import statistics
    import time

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    groups = {name: dist.new_group(backend=name) for name in ("gloo", "shm")}
    figures: Times = {name: [] for name in groups}
    for size in sizes:
        x = torch.ones(size // 4)
        calls = max(3, min(100, BUDGET_BYTES // size))
        seen: dict[str, list[float]] = {name: [] for name in groups}
        for turn in range(turns + 1):
            for name, members in groups.items():
                x.fill_(1.0)
                for call in range(calls + 1):
                    began = time.perf_counter()
                    dist.all_reduce(x, op=dist.ReduceOp.MAX, group=members)
                    if turn > 0 and call > 0:  # the first turn warms up, and the first call waits for the other backend
                        seen[name].append(time.perf_counter() - began)
        for name, times in seen.items():
            figures[name].append((statistics.median(times), sorted(times)[len(times) * 99 // 100]))
    return figures


def limit(ranks: int, size: int) -> float | None:
    """Return the most that shm may take as a part of gloo's time; None where nothing is claimed."""
    if ranks > 2:
        return 0.1 if size == 4 << 10 else None
    return 0.03 if size <= 64 << 10 else 0.2 if size >= 1 << 20 else None


def table(sizes: list[int], per_rank: list[Times]) -> list[dict[str, Any]]:
    """Return one row a size: microseconds of each backend, of the slowest rank, their ratio, and shm's tail."""
    rows = []
    for place, size in enumerate(sizes):
        gloo, shm = (max(rank[name][place][0] for rank in per_rank) * 1e6 for name in ("gloo", "shm"))
        tail = max(rank["shm"][place][1] for rank in per_rank) * 1e6
        most = limit(len(per_rank), size)
        rows.append(
            {"bytes": size, "gloo_us": gloo, "shm_us": shm, "ratio": shm / gloo, "limit": most, "p99": tail / shm}
        )
    return rows


def report(ranks: int, sizes: list[int]) -> dict[str, Any]:
    """Measure, print the table, and return it as it is written to a file."""
    rows = table(sizes, run_ranks(measure, ranks, "gloo", timeout=600.0, args=(sizes, TURNS)))
    print(f"dist.all_reduce, float32, {ranks} ranks: medians of one run")
    print(f"{'bytes':>10} {'gloo us':>10} {'shm us':>10} {'shm/gloo':>9} {'at most':>8} {'p99/median':>11}")
    for row in rows:
        most = "" if row["limit"] is None else row["limit"]
        print(
            f"{row['bytes']:>10} {row['gloo_us']:>10.1f} {row['shm_us']:>10.1f} {row['ratio']:>9.3f} {most:>8} "
            f"{row['p99']:>11.1f}"
        )
    limits = [{"column": "p99", "most": MOST_TAIL}] if ranks > 2 else []
    return {"claim": "shm_all_reduce", "ranks": ranks, "machine": machine(), "limits": limits, "rows": rows}


def main() -> None:
    """Run on this machine and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, *OF_MORE])
    parser.add_argument("--bytes", type=int, nargs="+", help="by default those of the page of speeds")
    parser.add_argument("--json", type=str, help="write the rows of n ranks to PREFIX_n.json as well")
    arguments = parser.parse_args()
    for ranks in arguments.ranks:
        made = report(ranks, arguments.bytes or OF_MORE.get(ranks, SIZES))
        if arguments.json is not None:
            Path(f"{arguments.json}_{ranks}.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
