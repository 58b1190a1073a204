"""How much memory this process can still have: where a control group lacks it the kernel does not refuse, but kills."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path


def room_bytes(root: Path = Path("/")) -> int:
    """Return what the machine has free, or the poorest of the control groups that this process is in, if that is less.

    Args:
        root: where /proc and the mounts of control groups are looked for.
    """
    facts = _facts(root / "proc/meminfo")
    return min([facts["MemAvailable:"] * 1024, *(_room_in(folder, kind) for folder, kind in _control_groups(root))])


def _control_groups(root: Path) -> Iterator[tuple[Path, str]]:
    """Give the folders of the control groups for memory, from this process's own to the outermost that can be seen."""
    lines = (root / "proc/self/cgroup").read_text().splitlines() if (root / "proc/self/cgroup").exists() else ()
    paths = {"cgroup2" if not words else "cgroup": path for _, words, path in (line.split(":", 2) for line in lines)
             if not words or "memory" in words.split(",")}  # fmt: skip
    for line in (root / "proc/self/mountinfo").read_text().splitlines() if paths else ():
        where, _, what = line.partition(" - ")
        kind, options = what.split()[0], what.split()[-1]
        if kind not in paths or (kind == "cgroup" and "memory" not in options.split(",")):
            continue
        above, mounted = where.split()[3:5]
        top = root / mounted.lstrip("/")
        inside = paths[kind].removeprefix(above.rstrip("/")).strip("/")
        yield from ((folder, kind) for folder in (top / inside, *(top / inside).parents) if folder.is_relative_to(top))


def _room_in(folder: Path, kind: str) -> int:
    limit, used, droppable = (  # the last: a line of `memory.stat`, what of that are files that can be dropped
        ("memory.max", "memory.current", "inactive_file")
        if kind == "cgroup2"
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    try:
        most, taken = int((folder / limit).read_text()), int((folder / used).read_text())
        return max(most - max(taken - _facts(folder / "memory.stat").get(droppable, 0), 0), 0)
    except (OSError, ValueError):  # no such file, or the word "max"
        return sys.maxsize


def _facts(file: Path) -> dict[str, int]:
    return {words[0]: int(words[1]) for words in map(str.split, file.read_text().splitlines()) if len(words) > 1}
