"""Figures: what each collective of the catalogue costs on 2 ranks, over shared memory and over gloo.

`comm_core.run` of every entry, waited for; each figure is the median of some turns. The pages of the collectives show
what this wrote:

    python tools/bench/each_collective.py [--turns 15] [--json docs/assets/bench/each_collective.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _machine import machine, sentence

from comm_core.testing import run_ranks

RANKS = 2
SIZES = (1 << 12, 1 << 20)
BACKENDS = ("shm", "gloo")
CALLS = 10
WAITS_FOR_NOTHING = ("wait",)


def parameters(entry: Any, rows: int, rank: int) -> dict[str, Any]:
    """Return what the entry is called with on a rank that has this many rows."""
    peer = 1 - rank
    halves = entry.name in ("reduce_scatter_v", "scatter")
    values = {
        "reduce_op": "sum",
        "dim": 0,
        "src": 0,
        "dst": 0,
        "sizes": [rows // RANKS] * RANKS if halves else [rows] * RANKS,
        "reverse": False,
        "sends": [(peer, rows, 0)],
        "receives": [(peer, rows, 0)],
        "destinations": [1, 0],
        "output_splits": None,
        "input_splits": None,
    }
    return {name: values[name] for name in entry.parameters}


def measure(group: Any, turns: int) -> dict[str, dict[int, float]]:
    """Return the median microseconds of a call of each entry, by its bytes on each rank."""
    import statistics
    import time

    import torch

    from comm_core import CATALOG, run, wait

    torch.set_num_threads(1)

    def timed(call: Any) -> float:
        group_barrier()
        began = time.perf_counter()
        for _ in range(CALLS):
            call()
        return (time.perf_counter() - began) / CALLS * 1e6

    def group_barrier() -> None:
        wait(run(CATALOG["barrier"], torch.zeros(1), group))

    found: dict[str, dict[int, float]] = {}
    for name in (name for name in CATALOG if name not in WAITS_FOR_NOTHING):
        entry = CATALOG[name]
        for size in SIZES:
            rows = size // 4
            empty = name == "scatter" and group.rank != 0
            x, params = torch.ones(0 if empty else rows), parameters(entry, rows, group.rank)
            times = [
                timed(lambda x=x, entry=entry, params=params: wait(run(entry, x, group, **params)))
                for _ in range(turns + 1)
            ]
            found.setdefault(name, {})[size] = statistics.median(times[1:])
    return found


def main() -> None:
    """Run on this machine and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    found = {one: run_ranks(measure, RANKS, one, timeout=300.0, args=(arguments.turns,))[0] for one in BACKENDS}
    print(f"microseconds of a call on {RANKS} ranks; {sentence(machine())}")
    print(f"{'':<18}{'bytes':>9}" + "".join(f"{one:>10}" for one in BACKENDS))
    rows = [
        {"name": name, "bytes": size, **{one: round(found[one][name][size], 1) for one in BACKENDS}}
        for name, sizes in found["shm"].items()
        for size in sizes
    ]
    for row in rows:
        print(f"{row['name']:<18}{row['bytes']:>9}" + "".join(f"{row[one]:>10}" for one in BACKENDS))
    if arguments.json is not None:
        result = {"claim": "each_collective", "ranks": RANKS, "machine": machine(), "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
