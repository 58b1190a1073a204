"""What a figure was measured on, in words that say nothing of whose machine it is."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path


def machine() -> dict[str, object]:
    """Return processor, cores, caches, kernel, Python, torch and day."""
    from importlib.metadata import version

    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "caches": _caches(),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "torch": version("torch"),
        "day": date.today().isoformat(),
    }


def sentence(what: dict[str, object]) -> str:
    """Return the same in a line."""
    return (
        f"{what['cores']} cores of {what['processor']} ({what['caches']}), Linux {what['kernel']}, "
        f"Python {what['python']}, torch {what['torch']}, {what['day']}"
    )


def _processor() -> str:
    facts = dict(
        (part.strip() for part in line.split(":", 1))
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if ":" in line
    )
    name = facts.get("model name", platform.machine())
    return f"{name}, model {facts['model']}" if "model" in facts else name


def _caches() -> str:
    found = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = ((folder / word).read_text().strip() for word in ("type", "level", "size"))
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found)
