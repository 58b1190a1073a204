"""Building the C core without Python: with any compiler, as it is or with one thing changed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

TESTS = Path(__file__).resolve().parent
CSRC = TESTS.parent / "csrc"
OF_PYTHON = ("Python.h", "door.h", "native.h")
PLAIN = sorted(file.name for file in CSRC.glob("*.c") if not any(word in file.read_text() for word in OF_PYTHON))
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fno-trapping-math")


def compilers() -> list[str]:
    """Return the C compilers of this machine, also those for other processors."""
    names = (os.environ.get("CC", "cc"), "gcc", "clang", "aarch64-linux-gnu-gcc")
    return list(dict.fromkeys(name for name in names if shutil.which(name)))


def copy(folder: Path, changes: dict[str, list[tuple[str, str]]]) -> Path:
    """Copy the sources, with pieces of text replaced, each of which must be there."""
    target = folder / "csrc"
    shutil.copytree(CSRC, target)
    for name, replacements in changes.items():
        text = (target / name).read_text()
        for old, new in replacements:
            assert old in text, f"{name} no longer says {old!r}: the mutant has to be written anew"
            text = text.replace(old, new)
        (target / name).write_text(text)
    return target


def build(program: Path, compiler: str, sources: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Compile the ranks as threads; nothing is checked."""
    words = [compiler, "-std=c11", "-O1", "-g", "-pthread", "-Wno-tsan", *flags, f"-I{sources}"]
    if "clang" in compiler:
        words.remove("-Wno-tsan")
    replaced = ["-Dmmap=one_mapping", "-Dmunmap=keep_mapping"]
    segment = program.with_suffix(".o")
    # only the segment's own mapping is shared by the threads
    first = subprocess.run(
        [*words, *replaced, "-c", str(sources / "segment.c"), "-o", str(segment)],
        capture_output=True,
        text=True,
    )
    if first.returncode:
        return first
    rest = [str(sources / name) for name in PLAIN if name != "segment.c"]
    main = str(TESTS / "csrc" / "ranks_as_threads.c")
    return subprocess.run([*words, main, *rest, str(segment), "-o", str(program)], capture_output=True, text=True)
