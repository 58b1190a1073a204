"""Whether the built site documents every public name, read from the inventory that mkdocstrings writes."""

from __future__ import annotations

import zlib
from pathlib import Path

from .doors import public_names
from .sources import Distribution

HEADER_LINES = 4


def documented(inventory: Path) -> set[str]:
    """The names in a Sphinx inventory file."""
    raw = inventory.read_bytes()
    body = raw.split(b"\n", HEADER_LINES)[HEADER_LINES]
    return {line.split(" ", 1)[0] for line in zlib.decompress(body).decode("utf-8").splitlines() if line}


def missing(inventory: Path, distributions: list[Distribution]) -> list[str]:
    """The public names that the site has no entry for."""
    known = documented(inventory)
    return [
        f"{distribution.package}.{one.name} ({one.path})"
        for distribution in distributions
        for one in public_names(distribution)
        if one.path not in known
    ]
