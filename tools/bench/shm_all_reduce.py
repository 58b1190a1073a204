"""Claim: all_reduce of float32 between the ranks of one machine costs a small part over shm of what it costs over gloo.

Both backends run in the same processes, taking turns, so that the ratio holds whatever else the machine does:

    python tools/bench/shm_all_reduce.py [--ranks 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from comm_core.testing import run_ranks

SIZES = [4 << (2 * power) for power in range(12)] + [32 << 20]  # bytes: 4, 16, ... 16 Mi, and 32 Mi
TURNS = 5
BUDGET_BYTES = 8 << 20


def measure(group: Any, sizes: list[int], turns: int) -> dict[str, list[float]]:
    """Return the median seconds of `dist.all_reduce` for each backend and size; the slowest rank counts."""
    import statistics
    import time

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    groups = {name: dist.new_group(backend=name) for name in ("gloo", "shm")}
    medians: dict[str, list[float]] = {name: [] for name in groups}
    for size in sizes:
        x = torch.ones(size // 4)
        calls = max(3, min(100, BUDGET_BYTES // size))
        seen: dict[str, list[float]] = {name: [] for name in groups}
        for turn in range(turns + 1):
            for name, members in groups.items():
                x.fill_(1.0)
                for _ in range(calls):
                    began = time.perf_counter()
                    dist.all_reduce(x, op=dist.ReduceOp.MAX, group=members)
                    if turn > 0:  # the first turn warms up
                        seen[name].append(time.perf_counter() - began)
        for name, times in seen.items():
            medians[name].append(statistics.median(times))
    return medians


def table(sizes: list[int], per_rank: list[dict[str, list[float]]]) -> list[dict[str, float]]:
    """Return one row a size: microseconds of each backend and their ratio."""
    rows = []
    for place, size in enumerate(sizes):
        gloo, shm = (max(rank[name][place] for rank in per_rank) * 1e6 for name in ("gloo", "shm"))
        rows.append({"bytes": size, "gloo_us": gloo, "shm_us": shm, "ratio": shm / gloo})
    return rows


def main() -> None:
    """Run on this machine and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    rows = table(SIZES, run_ranks(measure, arguments.ranks, "gloo", timeout=600.0, args=(SIZES, TURNS)))
    print(f"dist.all_reduce, float32, {arguments.ranks} ranks: medians of one run")
    print(f"{'bytes':>10} {'gloo us':>10} {'shm us':>10} {'shm/gloo':>9}")
    for row in rows:
        print(f"{row['bytes']:>10.0f} {row['gloo_us']:>10.1f} {row['shm_us']:>10.1f} {row['ratio']:>9.3f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"ranks": arguments.ranks, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
