"""`python -m tools.gen.halves originals|others FOLDER`: a strict build of the site that writes only one half's pages.

mkdocs uses one core. The originals' pages need no docstrings and half of the time, so that a second process makes them
beside the first. Each reads every page, for the titles in the navigation, and renders its own.
"""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mkdocs.commands.build as mkdocs_build
from mkdocs.__main__ import cli
from mkdocs.structure.pages import Page

from .sources import ROOT

ORIGINALS, OTHERS = "originals", "others"


def started(half: str, folder: Path) -> subprocess.Popen[bytes]:
    """A process that builds one half into a folder."""
    return subprocess.Popen([sys.executable, "-m", __name__, half, str(folder)], cwd=ROOT)


def build(half: str, folder: str) -> None:
    """Build one half of the site; end with 1 at anything that mkdocs warns of."""

    def is_mine(page: Page) -> bool:
        return (half == ORIGINALS) == page.file.src_uri.startswith("originals/")

    def populate(whole: Callable[..., None], page: Page, config: Any, *rest: Any) -> None:
        whole(page, config, *rest) if is_mine(page) else page.read_source(config)

    def write(whole: Callable[..., None], page: Page, *rest: Any, **named: Any) -> None:
        if is_mine(page):
            whole(page, *rest, **named)

    mkdocs_build._populate_page = functools.partial(populate, mkdocs_build._populate_page)
    mkdocs_build._build_page = functools.partial(write, mkdocs_build._build_page)
    gc.disable()  # mkdocs keeps the tree of every page; to look through them for garbage takes a quarter of its time
    cli(["build", "--strict", "--site-dir", folder])  # with --quiet, mkdocs would not count warnings


if __name__ == "__main__":
    build(*sys.argv[1:])
