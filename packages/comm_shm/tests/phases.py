"""A copy of the C core that stops or dies at a chosen moment: at the entry or the end of any function of it.

The copy is compiled from the same sources with `-finstrument-functions` and `phases.c`, so the moments are those of the
code as it is, whatever its functions are called tomorrow.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
NAME = "comm_shm._native"
HOT = "reduce.c"  # called for every element: compiled as it is


@dataclass(frozen=True)
class Moment:
    """When a function is entered or left, for the `nth` time since the call began."""

    function: str
    leaving: bool
    nth: int
    code: int  # what phases.c calls it

    def __str__(self) -> str:
        return f"{'end' if self.leaving else 'entry'} of {self.function}, time {self.nth}"


def build(folder: Path) -> Path:
    """Compile the copy and return its path."""
    sources = sorted((PACKAGE / "csrc").glob("*.c"))
    cold = [str(source) for source in [*sources, PACKAGE / "tests/phases.c"] if source.name != HOT]
    hot, library = folder / "hot.o", folder / "_native.abi3.so"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC"))
    flags = ["-std=c11", "-O1", "-fPIC", "-fvisibility=hidden", "-DPy_LIMITED_API=0x030B0000", f"-I{PACKAGE / 'csrc'}"]
    command = [*compiler, *flags, f"-I{sysconfig.get_path('include')}"]
    hot_sources = [str(source) for source in sources if source.name == HOT]
    subprocess.run([*command, "-c", *hot_sources, "-o", str(hot)], check=True, timeout=300)
    linked = ["-finstrument-functions", "-shared", "-pthread", *cold, str(hot), "-o", str(library)]
    subprocess.run([*command, *linked], check=True, timeout=300)
    return library


def functions(library: Path) -> dict[int, str]:
    """Return the names of the core's functions by their distance from `phases_base`."""
    listed = subprocess.run(["nm", str(library)], check=True, capture_output=True, text=True, timeout=60).stdout
    rows = [line.split() for line in listed.splitlines() if len(line.split()) == 3]
    places = [(int(place, 16), name) for place, kind, name in rows if kind in "tT"]
    base = next(place for place, name in places if name == "phases_base")
    return {place - base: name for place, name in places}


def named(codes: list[int], names: dict[int, str]) -> list[Moment]:
    """Return the moments behind the numbers that `Core.record` gave, in order."""
    times: Counter[int] = Counter()
    found = []
    for code in codes:
        times[code] += 1
        distance = ctypes.c_int32(code).value >> 1
        found.append(Moment(names[distance], bool(code & 1), times[code], code))
    return found


class Core:
    """The copy, in a rank process that has not used the real one: from now on it is `comm_shm._native`."""

    def __init__(self, library: str) -> None:
        import comm_shm

        assert NAME not in sys.modules
        loader = importlib.machinery.ExtensionFileLoader(NAME, library)
        spec = importlib.util.spec_from_file_location(NAME, library, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        sys.modules[NAME] = comm_shm._native = module  # type: ignore[attr-defined]
        self._library = ctypes.CDLL(library)

    def begin(self) -> None:
        """Record from now on, and forget what was recorded."""
        self._library.phases_record(1)

    def record(self, call: Callable[[], Any]) -> list[int]:
        """Return what was entered and left during a call."""
        self.begin()
        try:
            call()
        finally:
            self._library.phases_record(0)
        first = ctypes.POINTER(ctypes.c_uint32)()
        count = self._library.phases_seen(ctypes.byref(first))
        return first[:count]

    def arm(self, moment: Moment, number: int) -> None:
        """Have this process sent a signal when the moment comes; counting begins now."""
        self._library.phases_arm(ctypes.c_uint32(moment.code), ctypes.c_uint32(moment.nth), number)
