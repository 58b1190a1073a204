"""Claim: over gloo no function costs more than torch's own functional collective of that name, at any size.

Ours and torch's take turns in the same processes, and take turns at being first; each figure is the median of the
ratios of the turns, with where it lies in 95 of 100 draws of as many turns from these (bootstrap). The claim is false
where all of that is above 1:

    python tools/bench/over_gloo.py [--ranks 2] [--turns 41] [--names NAME ...] [--sizes BYTES ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from pathlib import Path
from typing import Any

from _machine import machine, sentence
from _peers_compat import torchs

from comm_core.testing import run_ranks

DRAWS = 2000
Pairs = list[tuple[float, float]]
SIZES = (4, 1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 25)
NAMES = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
    "broadcast",
    "all_reduce_coalesced",
    "all_gather_coalesced",
    "reduce_scatter_coalesced",
)


def functions(module: Any, size: int, group: Any) -> dict[str, Any]:
    """Return each function as a call that waits; the coalesced ones on eight tensors of an eighth of the bytes."""
    import torch

    world, wait = group.size(), module.wait_tensor
    x = torch.ones(max(1, size // 4))
    rows = torch.ones(max(world, size // 4 // world * world))
    parts = [torch.ones(max(world, size // 32 // world * world)) for _ in range(8)]
    calls = (
        lambda: wait(module.all_reduce(x, "sum", group)),
        lambda: wait(module.all_gather_tensor(x, 0, group)),
        lambda: wait(module.reduce_scatter_tensor(rows, "sum", 0, group)),
        lambda: wait(module.all_to_all_single(rows, None, None, group)),
        lambda: wait(module.broadcast(x, 0, group)),
        lambda: [wait(y) for y in module.all_reduce_coalesced(parts, "sum", group)],
        lambda: [wait(y) for y in module.all_gather_into_tensor_coalesced(parts, group)],
        lambda: [wait(y) for y in module.reduce_scatter_tensor_coalesced(parts, "sum", [0] * 8, group)],
    )
    return dict(zip(NAMES, calls, strict=True))


def measure(group: Any, names: list[str], sizes: list[int], turns: int) -> dict[tuple[str, int], Pairs]:
    """Return, for each function and size, the microseconds of a call of ours and of torch's, turn by turn."""
    import time
    import warnings

    import torch
    import torch.distributed as dist

    import functional_collectives as fc

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    world = dist.group.WORLD

    def timed(call: Any, calls: int) -> float:
        dist.barrier()
        began = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - began) / calls * 1e6

    found: dict[tuple[str, int], Pairs] = {}
    for size in sizes:
        calls = 10 if size <= 1 << 18 else 1
        both = functions(fc, size, world), functions(torchs, size, world)
        for name in names:
            pairs = []
            for turn in range(turns + 2):
                order = (0, 1) if turn % 2 else (1, 0)
                times = {side: timed(both[side][name], calls) for side in order}
                pairs.append((times[0], times[1]))
            found[name, size] = pairs[2:]  # the first turns warm up
    return found


def judged(ranks: list[Pairs]) -> dict[str, float]:
    """Return our median time and the median ratio, of the slower rank, and where that lies in 95 of 100 draws."""
    turns = [tuple(map(max, zip(*of, strict=True))) for of in zip(*ranks, strict=True)]
    ratios = [ours / theirs for ours, theirs in turns]
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(DRAWS))
    return {
        "us": statistics.median(ours for ours, _ in turns),
        "ratio": statistics.median(ratios),
        "low": medians[DRAWS * 25 // 1000],
        "high": medians[DRAWS * 975 // 1000],
    }


def kept(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return these rows and those of other functions and sizes that the file has, in the order of the table."""
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    found = {(row["name"], row["bytes"]): row for row in [*old, *rows]}
    return [found[name, size] for name in NAMES for size in SIZES if (name, size) in found]


def main() -> None:
    """Run on this machine and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--turns", type=int, default=41)
    parser.add_argument("--names", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=SIZES, metavar="BYTES")
    parser.add_argument("--json", type=Path, help="write the rows here as well, beside those of other runs")
    arguments = parser.parse_args()
    words = (list(arguments.names), list(arguments.sizes), arguments.turns)
    ranks = run_ranks(measure, arguments.ranks, "gloo", timeout=600.0, args=words)
    print(f"ours against torch's over gloo, {arguments.ranks} ranks; {sentence(machine())}")
    print(f"{'function':<26}{'bytes':>10}{'our us':>10}{'ratio':>8}   95 of 100 draws")
    rows = []
    for name, size in ranks[0]:
        row = judged([of[name, size] for of in ranks])
        rows.append({"name": name, "bytes": size, **row})
        verdict = "  slower" if row["low"] > 1.0 else ""
        between = f"{row['low']:.2f} to {row['high']:.2f}{verdict}"
        print(f"{name:<26}{size:>10}{row['us']:>10.0f}{row['ratio']:>8.2f}   {between}")
    if arguments.json is not None:
        result = {"claim": "over_gloo", "ranks": arguments.ranks, "turns": arguments.turns, "machine": machine()}
        result["limits"] = [{"column": "low", "most": 1.0}]
        arguments.json.write_text(json.dumps({**result, "rows": kept(arguments.json, rows)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
