"""The originals: pages and keywords of torch's modules that the handbook covers, and of their neighbours.

They are made from the torch that is installed where the site is built, and are not committed.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from kwindex.pages import page_texts, places_at, tree_of
from kwindex.pages.file_pages import Places

from .index import Index
from .sources import Output

FOLDER = "docs/originals"
UNSEARCHED = (
    "---\nsearch:\n  exclude: true\n---\n"  # the search of words would drown in them; the palette has their names
)
COVERED = (
    "distributed/_functional_collectives.py",
    "distributed/fsdp/_fully_shard",
    "_inductor/comm_lowering.py",
    "distributed/tensor/experimental",
)
NEIGHBOURS = (
    "_inductor/comm_analysis.py",
    "_inductor/comms.py",
    "distributed/_symmetric_memory/__init__.py",
    "distributed/device_mesh.py",
    "distributed/distributed_c10d.py",
    "distributed/nn/functional.py",
    "distributed/tensor/_collective_utils.py",
    "distributed/tensor/placement_types.py",
)


def pages(index: Index) -> list[Output]:
    """Every page, its lines linked to torch's sources at the very commit that is installed."""
    tree = tree_of(installed(), [entry for entry in index.entries if is_original(entry.file)])
    places = published(getattr(torch.version, "git_version", None))
    return [Output(f"{FOLDER}/{path}", UNSEARCHED + text, False) for path, text in page_texts(tree, places)]


def published(commit: str | None) -> Places:
    """Where lines of torch's sources are shown: at the commit that a torch says it was made from, else as text."""
    if commit is None or not re.fullmatch(r"[0-9a-f]{40}", commit):
        return places_at("")  # a build that does not know its commit; a tag would be a guess
    return places_at("https://github.com/pytorch/pytorch/blob/{commit}/{file}#L{line}", commit)


def is_original(file: str) -> bool:
    """Whether a file of the index is torch's."""
    return file.startswith("torch/")


def installed() -> list[Path]:
    """Where the modules are installed; one that this torch has no more is left out."""
    root = Path(torch.__file__).parent
    return [path for name in (*COVERED, *NEIGHBOURS) if (path := root / name).exists()]
