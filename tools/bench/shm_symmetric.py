"""Claim: collectives on symmetric memory cost less than the staged ones over shm, and a small part of gloo's.

All run in the same processes, taking turns, so that the ratios hold whatever else the machine does. all_reduce is in
place (`two_shot`) or into another tensor (`one_shot`); all_gather is of a float32 tensor of that many bytes on each
rank, into another tensor (`copied`) or as a view of all buffers (`view`). `memcpy` is what copying the bytes that a
two-shot all_reduce has to read and write would take this rank alone.

    python tools/bench/shm_symmetric.py [--ranks 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _machine import machine

from comm_core.testing import run_ranks

SIZES = [4 << 10, 64 << 10, 1 << 20, 4 << 20, 32 << 20]
TURNS = 5
BUDGET_BYTES = 8 << 20


def calls_of(memory: Any, groups: dict[str, Any], size: int) -> dict[str, Callable[[], object]]:
    """Return the calls that are compared, by name."""
    import torch
    import torch.distributed as dist

    x = memory.empty((size // 4,)).fill_(0.0)
    buffer, out, plain = memory.rendezvous(x), torch.zeros(size // 4), torch.zeros(size // 4)
    whole = torch.empty((memory.world, size // 4))
    calls: dict[str, Callable[[], object]] = {
        "two_shot": buffer.two_shot_all_reduce,
        "one_shot": lambda: buffer.one_shot_all_reduce("sum", out),
        "memcpy": lambda: out.copy_(plain),
        "view": buffer.all_gather,
        "copied": lambda: buffer.all_gather(whole),
    }
    for name, group in groups.items():
        calls[f"all_reduce {name}"] = lambda group=group: dist.all_reduce(plain, group=group)
        calls[f"all_gather {name}"] = lambda group=group: dist.all_gather_into_tensor(
            whole.view(-1), plain, group=group
        )
    return calls


def measure(group: Any, sizes: list[int], turns: int) -> dict[str, list[float]]:
    """Return the median seconds of each call for each size, on this rank."""
    import statistics
    import time

    import torch
    import torch.distributed as dist

    from comm_core import symmetric_memory

    torch.set_num_threads(1)
    groups = {name: dist.new_group(backend=name) for name in ("gloo", "shm")}
    memory = symmetric_memory(groups["shm"])
    medians: dict[str, list[float]] = {}
    for size in sizes:
        calls = calls_of(memory, groups, size)
        seen: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(turns + 1):
            for name, call in calls.items():
                for _ in range(max(3, min(100, BUDGET_BYTES // size))):
                    began = time.perf_counter()
                    call()
                    if turn > 0:  # the first turn warms up
                        seen[name].append(time.perf_counter() - began)
        for name, times in seen.items():
            medians.setdefault(name, []).append(statistics.median(times))
    return medians


def table(sizes: list[int], per_rank: list[dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Return one row a size: microseconds of each call, the slowest rank's."""
    return [
        {"bytes": size} | {name: max(rank[name][place] for rank in per_rank) * 1e6 for name in per_rank[0]}
        for place, size in enumerate(sizes)
    ]


def show(rows: list[dict[str, Any]], title: str, names: dict[str, str], base: str) -> None:
    """Print the microseconds of some calls, and each against one of them."""
    print(f"{title:>10} " + " ".join(f"{name:>14}" for name in names.values()))
    for row in rows:
        cells = [f"{row[key]:>8.1f} {row[key] / row[base]:>5.2f}" for key in names]
        print(f"{row['bytes']:>10} " + " ".join(f"{cell:>14}" for cell in cells))


def main() -> None:
    """Run on this machine and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    rows = table(SIZES, run_ranks(measure, arguments.ranks, "gloo", timeout=600.0, args=(SIZES, TURNS)))
    print(f"float32, {arguments.ranks} ranks, medians of one run: microseconds, and how many times shm's")
    names = {"two_shot": "two-shot", "one_shot": "one-shot", "all_reduce shm": "shm", "all_reduce gloo": "gloo"}
    show(rows, "all_reduce", names | {"memcpy": "memcpy"}, "all_reduce shm")
    names = {"view": "view", "copied": "copied", "all_gather shm": "shm", "all_gather gloo": "gloo"}
    show(rows, "all_gather", names, "all_gather shm")
    if arguments.json is not None:
        written = {"machine": machine(), "ranks": arguments.ranks, "rows": rows}
        arguments.json.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
