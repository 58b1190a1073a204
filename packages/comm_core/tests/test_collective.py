from __future__ import annotations

import dataclasses

import pytest

from comm_core import Collective, Lowering, Missing, missing
from comm_core.catalog import ALL_REDUCE, CATALOG
from comm_core.errors import ArgumentError

OWN = [field.name for field in dataclasses.fields(Collective) if field.init]


def test_the_fields_stand_in_the_order_that_every_file_fills_them_in() -> None:
    assert OWN == [
        "name",
        "summary",
        "schema",
        "check",
        "agrees",
        "shape",
        "oracle",
        "kernel",
        "gradient",
        "identity",
        "partial",
        "batch",
        "twin",
        "in_place",
        "wire_bytes",
        "lowering",
        "weighted",
        "expanded",
        "convention",
    ]


@pytest.mark.parametrize("field", OWN)
def test_a_field_cannot_be_left_empty(field: str) -> None:
    with pytest.raises(ArgumentError, match=f"got nothing for {field}; need a value or missing"):
        dataclasses.replace(ALL_REDUCE, **{field: None})


def test_a_field_can_be_missing_with_a_reason() -> None:
    entry = dataclasses.replace(ALL_REDUCE, twin=missing("c10d has none"))
    assert entry.twin == Missing("c10d has none")


def test_an_entry_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALL_REDUCE.name = "other"  # type: ignore[misc]


def test_it_has_no_methods_of_its_own() -> None:
    """The design's guard: a collective is data; what runs it stands elsewhere."""
    own = [name for name, value in vars(Collective).items() if callable(value) and not name.startswith("__")]
    assert own == []


def test_the_catalogue_is_keyed_by_name_and_lowered_by_word() -> None:
    assert [entry.name for entry in CATALOG.values()] == list(CATALOG)
    assert list(CATALOG)[:3] == ["all_reduce", "all_gather", "reduce_scatter"]
    assert all(isinstance(entry.lowering, Lowering) for entry in CATALOG.values())


def test_the_parameters_are_those_of_check() -> None:
    assert {name: sorted(entry.parameters) for name, entry in CATALOG.items()} == {
        "all_reduce": ["reduce_op"],
        "all_gather": ["dim"],
        "reduce_scatter": ["dim", "reduce_op"],
        "all_to_all": ["input_splits", "output_splits"],
        "broadcast": ["src"],
        "reduce": ["dst", "reduce_op"],
        "gather": ["dim", "dst", "sizes"],
        "scatter": ["dim", "sizes", "src"],
        "all_gather_v": ["dim", "sizes"],
        "reduce_scatter_v": ["dim", "reduce_op", "sizes"],
        "scan": ["reduce_op", "reverse"],
        "exscan": ["reduce_op", "reverse"],
        "permute": ["destinations"],
        "batch_p2p": ["receives", "reverse", "sends"],
        "barrier": [],
        "wait": [],
    }
