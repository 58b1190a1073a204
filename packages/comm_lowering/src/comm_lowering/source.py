"""Where in the user's program an op of the graph comes from."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')
_LIBRARIES = (
    "torch",
    "comm_core",
    "comm_shm",
    "comm_lowering",
    "functional_collectives",
    "fsdp_collectives",
    "func_map",
)


def user_line(stack_trace: str | None) -> str:
    """Return the innermost frame of a graph node's stack trace that is the user's own, as `file:line in function`.

    Example:
        >>> user_line('  File "/home/me/train.py", line 7, in step')
        'train.py:7 in step'
        >>> user_line(None)
        'unknown: the graph keeps no stack trace for it'
    """
    frames = [frame.groupdict() for frame in _FRAME.finditer(stack_trace or "")]
    if not frames:
        return "unknown: the graph keeps no stack trace for it"
    own = [frame for frame in frames if not _in_library(frame["file"])]
    last = (own or frames)[-1]
    return f"{Path(last['file']).name}:{last['line']} in {last['function']}"


def _in_library(file: str) -> bool:
    return file.startswith("<") or any(file.startswith(folder) for folder in _library_folders())


@cache
def _folder(name: str) -> str | None:
    found = getattr(sys.modules.get(name), "__file__", None)
    return None if found is None else str(Path(found).parent) + "/"


def _library_folders() -> list[str]:
    return [folder for name in _LIBRARIES if name in sys.modules and (folder := _folder(name)) is not None]
