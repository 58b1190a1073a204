"""Claim: checked mode costs at most 1.5 times an unchecked call over gloo, and names a fault in under 100 ms.

Four groups of the same ranks take turns in one process, and the medians of one run are compared: unchecked, checked,
torch's TORCH_DISTRIBUTED_DEBUG=DETAIL, and torch's own functional collective without either:

    python tools/bench/checked_mode.py [--bytes 4096] [--ranks 2] [--json FILE] [--json-faults FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _machine import machine, sentence
from _peers_compat import torchs

from comm_core.testing import run_ranks

TARGET = 1.5
TARGET_MS = 100.0
TURNS, CALLS = 120, 5
WAYS = ("unchecked", "checked", "DETAIL", "torch's funcol")


def measure(group: Any, size: int) -> dict[str, float]:
    """Return the median microseconds of an all_reduce that is waited for, each way."""
    import contextlib
    import statistics
    import time

    import torch
    import torch.distributed as dist

    import functional_collectives as fc

    torch.set_num_threads(1)
    plain = dist.new_group(backend="gloo")
    level = dist.get_debug_level()
    dist.set_debug_level(dist.DebugLevel.DETAIL)
    detail = dist.new_group(backend="gloo")
    dist.set_debug_level(level)
    x = torch.ones(size // 4)
    ours, theirs = (lambda on: fc.wait_tensor(fc.all_reduce(x, "sum", on))), torchs
    ways: list[tuple[Any, Any, Any]] = [
        (ours, plain, contextlib.nullcontext),
        (ours, plain, fc.checked),
        (ours, detail, contextlib.nullcontext),
        (lambda on: theirs.wait_tensor(theirs.all_reduce(x, "sum", on)), plain, contextlib.nullcontext),
    ]
    seen: list[list[float]] = [[] for _ in ways]
    for turn in range(TURNS + 3):
        for (call, on, mode), times in zip(ways, seen, strict=True):
            dist.barrier(plain)
            with mode():
                began = time.perf_counter()
                for _ in range(CALLS):
                    call(on)
                if turn >= 3:  # the first turns warm up
                    times.append((time.perf_counter() - began) / CALLS * 1e6)
    return {way: statistics.median(times) for way, times in zip(WAYS, seen, strict=True)}


def faults(group: Any) -> dict[str, float]:
    """Return how many milliseconds it took from the call to the error, for each kind of fault; the worst of ten."""
    import time

    import torch

    import functional_collectives as fc
    from comm_core.errors import MismatchError

    other, x = group.rank == group.world - 1, torch.ones(1024)
    cases: dict[str, Any] = {
        "size": lambda: fc.all_reduce(torch.ones(1024 + other), "sum", group),
        "dtype": lambda: fc.all_reduce(x.int() if other else x, "sum", group),
        "reduce op": lambda: fc.all_reduce(x, "max" if other else "sum", group),
        "op": lambda: fc.broadcast(x, 0, group) if other else fc.all_reduce(x, "sum", group),
        "root": lambda: fc.broadcast(x, int(other), group),
    }
    worst = {}
    with fc.checked(timeout_s=30.0):
        for name, call in cases.items():
            took = []
            for _ in range(10):
                fc.wait_tensor(fc.all_reduce(x, "sum", group))
                began = time.perf_counter()
                try:
                    call()
                except MismatchError:
                    took.append((time.perf_counter() - began) * 1e3)
            if len(took) != 10:
                raise RuntimeError(f"{name}: a fault passed unseen")
            worst[name] = max(took)
    return worst


def main() -> None:
    """Run on this machine and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bytes", type=int, default=4096)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the costs here as well")
    parser.add_argument("--json-faults", type=Path, help="write the faults here as well")
    arguments = parser.parse_args()
    rows = run_ranks(measure, arguments.ranks, "gloo", timeout=100.0, args=(arguments.bytes,))[0]
    found = run_ranks(faults, arguments.ranks, "gloo", timeout=100.0)
    print(f"all_reduce of {arguments.bytes} bytes over gloo, {arguments.ranks} ranks: medians; {sentence(machine())}")
    costs = [
        {"way": way, "us": us, "ratio": us / rows["unchecked"], "limit": TARGET if way == "checked" else None}
        for way, us in rows.items()
    ]
    for row in costs:
        print(f"{row['way']:<16} {row['us']:>8.0f} us {row['ratio']:>6.2f}{_verdict(row['ratio'], row['limit'])}")
    told = [{"fault": name, "ms": max(each[name] for each in found), "limit": TARGET_MS} for name in found[0]]
    for row in told:
        print(f"fault: {row['fault']:<9} {row['ms']:>8.2f} ms{_verdict(row['ms'], row['limit'])}")
    for file, written in ((arguments.json, costs), (arguments.json_faults, told)):
        if file is not None:
            file.write_text(json.dumps({"machine": machine(), "rows": written}, indent=1) + "\n")


def _verdict(value: float, limit: float | None) -> str:
    return "" if limit is None else f"  {'missed' if value > limit else 'held'}: at most {limit:g}"


if __name__ == "__main__":
    main()
