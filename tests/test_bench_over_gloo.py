"""How the bench over gloo judges: by the turns of both ranks together, and by what their spread allows to say."""

import importlib
import json
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "tools" / "bench"


@pytest.fixture
def bench(monkeypatch):
    """The bench as a module."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("over_gloo")


def test_the_slower_rank_of_each_turn_counts(bench):
    found = bench.judged([[(10.0, 20.0)] * 9, [(30.0, 10.0)] * 9])
    assert found == {"us": 30.0, "ratio": 1.5, "low": 1.5, "high": 1.5}


def test_turns_that_disagree_say_little_and_turns_that_agree_say_much(bench):
    apart = bench.judged([[(0.5, 1.0), (2.0, 1.0)] * 10 + [(1.1, 1.0)]])
    assert apart["low"] < 1.0 < apart["ratio"] == 1.1 < apart["high"]
    alike = bench.judged([[(1.1 + 0.001 * (turn % 5), 1.0) for turn in range(41)]])
    assert 1.1 <= alike["low"] <= alike["ratio"] <= alike["high"] < 1.105


def test_one_outlier_moves_nothing(bench):
    found = bench.judged([[(0.9, 1.0)] * 40 + [(500.0, 1.0)]])
    assert (found["low"], found["ratio"], found["high"]) == (0.9, 0.9, 0.9)


def test_rows_of_other_runs_are_kept_in_the_order_of_the_table(bench, tmp_path):
    path = tmp_path / "over_gloo.json"
    small, large = ({"name": "all_reduce", "bytes": size, "ratio": 0.5} for size in (4, 1 << 25))
    assert bench.kept(path, [large]) == [large]
    path.write_text(json.dumps({"rows": [large]}))
    assert bench.kept(path, [small]) == [small, large]
    better = {**large, "ratio": 0.4}
    assert bench.kept(path, [better]) == [better]
