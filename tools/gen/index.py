"""The keyword index behind the site: our packages and torch's modules that the handbook is about, built once."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kwindex import Entry, build, read_index
from kwindex.kinds import USED

from .sources import Distribution


@dataclass(frozen=True, eq=False)
class Index:
    """All entries, in the order of files and lines."""

    entries: tuple[Entry, ...]

    @cached_property
    def modules(self) -> dict[str, str]:
        """The module that each file is."""
        return {entry.file: entry.name for entry in self.entries if entry.kind == "module"}


def made_of(distributions: list[Distribution], others: Sequence[Path]) -> Index:
    """Index the packages of the distributions and some other sources, without what they only use.

    Their pages show decorators beside definitions, and the palette is to load fast.
    """
    own = [distribution.folder / "src" / distribution.package for distribution in distributions if distribution.package]
    with tempfile.TemporaryDirectory() as folder:
        build([*own, *others], Path(folder, "index"))
        return Index(tuple(entry for entry in read_index(Path(folder, "index")) if entry.kind not in USED))
