"""Claim: an eager call costs a small part of what torch's own functional collective of that name costs.

On c10d's fake group, which moves nothing, so that what is left is the cost of the call itself. Ours and torch's take
turns in one process; the ratio is the median of those of the turns, and the times are the medians of one run:

    python tools/bench/eager_overhead.py [--bytes 4096] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _machine import machine, sentence
from _peers_compat import torchs

from comm_core.testing import run_ranks

TARGETS = {  # the most that ours may cost, as a part of torch's
    "all_reduce, waited for": 0.2,
    "all_reduce, used": 0.35,
    "all_gather, waited for": 0.25,
    "reduce_scatter, waited for": 0.25,
    "all_reduce, requires_grad": 0.4,
    "all_gather, requires_grad": 0.4,
    "reduce_scatter, requires_grad": 0.4,
}
TURNS = 60
CALLS = 25


def measure(group: Any, size: int, names: list[str]) -> dict[str, list[float]]:
    """Return for each case on rank 0 the median microseconds of a call of ours and of torch's, and their ratio."""
    import statistics
    import time
    import warnings

    import torch
    import torch.distributed as dist

    import functional_collectives as fc

    if group.rank:
        return {}  # nobody needs it, and it would share a processor with what is measured
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    world, x = dist.group.WORLD, torch.ones(size // 4)

    def cases(module: Any) -> dict[str, Any]:
        gather = getattr(module, "all_gather_single", module.all_gather_tensor)
        scatter = getattr(module, "reduce_scatter_single", module.reduce_scatter_tensor)
        wait, w = module.wait_tensor, x.clone().requires_grad_()
        calls = [
            lambda: wait(module.all_reduce(x, "sum", world)),
            lambda: module.all_reduce(x, "sum", world) + 1,
            lambda: wait(gather(x, 0, world)),
            lambda: wait(scatter(x, "sum", 0, world)),
            lambda: wait(module.all_reduce(w, "sum", world)),
            lambda: wait(gather(w, 0, world)),
            lambda: wait(scatter(w, "sum", 0, world)),
        ]
        return dict(zip(names, calls, strict=True))

    medians = {}
    pairs = cases(fc), cases(torchs)
    for name in names:
        seen: tuple[list[float], list[float]] = ([], [])
        for turn in range(TURNS + 3):
            for calls, times in zip(pairs, seen, strict=True):
                began = time.perf_counter()
                for _ in range(CALLS):
                    calls[name]()
                if turn >= 3:  # the first turns warm up
                    times.append((time.perf_counter() - began) / CALLS * 1e6)
        ratios = [ours / theirs for ours, theirs in zip(*seen, strict=True)]
        medians[name] = [statistics.median(each) for each in (*seen, ratios)]
    return medians


def main() -> None:
    """Run on this machine and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bytes", type=int, default=4096)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    medians = run_ranks(measure, 2, "fake", timeout=300.0, args=(arguments.bytes, list(TARGETS)))[0]
    print(f"{arguments.bytes} bytes of float32, fake group of 2 ranks: medians of one run; {sentence(machine())}")
    print(f"{'case':<32} {'ours us':>8} {'torch us':>9} {'ratio':>6} {'target':>7}")
    for name, (ours, theirs, ratio) in medians.items():
        verdict = "" if ratio <= TARGETS[name] else "  missed"
        print(f"{name:<32} {ours:>8.1f} {theirs:>9.1f} {ratio:>6.3f} {TARGETS[name]:>7.2f}{verdict}")
    if arguments.json is not None:
        rows = [
            {"name": name, "ours_us": ours, "torch_us": theirs, "ratio": ratio, "limit": TARGETS[name]}
            for name, (ours, theirs, ratio) in medians.items()
        ]
        result = {"claim": "eager_overhead", "bytes": arguments.bytes, "machine": machine(), "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
