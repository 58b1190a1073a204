from __future__ import annotations

import itertools

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import ReduceOpError
from comm_core.reduce_ops import REDUCE_OPS, c10d_op, check_dtype, reduce_in_rank_order, reduce_word

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
