"""A graph out of Inductor's cache is only used where it was lowered the same way."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.distributed._functional_collectives as funcol
from torch._dynamo.utils import counters
from torch._inductor import config

import comm_lowering
from comm_lowering import Policy


def calls_made(fn: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> int:
    """Compile with every cache on, run, and count the collectives that really ran."""
    torch._dynamo.reset()
    compiled = torch.compile(fn, fullgraph=True)
    compiled(x)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        compiled(x)
    return sum(event.count for event in profile.key_averages() if event.key == "_c10d_functional::all_reduce_")


def hits() -> int:
    return counters["aot_autograd"]["autograd_cache_hit"] + counters["inductor"]["fxgraph_cache_hit"]


def unseen() -> torch.Tensor:
    """A tensor of a size that no cache on this machine is likely to have met."""
    return torch.ones(random.SystemRandom().randrange(10_000, 2_000_000_000) % 999_983 + 1)


def test_switching_policies_and_off_always_runs_the_lowering_in_force(fake_group: Callable[[int], str]) -> None:
    name, x = fake_group(1), unseen()

    def fn(x: torch.Tensor) -> torch.Tensor:
        return funcol.all_reduce(x, "sum", name)

    made, hit = [], []
    for policy in (Policy(), None, Policy(lone_group="call"), Policy(), None, Policy(lone_group="call")):
        if policy is None:
            comm_lowering.disable()
        else:
            comm_lowering.enable(policy)
        before = hits()
        made.append(calls_made(fn, x))
        hit.append(hits() > before)
    assert made == [0, 1, 1, 0, 1, 1]
    assert hit == [False, False, False, True, True, True]


def test_a_group_of_the_same_name_and_another_size_is_another_key(fake_group: Callable[[int], str]) -> None:
    x = unseen()
    comm_lowering.enable()
    made = []
    for world in (1, 3, 1):
        name = fake_group(world)
        assert name == "0"
        made.append(calls_made(lambda x: funcol.all_reduce(x, "sum", "0"), x))
    assert made == [0, 1, 0]


def test_without_the_key_in_the_config_the_op_is_left_to_inductor(fake_group: Callable[[int], str]) -> None:
    name = fake_group(1)
    comm_lowering.enable()
    with config.patch(post_grad_custom_post_pass=None):
        assert calls_made(lambda x: funcol.all_reduce(x, "sum", name), unseen()) == 1
    report = comm_lowering.last_report()
    assert report is not None
    assert "cache key pass" in report.collectives[0].reason


def test_explain_reports_what_a_cache_would_have_hidden(fake_group: Callable[[int], str]) -> None:
    name, x = fake_group(1), unseen()

    def fn(x: torch.Tensor) -> torch.Tensor:
        return funcol.all_reduce(x, "sum", name)

    comm_lowering.enable()
    for _ in range(2):  # the second time it is in the cache, and compiled in this process
        calls_made(fn, x)
        assert [record.kernel for record in comm_lowering.explain(fn, x).collectives] == ["identity"]
    assert [record.kernel for record in comm_lowering.explain(torch.compile(fn), x).collectives] == ["identity"]
