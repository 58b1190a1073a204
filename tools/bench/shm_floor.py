"""Claim: small messages take at most 3 bare flag exchanges between two processes, large ones at most twice a memcpy.

The C core is compiled with a small program that has no Python in it, and measured next to its limits in the same two
processes, taking turns. memcpy runs in both processes at once, as the collective does, over the same bytes. The third
limit is what private memory costs: each byte is copied into shared memory by one rank and out of it by the other one,
which is the traffic of an all_reduce between two without its arithmetic. `crossing` is that where each rank writes what
the other one wrote before, `kept` where each writes its own memory again, which the other one has read since:

    python tools/bench/shm_floor.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from _machine import machine

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent.parent / "packages" / "comm_shm" / "csrc"
SIZES = [4, 64, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 32 << 20]
LIMITS = [{"column": "of_flags", "most": 3.0, "to": 64}, {"column": "of_memcpy", "most": 2.0, "from": 1 << 20}]
PEERS = ("flags", "memcpy", "crossing", "kept")


def build(folder: Path) -> Path:
    """Compile the C core and the program, with the flags of setup.py that change what is computed or how fast."""
    program = folder / "shm_floor"
    of_python = ("Python.h", "door.h", "native.h")
    sources = [file for file in sorted(CSRC.glob("*.c")) if not any(word in file.read_text() for word in of_python)]
    flags = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-trapping-math", "-pthread", f"-I{CSRC}"]
    words = [os.environ.get("CC", "cc"), *flags, HERE / "shm_floor.c", *sources, "-o", program]
    subprocess.run(list(map(str, words)), check=True)
    return program


def measure(program: Path) -> dict[int, dict[str, list[float]]]:
    """Return nanoseconds by size and what was timed, one figure a turn."""
    from comm_shm.segment import slot_bytes

    words = [str(program), str(slot_bytes(2)), *map(str, SIZES)]
    said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=300).stdout
    seen: dict[int, dict[str, list[float]]] = {size: {} for size in SIZES}
    for line in said.splitlines():
        _, what, size, nanoseconds = line.split()
        seen[int(size)].setdefault(what, []).append(float(nanoseconds))
    return seen


def table(seen: dict[int, dict[str, list[float]]]) -> list[dict[str, float]]:
    """Return one row a size: medians in microseconds, and the medians of the ratios of each turn."""
    rows = []
    for size, times in seen.items():
        row = {"bytes": size} | {f"{what}_us": statistics.median(each) / 1e3 for what, each in times.items()}
        for what in PEERS:
            pairs = zip(times["all_reduce"], times[what], strict=True)
            row[f"of_{what}"] = statistics.median(ours / limit for ours, limit in pairs)
        rows.append(row)
    return rows


def main() -> None:
    """Run on this machine and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = table(measure(build(Path(folder))))
    print("all_reduce(max) of float32 in C, 2 processes: medians of one run")
    print(f"{'bytes':>10} {'ours us':>10} " + " ".join(f"{of + ' us':>12} {'ours/' + of:>13}" for of in PEERS))
    for row in rows:
        peers = " ".join(f"{row[f'{of}_us']:>12.3f} {row[f'of_{of}']:>13.2f}" for of in PEERS)
        print(f"{row['bytes']:>10} {row['all_reduce_us']:>10.3f} {peers}")
    if arguments.json is not None:
        what = {"claim": "shm_floor", "machine": machine(), "limits": LIMITS, "rows": rows}
        arguments.json.write_text(json.dumps(what, indent=1) + "\n")


if __name__ == "__main__":
    main()
