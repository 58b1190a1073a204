"""The bytecode that pip makes where it installs: what starts a process is measured with it, as its users have it."""

from __future__ import annotations

import compileall
from pathlib import Path
from types import ModuleType


def compiled(*packages: ModuleType) -> None:
    """Compile the sources of packages, also where Python is told to write no bytecode of what it imports."""
    for package in packages:
        compileall.compile_dir(Path(package.__file__ or "").parent, quiet=1)
