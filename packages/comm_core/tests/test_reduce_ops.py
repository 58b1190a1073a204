from __future__ import annotations

import itertools

import pytest
import torch
import torch.distributed as dist

from comm_core import reduce_ops
from comm_core.errors import ReduceOpError
from comm_core.reduce_ops import (
    REDUCE_OPS,
    c10d_op,
    check_dtype,
    prefixes_in_rank_order,
    prefixes_into,
    reduce_in_rank_order,
    reduce_into,
    reduce_word,
)

WORDS = ("sum", "avg", "product", "min", "max", "band", "bor", "bxor")


def test_the_words() -> None:
    assert tuple(REDUCE_OPS) == WORDS


@pytest.mark.parametrize("word", WORDS)
def test_every_spelling_is_the_same_word(word: str) -> None:
    enum = getattr(dist.ReduceOp, word.upper())
    for spelling in (word, word.upper(), word.capitalize(), enum, dist.ReduceOp(enum)):
        assert reduce_word(spelling) == word
    assert c10d_op(word) == enum


@pytest.mark.parametrize(
    "wrong", ["mean", "", "sum ", None, 0, 3.5, b"sum", torch.ones(2), dist.ReduceOp.PREMUL_SUM], ids=str
)
def test_anything_else_is_refused_by_all_words(wrong: object) -> None:
    with pytest.raises(ReduceOpError) as caught:
        reduce_word(wrong, "all_reduce")
    assert caught.value.where == "all_reduce"
    assert all(word in caught.value.need for word in WORDS)
    assert "tensor(" not in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (torch.float32, "sum avg product min max"),
        (torch.bfloat16, "sum avg product min max"),
        (torch.int64, "sum product min max band bor bxor"),
        (torch.uint8, "sum product min max band bor bxor"),
        (torch.bool, "sum product min max band bor bxor"),
        (torch.complex64, "sum avg"),
    ],
)
def test_what_is_defined_for_a_dtype(dtype: torch.dtype, words: str) -> None:
    for word in WORDS:
        if word in words.split():
            check_dtype(word, dtype, "here")
            assert reduce_in_rank_order(word, [torch.ones(2, dtype=dtype)] * 3).dtype == dtype
            continue
        with pytest.raises(ReduceOpError) as caught:
            check_dtype(word, dtype, "here")
        assert caught.value.got == f"reduce op {word!r} for {dtype}"
        assert caught.value.need.startswith("one of " + ", ".join(words.split()))


@pytest.mark.parametrize("word", ["sum", "product", "min", "max", "band", "bor", "bxor"])
def test_bools_reduce_like_zeros_and_ones_that_saturate(word: str) -> None:
    for bits in itertools.product([False, True], repeat=3):
        got = reduce_in_rank_order(word, [torch.tensor(bit) for bit in bits])
        want = {
            "sum": any(bits),
            "max": any(bits),
            "bor": any(bits),
            "product": all(bits),
            "min": all(bits),
            "band": all(bits),
            "bxor": sum(bits) % 2 == 1,
        }[word]
        assert got.dtype is torch.bool
        assert got.item() is want


def test_ranks_are_combined_in_rank_order() -> None:
    """In float32 (big + 1) - big is 0, and (big - big) + 1 is 1."""
    big, one = torch.tensor(2.0**30), torch.tensor(1.0)
    assert reduce_in_rank_order("sum", [big, one, -big]).item() == 0
    assert reduce_in_rank_order("sum", [big, -big, one]).item() == 1


@pytest.mark.parametrize("word", ["sum", "avg", "max"])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_result_is_a_new_tensor(word: str, world: int) -> None:
    inputs = [torch.ones(2) for _ in range(world)]
    result = reduce_in_rank_order(word, inputs)
    result.zero_()
    assert all(torch.equal(x, torch.ones(2)) for x in inputs)


