"""Claim: a message between two ranks of one machine costs a small part over shm of what it costs over gloo.

Three ways for each size: `ping`, half of a send and the answer to it; `swap`, both ranks isend and irecv at once;
`stream`, one rank sends 16 messages that the other one has asked for. Both backends run in the same processes, taking
turns, so that the ratio holds whatever else the machine does. The memcpy column is one copy of as many bytes by one
rank: a message is copied twice, by two ranks.

    python tools/bench/shm_p2p.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from _machine import machine

from comm_core.testing import run_ranks

SIZES = [4, 4 << 10, 64 << 10, 1 << 20, 8 << 20, 32 << 20]
TURNS = 5
BUDGET_BYTES = 32 << 20
STREAM = 16


def measure(group: Any, sizes: list[int], turns: int) -> dict[str, dict[str, list[float]]]:
    """Return the median seconds of each way for each backend and size, on this rank."""
    import statistics
    import time

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    groups = {name: dist.new_group(backend=name) for name in ("gloo", "shm")}
    ways = {"ping": (_ping, 2), "swap": (_swap, 1), "stream": (_stream, STREAM)}
    medians: dict[str, dict[str, list[float]]] = {way: {name: [] for name in groups} for way in ways}
    medians["memcpy"] = {"memory": []}
    for size in sizes:
        x, out = torch.ones(size // 4), torch.ones(size // 4)
        for way, (call, parts) in ways.items():
            seen: dict[str, list[float]] = {name: [] for name in groups}
            for turn in range(turns + 1):
                for name, members in groups.items():
                    for _ in range(max(2, min(50, BUDGET_BYTES // size // parts))):
                        began = time.perf_counter()
                        call(x, out, members, group.rank)
                        if turn > 0:  # the first turn warms up
                            seen[name].append((time.perf_counter() - began) / parts)
            for name, times in seen.items():
                medians[way][name].append(statistics.median(times))
        medians["memcpy"]["memory"].append(statistics.median(_timed(partial(out.copy_, x)) for _ in range(9)))
        dist.barrier()
    return medians


def _timed(call: Any) -> float:
    import time

    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _ping(x: Any, out: Any, group: Any, rank: int) -> None:
    import torch.distributed as dist

    if rank == 0:
        dist.send(x, 1, group=group)
        dist.recv(out, 1, group=group)
    else:
        dist.recv(out, 0, group=group)
        dist.send(x, 0, group=group)


def _swap(x: Any, out: Any, group: Any, rank: int) -> None:
    import torch.distributed as dist

    for work in (dist.isend(x, 1 - rank, group=group), dist.irecv(out, 1 - rank, group=group)):
        work.wait()


def _stream(x: Any, out: Any, group: Any, rank: int) -> None:
    import torch.distributed as dist

    call = partial(dist.isend, x, 1) if rank == 0 else partial(dist.irecv, out, 0)
    for work in [call(group=group) for _ in range(STREAM)]:
        work.wait()


def table(sizes: list[int], per_rank: list[dict[str, dict[str, list[float]]]]) -> list[dict[str, Any]]:
    """Return one row a way and size: microseconds a message, the slower rank's, the ratio, and the bandwidth."""
    rows = []
    for way in ("ping", "swap", "stream"):
        for place, size in enumerate(sizes):
            gloo, shm = (max(rank[way][name][place] for rank in per_rank) * 1e6 for name in ("gloo", "shm"))
            copy = max(rank["memcpy"]["memory"][place] for rank in per_rank) * 1e6
            row = {"way": way, "bytes": size, "gloo_us": gloo, "shm_us": shm, "ratio": shm / gloo}
            rows.append(row | {"shm_gb_s": size / shm / 1e3, "memcpy_us": copy})
    return rows


def main() -> None:
    """Run on this machine and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    rows = table(SIZES, run_ranks(measure, 2, "gloo", timeout=600.0, args=(SIZES, TURNS)))
    print("messages of float32 between 2 ranks: medians of one run")
    print(f"{'way':>7} {'bytes':>10} {'gloo us':>10} {'shm us':>10} {'shm/gloo':>9} {'shm GB/s':>9} {'memcpy us':>10}")
    for row in rows:
        print(
            f"{row['way']:>7} {row['bytes']:>10} {row['gloo_us']:>10.1f} {row['shm_us']:>10.1f} {row['ratio']:>9.3f} "
            f"{row['shm_gb_s']:>9.2f} {row['memcpy_us']:>10.1f}"
        )
    if arguments.json is not None:
        what = {"claim": "shm_p2p", "ranks": 2, "machine": machine(), "rows": rows}
        arguments.json.write_text(json.dumps(what, indent=1) + "\n")


if __name__ == "__main__":
    main()
