"""Builds the site from what is generated, and checks that it has all that the inventory and the palette promise."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from . import halves, inventory, markup, palette
from .index import Index
from .sources import Distribution

FOLDER = "site"


def build(folder: Path) -> None:
    """Run mkdocs, strictly, on two cores.

    Raises:
        SystemExit: mkdocs failed; what went wrong stands above.
    """
    with tempfile.TemporaryDirectory() as aside:
        processes = [halves.started(halves.ORIGINALS, Path(aside)), halves.started(halves.OTHERS, folder)]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit(1)
        shutil.copytree(Path(aside, halves.ORIGINALS), folder / halves.ORIGINALS, dirs_exist_ok=True)


def lacking(folder: Path, index: Index, distributions: list[Distribution]) -> list[str]:
    """What is not on the site: public names, what the palette leads to, and words that became tags of HTML."""
    undocumented = [
        f"{name}: not in the site's inventory" for name in inventory.missing(folder / "objects.inv", distributions)
    ]
    dead = [f"{place}: not on the site" for place in palette.dead(folder, index, distributions)]
    return undocumented + dead + markup.unknown_tags(folder)