@pytest.mark.parametrize(
    "dtype",
    [torch.float8_e8m0fnu, torch.float4_e2m1fn_x2, torch.bits8, torch.bits1x8, torch.uint4, torch.int1, torch.qint8],
)
def test_what_is_only_moved_is_not_reduced(dtype: torch.dtype) -> None:
    with pytest.raises(ReduceOpError, match="need a dtype to compute with"):
        check_dtype("max", dtype, "scan")


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]
)
@pytest.mark.parametrize("word", ["sum", "avg", "product", "min", "max"])
@pytest.mark.parametrize("most", [1, 7, 1 << 14])
def test_float8_is_reduced_part_by_part_with_the_bits_of_the_definition(
    dtype: torch.dtype, word: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduce_ops, "_AT_ONCE", most)
    some = torch.Generator().manual_seed(0)
    for shape, world in itertools.product([(), (0,), (3, 0), (13,), (3, 5), (2, 3, 4), (1, 9, 1)], (1, 2, 3)):
        bits = [torch.randint(0, 256, shape, generator=some, dtype=torch.uint8) for _ in range(world)]  # NaNs too
        for laid in (lambda x: x, lambda x: x.mT.contiguous().mT if x.ndim > 1 else x):
            given = [laid(each).view(dtype) for each in bits]
            whole, parts = reduce_in_rank_order(word, given), prefixes_in_rank_order(word, given)
            for place in range(world):
                found = [laid(each).clone().view(dtype) for each in bits]
                assert reduce_into(word, found, place) is found[place]
                assert alike(found[place], whole)
            found = [laid(each).clone().view(dtype) for each in bits]
            for mine, right in zip(prefixes_into(word, found), parts, strict=True):
                assert alike(mine, right)


def alike(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Return whether two float8 tensors have the same bits, or are NaN, of which torch's min has either sign."""
    same = x.view(torch.uint8) == y.view(torch.uint8)
    return bool((same | (x.float().isnan() & y.float().isnan())).all())


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_float8_is_computed_in_float32_whatever_the_default_dtype_is(default: torch.dtype) -> None:
    ones = [torch.full((3,), value).to(torch.float8_e5m2) for value in [256.0, *[1.0] * 64]]  # each lost in bfloat16
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        reduce_into("sum", ones, 0)
    finally:
        torch.set_default_dtype(before)
    assert ones[0].float().tolist() == [320.0] * 3


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (17,), (1, 17), (4, 4, 4), (3, 1, 5), (2, 3)])
@pytest.mark.parametrize("most", [1, 2, 5, 16])
def test_parts_are_views_of_every_element_once_and_alike_in_size(shape: tuple[int, ...], most: int) -> None:
    whole = torch.zeros(shape)
    for x in (whole, torch.zeros(shape).mT if len(shape) > 1 else torch.zeros(shape)):
        sizes = []
        for part, beside in reduce_ops._parts([x, x.clone()], most):
            part.add_(1)
            assert part.shape == beside.shape
            sizes.append(part.numel())
        assert bool((x == 1).all())
        assert max(sizes) <= most
        assert len(sizes) == 1 or min(sizes) > 0
    in_a_row = [parts[0].numel() for parts in reduce_ops._parts([whole], most)]
    assert len(in_a_row) == max(1, -(-whole.numel() // most))
    assert max(in_a_row) - min(in_a_row) < max(2, len(in_a_row))


def test_the_parts_of_large_tensors_are_so_many_at_most() -> None:
    given = [torch.ones(50_000, dtype=torch.float8_e4m3fn) for _ in range(2)]
    seen: list[int] = []

    class Counts(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(func is torch.ops.aten.add.out)
            return func(*args, **(kwargs or {}))

    with pytest.MonkeyPatch.context() as patch, Counts():
        patch.setattr(reduce_ops, "_AT_ONCE", 1)
        reduce_into("sum", given, 0)
    assert reduce_ops._PARTS <= sum(seen) <= 2 * reduce_ops._PARTS
