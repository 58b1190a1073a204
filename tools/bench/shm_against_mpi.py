"""Claim: the transport's own all_reduce takes at most as long as the best MPI's at every size, 0.8 of it from 4 MiB.

Intel MPI, Open MPI and MPICH are called through mpi4py, ours through the extension module that the process group
calls. Each MPI has an environment of its own under --environments, made on first use with pip. The libraries take
turns in one run; one that cannot be had is said plainly and left out:

    python tools/bench/shm_against_mpi.py [--environments DIRECTORY] [--ranks 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from _machine import machine
from _taking_turns import Ranks

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent.parent / ".nox" / "mpi"
PEERS = {"impi-rt": "Intel MPI", "openmpi": "Open MPI", "mpich": "MPICH"}
SIZES = [4, 64, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 32 << 20]
TURNS = 7
BUDGET_BYTES = 32 << 20
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}

Samples = dict[str, dict[int, dict[str, list[float]]]]


def limit(size: int) -> float:
    """Return the most that ours may take, as a part of the best MPI's time."""
    return 0.8 if size >= 4 << 20 else 1.0


def environment(folder: Path, package: str) -> Path | None:
    """Return the bin directory of an environment with mpi4py and this MPI, or None when it cannot be made."""
    place = folder / package
    if not (place / "complete").exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        venv.create(place, with_pip=True, clear=True)
        words = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "mpi4py", "numpy", package]
        done = subprocess.run(words, capture_output=True, text=True, timeout=600)
        if done.returncode:
            print(f"left out: {PEERS[package]}, pip cannot install {package}: {done.stderr.strip()[-200:]}")
            return None
        (place / "complete").touch()
    return place / "bin"


@contextmanager
def started(name: str, words: list[Any], settings: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends; its pipes were closed before, which ends its ranks."""
    process = subprocess.Popen([str(word) for word in words], env={**os.environ, **settings})
    try:
        yield process
    finally:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            print(f"{name} did not end")
            process.kill()


@contextmanager
def ranks_of(library: str, folder: Path, world: int, place: Path | None) -> Iterator[Ranks]:
    """Start the ranks of a library and connect to them."""
    ranks = Ranks(folder, library, world)
    with ExitStack() as running:
        if place is None:
            for rank in range(world):
                running.enter_context(
                    started(library, [sys.executable, HERE / "_shm_rank.py", folder, rank, world], {})
                )
        else:
            words = [place / "mpiexec", "-n", world, place / "python", HERE / "_mpi_rank.py", folder, library]
            settings = {**AS_ROOT, "PATH": f"{place}:{os.environ['PATH']}", "PYTHONPATH": ""}
            running.enter_context(started(library, words, settings))
        ranks.connect()
        try:
            yield ranks
        finally:
            ranks.close()


def measure(libraries: dict[str, Ranks]) -> Samples:
    """Return the seconds of all calls by library, size and variant; of each call, the slowest rank's."""
    samples: Samples = {name: {size: {} for size in SIZES} for name in libraries}
    for size in SIZES:
        calls = max(3, min(200, BUDGET_BYTES // size))
        for turn in range(TURNS + 1):
            for name, ranks in libraries.items():
                answers = ranks.turn(size, calls)
                if turn == 0:  # the first turn warms up
                    continue
                for variant in answers[0]:
                    slowest = [max(times) for times in zip(*(answer[variant] for answer in answers), strict=True)]
                    samples[name][size].setdefault(variant, []).extend(slowest)
    return samples


def table(samples: Samples) -> list[dict[str, Any]]:
    """Return one row a size: microseconds of each library, its better variant, and ours as a part of the best."""
    rows = []
    for size in SIZES:
        us = {
            name: min(statistics.median(times) for times in sizes[size].values()) * 1e6
            for name, sizes in samples.items()
        }
        best = min((name for name in us if name != "shm"), key=lambda name: us[name], default=None)
        ratio = us["shm"] / us[best] if best else None
        rows.append({"bytes": size, **us, "best": best, "ratio": ratio, "limit": limit(size)})
    return rows


def main() -> None:
    """Run on this machine and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS, help="where the MPIs are, or go")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    places = {package: environment(arguments.environments, package) for package in PEERS}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = {package: place for package, place in places.items() if place is not None}
        libraries = {
            name: stack.enter_context(ranks_of(name, folder, arguments.ranks, place))
            for name, place in {"shm": None, **places}.items()
        }
        rows = table(measure(libraries))
    print(f"all_reduce of float32, {arguments.ranks} ranks, microseconds: medians of one run")
    names = ["shm", *places]
    print(f"{'bytes':>10} " + " ".join(f"{PEERS.get(name, name):>10}" for name in names) + "  shm/best  at most")
    for row in rows:
        times = " ".join(f"{row[name]:>10.2f}" for name in names)
        ratio = "" if row["ratio"] is None else f"{row['ratio']:>9.2f} {row['limit']:>8.1f}"
        print(f"{row['bytes']:>10} {times} {ratio}")
    if arguments.json is not None:
        what = {"claim": "shm_against_mpi", "ranks": arguments.ranks, "machine": machine(), "rows": rows}
        arguments.json.write_text(json.dumps(what, indent=1) + "\n")


if __name__ == "__main__":
    main()
