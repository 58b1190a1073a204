from __future__ import annotations

import json

from comm_lowering import CollectiveRecord, Policy, Report
from comm_lowering.report import merge

RECORD = CollectiveRecord(
    op="all_reduce",
    form="all_reduce_",
    source="model.py:9 in forward",
    nbytes=None,
    size="4*s77",
    dtype="float32",
    group="0",
    world=3,
    kernel="in_place",
    reason="the input dies here",
    rejected=(("identity", "the group has 3 ranks"),),
    copies_added=0,
    copies_saved=1,
    copy="none",
    wait="at once",
    kernels_before_wait=0,
    graph=0,
    phase="forward",
)


def test_the_table_shows_every_fact_of_a_collective() -> None:
    text = str(Report((RECORD,), Policy(), graphs=2, compiled=3, graph_breaks=("print called\nmuch more",)))
    facts = ["all_reduce", "4*s77", "float32", "in_place", "+0 -1", "at once", "model.py:9 in forward (forward)"]
    assert all(fact in text for fact in [*facts, "why: the input dies here", "not identity: the group has 3 ranks"])
    assert text.splitlines()[0] == "lowering report: 1 collective in 3 compiled graphs (2 traced)"
    assert "graph break: print called" in text
    assert "much more" not in text


def test_a_report_without_collectives_says_so() -> None:
    assert str(Report((), Policy(), compiled=1)).startswith("lowering report: no collectives in 1 compiled graph\n")


def test_json_has_the_whole_record_and_reads_back() -> None:
    data = json.loads(Report((RECORD,), Policy(in_place="never")).to_json())
    assert data["policy"]["in_place"] == "never"
    back = {**data["collectives"][0], "rejected": tuple(map(tuple, data["collectives"][0]["rejected"]))}
    assert CollectiveRecord(**back) == RECORD


def test_merging_keeps_order_and_adds_up_graphs() -> None:
    merged = merge([Report((RECORD,), Policy(), compiled=1), Report((), Policy(), compiled=1)], Policy())
    assert (merged.collectives, merged.compiled) == ((RECORD,), 2)
