from __future__ import annotations

from dataclasses import replace

import pytest

from comm_core import Lowering
from comm_lowering import Policy
from comm_lowering.choose import Fate, Kernel, Request, choose

REDUCE = Request("all_reduce", Lowering.CLONE_THEN_IN_PLACE, 4096, "float32", 3, Fate.DIES, "dead", "sum")
GATHER = Request("all_gather", Lowering.OUT_OF_PLACE, 4096, "float32", 3, Fate.DIES, "dead")


@pytest.mark.parametrize(
    ("request_", "policy", "kernel"),
    [
        (REDUCE, Policy(), Kernel.IN_PLACE),
        (REDUCE, Policy(in_place="never"), Kernel.COPY_THEN_IN_PLACE),
        (replace(REDUCE, fate=Fate.LIVES), Policy(), Kernel.COPY_THEN_IN_PLACE),
        (replace(REDUCE, fate=Fate.OVERWRITTEN), Policy(in_place="never"), Kernel.IN_PLACE),
        (replace(REDUCE, nbytes=None), Policy(), Kernel.IN_PLACE),
        (replace(REDUCE, world=1), Policy(), Kernel.IDENTITY),
        (replace(REDUCE, world=1), Policy(lone_group="call"), Kernel.IN_PLACE),
        (replace(REDUCE, world=1, reduce_op="avg"), Policy(), Kernel.IN_PLACE),
        (replace(REDUCE, world=1), Policy(collectives=("wait",)), Kernel.INDUCTOR),
        (GATHER, Policy(), Kernel.OUT_OF_PLACE),
        (replace(GATHER, world=1), Policy(), Kernel.IDENTITY),
        (GATHER, Policy(collectives=("all_reduce",)), Kernel.INDUCTOR),
    ],
)
def test_the_kernel_follows_from_the_request_and_the_policy(request_: Request, policy: Policy, kernel: Kernel) -> None:
    choice = choose(request_, policy)
    assert choice.kernel is kernel
    assert choice.reason
    assert kernel not in [other for other, _ in choice.rejected]
    assert all(why for _, why in choice.rejected)


def test_whatever_was_possible_is_either_chosen_or_rejected_with_a_reason() -> None:
    for world in (1, 2, 3):
        for fate in Fate:
            choice = choose(replace(REDUCE, world=world, fate=fate), Policy())
            seen = {choice.kernel, *(kernel for kernel, _ in choice.rejected)}
            assert {Kernel.IN_PLACE, Kernel.IDENTITY} <= seen
