from __future__ import annotations

import pytest

from comm_core.errors import ArgumentError
from comm_lowering import Policy


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"in_place": "often"}, "one of 'auto', 'never'"),
        ({"lone_group": True}, "one of 'skip', 'call'"),
        ({"collectives": ("all_reduce", "all_redcue")}, "'all_redcue'"),
        ({"collectives": "all_reduce"}, "a list of catalogue names"),
        ({"collectives": 3}, "a list of catalogue names"),
    ],
)
def test_unknown_values_are_refused_by_name(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Policy(**fields)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert f"Policy.{next(iter(fields))}" in str(caught.value)


def test_equal_policies_are_equal_however_they_were_spelled() -> None:
    assert Policy(collectives=("wait", "all_reduce")) == Policy(collectives=["all_reduce", "wait"])  # type: ignore[arg-type]
    assert Policy(collectives=("wait",)).takes("wait")
    assert not Policy(collectives=("wait",)).takes("all_reduce")


def test_every_field_is_in_the_line_that_keys_the_cache() -> None:
    variants = [Policy(), Policy(in_place="never"), Policy(lone_group="call"), Policy(collectives=())]
    assert len({policy.describe() for policy in variants}) == len(variants)
