"""The keyword index behind the site: our packages and torch's modules that the handbook is about, built once."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kwindex import Entry, build, read_index

from .sources import Distribution


@dataclass(frozen=True, eq=False)
class Index:
    """All entries, in the order of files and lines."""

    entries: tuple[Entry, ...]

    @cached_property
    def modules(self) -> dict[str, str]:
        """The module that each file is."""
        return {entry.file: entry.name for entry in self.entries if entry.kind == "module"}


def sources(distributions: list[Distribution], others: Sequence[Path]) -> list[Path]:
    """What the index is made of: the packages of the distributions, and some other sources."""
    own = [distribution.folder / "src" / distribution.package for distribution in distributions if distribution.package]
    return [*own, *others]


def made_of(distributions: list[Distribution], others: Sequence[Path]) -> Index:
    """Index the packages of the distributions and some other sources."""
    with tempfile.TemporaryDirectory() as folder:
        build(sources(distributions, others), Path(folder, "index"))
        return Index(tuple(read_index(Path(folder, "index"))))
