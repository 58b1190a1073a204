from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from torch._inductor import config, lowering
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch.torch_version import TorchVersion

import comm_lowering
from comm_core import Missing
from comm_core.catalog import CATALOG
from comm_core.errors import ArgumentError, TransportError
from comm_lowering import Policy, inductor_compat


def tables() -> tuple[Any, ...]:
    user = dict(getattr(lowering, "user_lowerings", {}))
    return user, dict(lowering.lowerings), config.post_grad_custom_post_pass


def same(now: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    return now[0] == before[0] and now[1] == before[1] and now[2] is before[2]


def test_importing_loads_no_compiler_and_registers_nothing() -> None:
    code = "import sys, comm_lowering; print('torch._inductor.lowering' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"


def test_disable_puts_every_table_and_setting_back() -> None:
    before = tables()
    comm_lowering.enable()
    assert comm_lowering.enabled() == Policy()
    assert not same(tables(), before)
    comm_lowering.disable()
    comm_lowering.disable()
    assert same(tables(), before)
    assert comm_lowering.enabled() is None


def test_every_op_that_the_catalogue_names_is_taken_over() -> None:
    comm_lowering.enable()
    names = [name for entry in CATALOG.values() for name in (entry.twin, entry.in_place)]
    expected = {inductor_compat.functional_op(name) for name in names if not isinstance(name, Missing)}
    assert set(inductor_compat._tables()[0]) >= expected
    assert len(expected) >= 8


def test_enabling_twice_changes_nothing_and_another_policy_replaces_the_first() -> None:
    before = tables()
    comm_lowering.enable()
    once = tables()
    comm_lowering.enable(Policy())
    assert same(tables(), once)
    comm_lowering.enable(Policy(in_place="never"))
    assert comm_lowering.enabled() == Policy(in_place="never")
    assert not same(tables(), once)
    comm_lowering.disable()
    assert same(tables(), before)


def test_an_op_that_somebody_else_took_over_meanwhile_stays_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    table, op = inductor_compat._tables()[0], torch.ops._c10d_functional.all_reduce.default

    def theirs(*args: Any) -> None: ...

    comm_lowering.enable()
    monkeypatch.setitem(table, op, theirs)
    comm_lowering.disable()
    assert table.pop(op) is theirs


class Counting(CustomGraphPass):
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, graph: torch.fx.Graph) -> None:
        self.calls += 1

    def uuid(self) -> str:
        return "counting"


@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize("raw", [True, False])
def test_the_users_own_pass_still_runs_and_still_decides_about_caching(
    monkeypatch: pytest.MonkeyPatch, lists: bool, raw: bool
) -> None:
    monkeypatch.setattr(inductor_compat, "_takes_lists", lambda: lists)
    counting = Counting()
    mine: Any = (lambda graph: counting(graph)) if raw else counting
    with config.patch(post_grad_custom_post_pass=mine):
        comm_lowering.enable()
        passes = inductor_compat._as_passes(config.post_grad_custom_post_pass)
        for one in passes:
            one(torch.fx.Graph())
        assert counting.calls == 1
        keyed = [getattr(one, "uuid", lambda: None)() for one in passes]
        assert all(keyed) is not raw
        comm_lowering.disable()
        assert config.post_grad_custom_post_pass is mine


def test_a_pass_added_after_enable_survives_disable() -> None:
    later = Counting()
    with config.patch(post_grad_custom_post_pass=None):
        comm_lowering.enable()
        config.post_grad_custom_post_pass = [config.post_grad_custom_post_pass, later]
        comm_lowering.disable()
        assert config.post_grad_custom_post_pass == [later]


def test_the_key_changes_with_policy_and_ends_with_disable() -> None:
    keys = []
    for policy in (Policy(), Policy(in_place="never"), Policy(lone_group="call")):
        comm_lowering.enable(policy)
        keys.append(str(config.post_grad_custom_post_pass.uuid()))
    assert len(set(keys)) == 3
    comm_lowering.disable()
    assert config.post_grad_custom_post_pass is None


def test_another_thread_gets_the_key_pass_by_enabling_there() -> None:
    comm_lowering.enable()
    seen: list[bool] = []

    def other() -> None:
        seen.append(inductor_compat.pass_in_config())
        comm_lowering.enable()
        seen.append(inductor_compat.pass_in_config())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(30)
    assert seen[1]
    assert inductor_compat.pass_in_config()


def test_a_policy_of_another_type_is_refused() -> None:
    with pytest.raises(ArgumentError, match="got a dict"):
        comm_lowering.enable({"in_place": "auto"})  # type: ignore[arg-type]


def test_a_torch_without_a_name_that_is_needed_is_refused_by_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    before = tables()
    monkeypatch.setitem(inductor_compat._NEEDED, "torch._inductor.ir:_CollectiveKernel.create_sideways", "3.0")
    with pytest.raises(TransportError, match=r"without torch\._inductor\.ir\._CollectiveKernel\.create_sideways"):
        comm_lowering.enable()
    assert same(tables(), before)
    assert comm_lowering.enabled() is None


READS = """
import torch._inductor.scheduler as scheduler
import comm_lowering
from comm_core import own_ops
from comm_core.traced_transport import TracedTransport

class Group:
    rank, world, name = 0, 1, "0"

def trace():
    TracedTransport(Group())

node, kept = scheduler.SchedulerNode, []
before = node.recompute_size_and_body
for step in (%s):
    step()
    kept.append(node.recompute_size_and_body is not before)
print(*map(int, kept))
"""
ON, OFF, TRACE, NO_OPS = "comm_lowering.enable", "comm_lowering.disable", "trace", "own_ops.unregister"


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ((ON, ON, OFF, OFF), "1 1 0 0"),
        ((TRACE, TRACE, "own_ops.register", ON, NO_OPS, OFF), "1 1 1 1 1 0"),
        ((ON, TRACE, "own_ops.register", OFF, NO_OPS), "1 1 1 1 0"),
    ],
    ids=["the lowering alone", "ops that go before the lowering", "a lowering that goes before the ops"],
)
def test_reads_stay_behind_waits_as_long_as_the_lowering_or_who_traced_a_collective_needs_it(
    steps: tuple[str, ...], kept: str
) -> None:
    code = READS % ", ".join(steps)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    ours = TorchVersion(torch.__version__) < "2.14"
    assert done.stdout.strip() == (kept if ours else kept.replace("1", "0"))
