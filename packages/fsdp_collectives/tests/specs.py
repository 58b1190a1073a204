"""Hypothesis strategies for the tests of plans, and the definition of a shard that they are held against."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from fsdp_collectives import TensorSpec

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.int64)

shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
worlds = st.integers(1, 4)


@st.composite
def spec_lists(draw, dtypes=DTYPES, dims=(0, 0, 0, None)):
    count = draw(st.integers(0, 5))
    return [
        TensorSpec(f"p{i}", draw(shapes), draw(st.sampled_from(dtypes)), draw(st.sampled_from(dims)))
        for i in range(count)
    ]


def integers(spec, seed, dtype=None):
    """Whole numbers, so that sums are exact in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, spec.shape, generator=generator).to(dtype or spec.dtype)


def strided(x):
    """The same values with another memory layout."""
    if x.ndim < 2:
        return x.repeat_interleave(2)[::2] if x.ndim else x
    return x.transpose(0, -1).contiguous().transpose(0, -1)


def chunked(full, world):
    """What a shard is, in torch's own words: `torch.chunk` along dim 0, and nothing for the ranks after its end."""
    rows = full if full.ndim else full.view(1)
    chunks = list(rows.chunk(world)) if len(rows) else []
    return chunks + [rows[:0]] * (world - len(chunks))
