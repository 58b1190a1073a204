"""How much memory a call takes: its result and at most one more copy of what it is given. Its backward, too."""

import importlib
from pathlib import Path

import pytest
import torch

from comm_core.testing.allocations import allocated

BENCH = Path(__file__).parents[3] / "tools/bench/copies.py"
FREE = [
    *((name, "") for name in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce")),
    *((name, "in place") for name in ("all_reduce", "all_gather", "reduce_scatter")),
    ("all_reduce", "of a view"),
    ("all_reduce", "coalesced"),
    *((name, "backward") for name in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")),
    *((name, "backward of avg") for name in ("all_reduce", "reduce_scatter", "reduce_scatter_v")),
]


@pytest.fixture(scope="module")
def bench():
    """The bench, which has the calls and the count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH.parent)
        yield importlib.import_module(BENCH.stem)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_a_call_makes_at_most_one_copy_beside_its_result(bench, world):
    copies = bench.copies(world)
    assert [name for name in FREE if copies[name][0] > bench.LIMIT - 1] == []
    assert bench.over(copies) == {}


def test_what_is_freed_again_is_counted_too():
    x = torch.ones(1 << 18)
    taken = allocated(lambda: [x + 1, (x * 2 * 3)[:1]])
    assert round(taken.given_out / x.nbytes, 1) == 3.0
    assert round(taken.at_once / x.nbytes, 1) == 3.0
    assert taken.result == x.nbytes + 4


def test_what_is_freed_before_more_is_taken_is_not_there_at_one_time():
    x = torch.ones(1 << 18)
    taken = allocated(lambda: x + (x * 2 * 3).sum())
    assert round(taken.given_out / x.nbytes, 1) == 3.0
    assert round(taken.at_once / x.nbytes, 1) == 2.0
