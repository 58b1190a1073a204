"""Real text for the demo: the Python sources of the standard library of the running interpreter."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import torch

VOCABULARY = 128  # ASCII; every other character becomes "?"


def read_corpus(characters: int = 2_000_000) -> torch.Tensor:
    """Return the standard library's modules, one after another, as character codes.

    Shapes: `(n,)` with n at most `characters`, int64.
    """
    pieces: list[str] = []
    size = 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        pieces.append(path.read_text(encoding="utf-8", errors="replace"))
        size += len(pieces[-1])
        if size >= characters:
            break
    text = "".join(pieces)[:characters].encode("ascii", errors="replace")
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


def batches(corpus: torch.Tensor, steps: int, batch: int, context: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the same random pieces of text for every variant: inputs, and the characters that follow.

    Shapes: each of the two is `(batch, context)`.
    """
    generator = torch.Generator().manual_seed(20)
    taken = []
    for _ in range(steps):
        starts = torch.randint(len(corpus) - context - 1, (batch, 1), generator=generator)
        windows = corpus[starts + torch.arange(context + 1)]
        taken.append((windows[:, :-1].contiguous(), windows[:, 1:].contiguous()))
    return taken
