"""Claim: importing comm_shm and making a group take less than 50 ms together, and a rank that waits uses no processor.

Imports are those of fresh processes, next to torch's own, with the bytecode that pip makes where it installs; groups of
both backends are made by the same processes, taking turns; a rank waits a second for one that does not come:

    python tools/bench/shm_cost.py [--ranks 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from _bytecode import compiled
from _machine import machine, sentence

import comm_core
import comm_shm
from comm_core.testing import run_ranks

LIMIT_MS, IDLE_MS = 50.0, 10.0
PROCESSES, GROUPS, WAITS = 7, 20, 5
IMPORTS = """
import time
start = time.perf_counter()
import torch, torch.distributed
middle = time.perf_counter()
import comm_shm, comm_shm.group, comm_shm._native
print(middle - start, time.perf_counter() - middle)
"""


def imports() -> dict[str, float]:
    """Return the median milliseconds of importing torch, and after it comm_shm with all that a group needs."""
    compiled(comm_core, comm_shm)
    words = [sys.executable, "-c", IMPORTS]
    settings = os.environ | {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    said = [
        subprocess.run(words, env=settings, check=True, capture_output=True, text=True, timeout=120).stdout.split()
        for _ in range(PROCESSES)
    ]
    torchs, ours = (statistics.median(float(line[place]) * 1e3 for line in said) for place in (0, 1))
    return {"torch_ms": torchs, "comm_shm_ms": ours}


def groups(group: Any) -> dict[str, float]:
    """Return the median milliseconds of making a group, for each backend."""
    import statistics
    import time

    import torch.distributed as dist

    seen: dict[str, list[float]] = {"shm": [], "gloo": []}
    for turn in range(GROUPS + 2):
        for name, times in seen.items():
            dist.barrier(group.process_group)
            began = time.perf_counter()
            made = dist.new_group(backend=name)
            if turn >= 2:  # the first turns warm up
                times.append((time.perf_counter() - began) * 1e3)
            dist.destroy_process_group(made)
    return {name: statistics.median(times) for name, times in seen.items()}


def waiting(group: Any) -> dict[str, float]:
    """Return the median milliseconds of processor time of a second of waiting, for each backend; rank 0 waits."""
    import contextlib
    import statistics
    import time
    from datetime import timedelta

    import torch.distributed as dist

    from comm_core.errors import RankTimeoutError

    spent: dict[str, list[float]] = {"shm": [], "gloo": []}
    for name in (*spent,) * WAITS:
        made = dist.new_group(backend=name)
        dist.barrier(made)
        if group.rank == 0:
            began = time.process_time()
            with contextlib.suppress(RuntimeError, RankTimeoutError):
                made.barrier(timeout=timedelta(seconds=1)).wait()
            spent[name].append((time.process_time() - began) * 1e3)
        dist.barrier(group.process_group)
        dist.destroy_process_group(made)
    return {name: statistics.median(times) for name, times in spent.items() if times}


def table(
    loaded: dict[str, float], made: list[dict[str, float]], spent: list[dict[str, float]]
) -> list[dict[str, Any]]:
    """Return one row for each thing: milliseconds of comm_shm and of its peer, of the slowest rank, and the limit."""
    import_ms, torch_ms = loaded["comm_shm_ms"], loaded["torch_ms"]
    group_ms, gloo_ms = (max(rank[name] for rank in made) for name in ("shm", "gloo"))
    rows = [
        ("import, the peer is torch", import_ms, torch_ms, LIMIT_MS),
        ("make a group, the peer is gloo", group_ms, gloo_ms, LIMIT_MS),
        ("both, the peers are torch and gloo", import_ms + group_ms, torch_ms + gloo_ms, LIMIT_MS),
        ("processor time of 1 s of waiting, the peer is gloo", spent[0]["shm"], spent[0]["gloo"], IDLE_MS),
    ]
    return [dict(zip(("what", "shm_ms", "peer_ms", "limit"), row, strict=True)) for row in rows]


def main() -> None:
    """Run on this machine and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    rows = table(imports(), run_ranks(groups, arguments.ranks, "gloo"), run_ranks(waiting, arguments.ranks, "gloo"))
    print(f"{arguments.ranks} ranks on {sentence(machine())}: medians of one run, in milliseconds")
    print(f"{'what':<52} {'comm_shm':>9} {'peer':>9} {'at most':>8}")
    for row in rows:
        print(f"{row['what']:<52} {row['shm_ms']:>9.2f} {row['peer_ms']:>9.2f} {row['limit']:>8g}")
    if arguments.json is not None:
        what = {"claim": "shm_cost", "ranks": arguments.ranks, "machine": machine(), "rows": rows}
        arguments.json.write_text(json.dumps(what, indent=1) + "\n")


if __name__ == "__main__":
    main()
