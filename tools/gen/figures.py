"""What a collective costs, as `tools/bench/each_collective.py` measured and wrote it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from .sources import ROOT

FILE = "docs/assets/bench/each_collective.json"
COMMAND = f"python tools/bench/each_collective.py --json {FILE}"
COPIES = "docs/assets/bench/copies.json"
COUNT = f"python tools/bench/copies.py --json {COPIES}"


@cache
def measured() -> dict[str, Any]:
    """The whole result."""
    found: dict[str, Any] = json.loads((ROOT / FILE).read_text(encoding="utf-8"))
    return found


def table(name: str) -> list[str]:
    """The figures of one collective, and on what they were measured; that there are none, where there are none."""
    result = measured()
    rows = [
        f"| {size(row['bytes'])} | {row['shm']:,.0f} | {row['gloo']:,.0f} | {row['gloo'] / row['shm']:.1f} |"
        for row in result["rows"]
        if row["name"] == name
    ]
    if not rows:
        return [f"No figures: `{COMMAND}` does not measure it.", ""]
    on = result["machine"]
    where = f"{on['cores']} cores ({on['processor']}, torch {on['torch']}, {on['day']}), other work beside it"
    said = (
        f"One call that is waited for, on {result['ranks']} ranks of a machine with {where}; the middle of some turns, "
        f"by `{COMMAND}`:"
    )
    head = [
        "| bytes of x on a rank | comm_shm, microseconds | gloo, microseconds | times as fast |",
        "|---:|---:|---:|---:|",
    ]
    return [said, "", *head, *rows, ""]


def copies(name: str) -> list[str]:
    """The room that one collective takes beside its result, as `tools/bench/copies.py` counted it."""
    result: dict[str, Any] = json.loads((ROOT / COPIES).read_text(encoding="utf-8"))
    rows = [row for row in result["rows"] if row["name"] == name]
    if not rows:
        return [f"Its memory is not counted: `{COUNT}` does not call it.", ""]
    worlds = list(rows[0]["copies"])
    said = (
        "Memory beside the result, in copies of the larger of what the call is given and what it gives back, in groups "
        f"of {', '.join(worlds)} ranks (torch {result['machine']['torch']}, {result['machine']['day']}), counted by "
        f"`{COUNT}`; of backward the result is the gradient. All that is given out counts; in brackets stands the most "
        "that is there at one time, where it is less:"
    )
    head = ["| call |" + "".join(f" {world} ranks |" for world in worlds), "|---|" + "---:|" * len(worlds)]
    lines = [
        f"| {row['variant'] or 'plain'} |" + "".join(f" {_taken(row, world)} |" for world in worlds) for row in rows
    ]
    return [said, "", *head, *lines, ""]


def _taken(row: dict[str, Any], world: str) -> str:
    """The copies that a call takes, and in brackets the most at one time, where that is another number."""
    every, at_once = (f"{row[count][world]:.2f}" for count in ("copies", "at_once"))
    return every if every == at_once else f"{every} ({at_once})"


def size(count: int) -> str:
    """Bytes in the largest unit that divides them."""
    for unit, of in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count % of == 0:
            return f"{count // of} {unit}"
    return f"{count} bytes"
