"""Claim: over gloo no function costs more than torch's own functional collective of that name, at any size.

Ours and torch's take turns in one process; each figure is the median of the ratios of neighbouring turns:

    python tools/bench/over_gloo.py [--ranks 2] [--turns 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _machine import machine, sentence
from _peers_compat import torchs

from comm_core.testing import run_ranks

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


def measure(group: Any, turns: int) -> dict[str, dict[int, tuple[float, float]]]:
    """Return, for each function and size, our median microseconds and the median ratio to torch's."""
    import statistics
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

    found: dict[str, dict[int, tuple[float, float]]] = {name: {} for name in NAMES}
    for size in SIZES:
        calls = 5 if size <= 1 << 18 else 1
        ours, theirs = functions(fc, size, world), functions(torchs, size, world)
        for name in NAMES:
            pairs = [(timed(ours[name], calls), timed(theirs[name], calls)) for _ in range(turns + 1)][1:]
            ratio = statistics.median(a / b for a, b in pairs)
            found[name][size] = statistics.median(a for a, _ in pairs), ratio
    return found


def main() -> None:
    """Run on this machine and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    found = run_ranks(measure, arguments.ranks, "gloo", timeout=600.0, args=(arguments.turns,))[0]
    print(f"ours against torch's over gloo, {arguments.ranks} ranks: ratio (our us); {sentence(machine())}")
    print(f"{'':<26}" + "".join(f"{size:>18}" for size in SIZES))
    for name, row in found.items():
        print(f"{name:<26}" + "".join(f"{ratio:>8.2f} ({us:>7.0f})" for us, ratio in row.values()))
    if arguments.json is not None:
        rows = {
            name: {str(size): {"us": us, "ratio": ratio} for size, (us, ratio) in of.items()}
            for name, of in found.items()
        }
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
