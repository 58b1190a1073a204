"""Claim: the whole site is built in 30 s on 2 cores: generated, built in two halves, and checked.

Runs what `nox -s docs` runs, in an environment that is there; of the installed torch only what changed is indexed anew:

    python tools/bench/site_build.py [--json docs/assets/bench/site_build.json]

`nox -s gen` draws the row of docs/understand/kwindex_index.md from that file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from _machine import machine

ROOT = Path(__file__).parents[2]
TARGET_S = 30.0
BUILDS = 3
"""The least time counts, for whatever else runs on the machine only adds to it."""


def build() -> tuple[float, float]:
    """Build the site; return the seconds by the clock, and those of all processors."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "tools.gen", "--site"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Print the figures; 1 where the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    builds = [build() for _ in range(BUILDS)]
    least, cpu = min(builds)
    pages = sum(1 for _ in (ROOT / "site").rglob("*.html"))
    figures = {"least s": least, "slowest s": max(builds)[0], "seconds of all processors": cpu}
    for name, figure in figures.items():
        print(f"{name:28} {figure:6.1f}" + (f"   (target: at most {TARGET_S:g})" if name == "least s" else ""))
    if options.json:
        figures |= {"builds": BUILDS, "load": os.getloadavg()[0]}
        result = {"claim": "site_build", "machine": machine(), "pages": pages, "figures": figures}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(least > TARGET_S)


if __name__ == "__main__":
    raise SystemExit(main())
