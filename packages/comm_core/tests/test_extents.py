from __future__ import annotations

from typing import cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from comm_core.errors import ShapeError
from comm_core.extents import ceil_div, check_sizes, chunk_sizes, even_split, integer, normalize_dim, offsets

sizes = st.integers(0, 200)
worlds = st.integers(1, 9)


@given(sizes, worlds)
def test_ceil_div_is_the_least_number_of_rows_that_fit_all(size: int, parts: int) -> None:
    assert ceil_div(size, parts) * parts >= size
    assert (ceil_div(size, parts) - 1) * parts < size or size == 0


@given(sizes, worlds)
def test_chunk_sizes_are_those_of_torch_chunk(size: int, world: int) -> None:
    ours = chunk_sizes(size, world)
    torchs = [chunk.shape[0] for chunk in torch.empty(size).chunk(world)]
    assert len(ours) == world
    assert sum(ours) == size
    assert ours == torchs + [0] * (world - len(torchs))


@given(st.lists(sizes, max_size=6))
def test_offsets_are_where_the_blocks_of_a_split_start(blocks: list[int]) -> None:
    x = torch.arange(sum(blocks))
    starts = offsets(blocks)
    assert len(starts) == len(blocks)
    for start, block in zip(starts, x.split(blocks) if blocks else (), strict=True):
        assert torch.equal(x[start : start + len(block)], block)


@given(sizes, worlds)
def test_even_split_divides_or_refuses(size: int, world: int) -> None:
    if size % world == 0:
        assert even_split(size, world, "here") * world == size
        return
    with pytest.raises(ShapeError) as caught:
        even_split(size, world, "here", dim=2)
    assert caught.value.where == "here"
    assert f"size {size} in dim 2" in caught.value.got
    assert str(world) in caught.value.need
    padded = int(caught.value.hint.split()[-1])
    assert padded % world == 0
    assert 0 < padded - size < world


@pytest.mark.parametrize(("dim", "ndim", "front"), [(0, 1, 0), (-1, 1, 0), (2, 3, 2), (-3, 3, 0), (-1, 4, 3)])
def test_a_dim_is_counted_from_the_front(dim: int, ndim: int, front: int) -> None:
    assert normalize_dim(dim, ndim, "here") == front


@pytest.mark.parametrize("dim", [2, -3, None, True, 0.0, "0", torch.tensor(0)], ids=str)
def test_what_is_no_dim_is_refused(dim: object) -> None:
    with pytest.raises(ShapeError) as caught:
        normalize_dim(dim, 2, "here")  # type: ignore[arg-type]
    assert caught.value.need == "an int from -2 to 1"
    assert "tensor(" not in str(caught.value)
    assert "2-D" in caught.value.got


def test_a_tensor_without_dims_has_none() -> None:
    with pytest.raises(ShapeError, match=r"need a tensor of at least one dim; use x\.reshape"):
        normalize_dim(0, 0, "here")


def test_a_whole_number_may_be_of_any_kind_that_is_none_of_torchs() -> None:
    class Whole:
        def __index__(self) -> int:
            return 2

    assert integer(Whole()) == 2
    assert normalize_dim(cast(int, Whole()), 3, "gather") == 2
    assert check_sizes([Whole(), 1], 2, "gather") == (2, 1)
    for value in (True, 2.0, "2", None, torch.tensor(2)):
        assert integer(value) is None
