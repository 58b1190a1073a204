from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
import torch
import torch.distributed as dist

from comm_core import SimulatedGroup, World, as_group, catalog, launch, run, transport
from comm_core.errors import ArgumentError, CommError, DeadlockError, GroupError, MismatchError, RankFailedError
from comm_core.simulated_process_group import FinishedWork, SimulatedProcessGroup

WORLDS = (1, 2, 3, 4)


def total(group: Any, value: float = 1.0) -> float:
    return run(catalog.ALL_REDUCE, torch.tensor(value), group, reduce_op="sum").item()


@pytest.mark.parametrize("world", WORLDS)
def test_every_rank_runs_with_its_own_group_and_results_are_in_rank_order(world: int) -> None:
    def body(group: SimulatedGroup, factor: int) -> tuple[int, int, tuple[int, ...], str]:
        return group.rank * factor, group.world, group.ranks, group.backend

    assert World(world).run(body, 10) == [(10 * rank, world, tuple(range(world)), "simulated") for rank in range(world)]


@pytest.mark.parametrize("size", [0, -1, 1.0, "2", None, True, torch.tensor(2)], ids=str)
def test_a_size_that_is_no_number_of_ranks_is_refused(size: Any) -> None:
    with pytest.raises(ArgumentError, match="need a positive number of ranks") as caught:
        World(size)
    assert "tensor(" not in str(caught.value)


def test_none_is_the_ranks_own_group_and_only_inside() -> None:
    assert World(2).run(lambda group: as_group() is group and as_group(None) is group) == [True, True]
    with pytest.raises(GroupError):
        as_group()


def test_ranks_run_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=30)
    assert sorted(World(3).run(lambda group: barrier.wait())) == [0, 1, 2]


def test_return_values_are_given_back_as_they_are() -> None:
    marker = object()
    assert World(2).run(lambda group: marker if group.rank else None) == [None, marker]


@pytest.mark.parametrize("enabled", [True, False])
def test_the_callers_grad_mode_holds_on_every_rank(enabled: bool) -> None:
    with torch.set_grad_enabled(enabled):
        assert World(2).run(lambda group: torch.is_grad_enabled()) == [enabled] * 2
    assert torch.is_grad_enabled()


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    World(4).run(total)
    with pytest.raises(DeadlockError):
        World(3).run(lambda group: total(group) if group.rank else None)
    assert threading.active_count() == before


def test_worlds_can_be_run_again_inside_each_other_and_at_the_same_time() -> None:
    world = World(2)
    assert world.run(total) == world.run(total) == [2.0, 2.0]
    assert world.run(lambda group: (World(3).run(total), total(group))) == [([3.0] * 3, 2.0)] * 2


def test_results_of_ranks_share_no_memory() -> None:
    """A rank that writes into its result disturbs no other rank's saved tensors."""

    def body(group: SimulatedGroup) -> float:
        weight = torch.ones(2, requires_grad=True)
        mine = run(catalog.REDUCE_SCATTER, torch.ones(2 * group.world), group, reduce_op="sum", dim=0)
        loss = (weight * mine).sum()
        total(group)
        if group.rank == 1:
            mine.add_(5)
        total(group)
        if group.rank == 0:
            loss.backward()
            return weight.grad.sum().item()  # type: ignore[union-attr]
        return mine.sum().item()

    assert World(2).run(body) == [4.0, 14.0]


def test_a_rank_may_write_into_its_input_once_the_call_has_returned() -> None:
    def body(group: SimulatedGroup) -> float:
        x = torch.ones(2)
        pending = launch(catalog.ALL_REDUCE, x, group, reduce_op="sum")
        x.zero_()
        return pending.wait().sum().item()

    assert World(3).run(body) == [6.0] * 3


# What goes wrong


def test_an_error_of_the_users_names_the_rank_and_keeps_its_cause() -> None:
    def body(group: SimulatedGroup) -> float:
        if group.rank == 1:
            raise KeyError("weights")
        return total(group)

    with pytest.raises(RankFailedError, match="rank 1 of 3: got KeyError: 'weights'") as caught:
        World(3).run(body)
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_of_ours_keeps_its_type_and_gets_the_rank_as_a_note() -> None:
    def body(group: SimulatedGroup) -> torch.Tensor:
        return run(catalog.BROADCAST, torch.ones(1), group, src=0 if group.rank != 2 else 9)

    with pytest.raises(CommError, match="broadcast: got src=9") as caught:
        World(3).run(body)
    assert caught.value.__notes__ == ["raised on simulated rank 2 of 3"]


def test_the_first_rank_that_failed_by_itself_is_the_one_that_is_named() -> None:
    """The others fail too, but only because they waited for it."""

    def body(group: SimulatedGroup) -> float:
        if group.rank == 2:
            raise OSError("disk full")
        return total(group)

    with pytest.raises(RankFailedError, match="rank 2 of 3: got OSError: disk full"):
        World(3).run(body)


def test_a_deadlock_says_who_waits_where_and_who_has_gone() -> None:
    def body(group: SimulatedGroup) -> object:
        return total(group) if group.rank < 2 else None

    with pytest.raises(DeadlockError) as caught:
        World(3).run(body)
    said = caught.value.got
    waits = "waits in all_reduce(device cpu, dtype torch.float32, shape (), reduce op sum) of ranks [0, 1, 2]"
    states = [f"rank {rank} {state}" in said for rank in (0, 1) for state in (waits, "still runs")]
    assert states in ([True, False, True, False], [True, False, False, True], [False, True, True, False])
    assert "rank 2 has returned" in said


def test_one_call_too_many_is_a_deadlock() -> None:
    def body(group: SimulatedGroup) -> list[float]:
        return [total(group) for _ in range(3 if group.rank == 0 else 2)]

    with pytest.raises(DeadlockError, match="rank 0 waits in all_reduce"):
        World(2).run(body)


def test_ranks_that_wait_in_different_groups_for_each_other_are_told() -> None:
    """Rank 0 is in the pair first and rank 1 in the world first: the classic hang."""

    def body(group: SimulatedGroup) -> list[float]:
        groups = [group.subgroup([0, 1]), group] if group.rank < 2 else [group]
        return [total(one) for one in (groups if group.rank != 1 else groups[::-1])]

    with pytest.raises(DeadlockError) as caught:
        World(3).run(body)
    assert "of ranks [0, 1];" in caught.value.got
    assert "of ranks [0, 1, 2]" in caught.value.got


def test_a_deadlock_is_found_while_another_rank_still_runs() -> None:
    told = threading.Event()

    def body(group: SimulatedGroup) -> object:
        if group.rank == 2:
            return told.wait(20)
        if group.rank == 1:
            return "left"
        with pytest.raises(DeadlockError, match="rank 1 has returned"):
            total(group.subgroup([0, 1]))
        told.set()
        return "told"

    assert World(3).run(body) == ["told", "left", True]


def test_a_rank_that_was_told_can_go_on() -> None:
    def body(group: SimulatedGroup) -> str:
        if group.rank == 0:
            return "left"
        pair = group.subgroup([1, 2])
        with pytest.raises(DeadlockError):
            total(group)
        return f"{total(pair)}"

    assert World(3).run(body) == ["left", "2.0", "2.0"]


def test_a_disagreement_is_told_to_every_rank_and_they_can_go_on() -> None:
    def body(group: SimulatedGroup) -> float:
        reduce_, gather = (catalog.ALL_REDUCE, {"reduce_op": "sum"}), (catalog.ALL_GATHER, {"dim": 0})
        entry, params = reduce_ if group.rank == 0 else gather
        with pytest.raises(MismatchError, match=r"rank 0: all_reduce.*rank 1: all_gather"):
            run(entry, torch.ones(2), group, **params)
        return total(group)

    assert World(2).run(body) == [2.0, 2.0]


def test_an_error_is_not_shared_between_ranks() -> None:
    def body(group: SimulatedGroup) -> MismatchError:
        with pytest.raises(MismatchError) as caught:
            run(catalog.BROADCAST, torch.ones(2), group, src=group.rank)
        return caught.value

    errors = World(3).run(body)  # all alive when they are compared: one that is gone gives its place to another
    assert len({id(error) for error in errors}) == 3


def test_what_leaves_by_system_exit_leaves_by_system_exit() -> None:
    def body(group: SimulatedGroup) -> float:
        if group.rank == 0:
            raise SystemExit(3)
        return total(group)

    with pytest.raises(SystemExit):
        World(2).run(body)


@pytest.mark.timeout(60)
def test_an_oracle_that_fails_fails_on_every_rank() -> None:
    """Torch itself may refuse: no rank may be left waiting for a result that will never be there."""

    def broken(inputs: Any, params: Any) -> Any:
        raise NotImplementedError("no kernel for this dtype\nsecond line")

    entry = dataclasses.replace(catalog.ALL_REDUCE, oracle=broken)

    def body(group: SimulatedGroup) -> float:
        with pytest.raises(CommError, match="no kernel for this dtype"):
            run(entry, torch.ones(2), group, reduce_op="sum")
        return total(group)

    assert World(3).run(body) == [3.0] * 3


@pytest.mark.timeout(60)
def test_facts_that_cannot_be_compared_fail_on_every_rank() -> None:
    entry = dataclasses.replace(catalog.ALL_REDUCE, agrees=lambda x, **params: ("sizes", [1, 2]))

    def body(group: SimulatedGroup) -> float:
        with pytest.raises(CommError, match="unhashable type"):
            run(entry, torch.ones(2), group, reduce_op="sum")
        return total(group)

    assert World(3).run(body) == [3.0] * 3


@pytest.mark.timeout(60)
def test_ranks_on_different_devices_disagree() -> None:
    def body(group: SimulatedGroup) -> str:
        x = torch.ones(2, device="meta" if group.rank == 1 else "cpu")
        with pytest.raises(MismatchError) as caught:
            run(catalog.ALL_GATHER, x, group, dim=0)
        return str(caught.value)

    for said in World(3).run(body):
        assert "device cpu" in said
        assert "device meta" in said


# Sub-groups


def test_a_subgroup_has_its_own_positions_and_collectives() -> None:
    def body(group: SimulatedGroup) -> tuple[int, int, tuple[int, ...], float] | None:
        if group.rank == 1:
            return None
        pair = group.subgroup([3, 0, 2])
        return pair.rank, pair.world, pair.ranks, total(pair, float(group.rank))

    assert World(4).run(body) == [(1, 3, (3, 0, 2), 5.0), None, (2, 3, (3, 0, 2), 5.0), (0, 3, (3, 0, 2), 5.0)]


def test_a_subgroup_of_a_subgroup_counts_from_its_parent() -> None:
    def body(group: SimulatedGroup) -> tuple[int, ...] | None:
        if group.rank == 0:
            return None
        return group.subgroup([1, 2, 3]).subgroup([2, 0, 1]).ranks

    assert World(4).run(body) == [None, (3, 1, 2), (3, 1, 2), (3, 1, 2)]


def test_disjoint_groups_do_not_wait_for_each_other() -> None:
    def body(group: SimulatedGroup) -> list[float]:
        half = group.subgroup([0, 1] if group.rank < 2 else [2, 3])
        return [total(half, float(group.rank)) for _ in range(5 if group.rank < 2 else 1)]

    assert World(4).run(body) == [[1.0] * 5, [1.0] * 5, [5.0], [5.0]]


def test_two_groups_of_the_same_ranks_can_be_made() -> None:
    def body(group: SimulatedGroup) -> list[float]:
        everyone, again = group.subgroup([0, 1]), group.subgroup([0, 1])
        return [total(everyone), total(again), total(group), total(group.subgroup([1, 0]))]

    assert World(2).run(body) == [[2.0] * 4] * 2


def test_two_groups_of_the_same_ranks_do_not_meet_each_other() -> None:
    """On real ranks this hangs: the ranks are in different groups."""

    def body(group: SimulatedGroup) -> list[float]:
        one, other = group.subgroup([0, 1]), group.subgroup([0, 1])
        return [total(where) for where in ((one, other) if group.rank == 0 else (other, one))]

    with pytest.raises(DeadlockError):
        World(2).run(body)


@pytest.mark.parametrize("ranks", [[0, 0], [0, 2], [-1, 0], [1], [], ["a"], [0.0], 1, None, "01"], ids=str)
def test_a_subgroup_that_cannot_be_is_refused(ranks: Any) -> None:
    def body(group: SimulatedGroup) -> bool:
        if group.rank == 1:
            return True
        with pytest.raises(GroupError) as caught:
            group.subgroup(ranks)
        return caught.value.where == "subgroup"

    assert World(2).run(body) == [True, True]


# The transport


@pytest.mark.parametrize("world", [1, 2, 3])
def test_out_is_filled_and_given_back(world: int) -> None:
    def body(group: SimulatedGroup) -> list[bool]:
        wire, n = transport(group), group.world
        x, rows = torch.full((2 * n, 3), float(group.rank + 1)), [2] * n
        outs = [torch.zeros(2 * n, 3), torch.zeros(2 * n * n, 3), torch.zeros(2, 3), torch.zeros(2 * n, 3)]
        calls = [
            wire.all_reduce(x, "sum", out=outs[0]),
            wire.all_gather(x, out=outs[1]),
            wire.reduce_scatter(x, "sum", out=outs[2]),
            wire.all_to_all(x, rows, rows, out=outs[3]),
        ]
        fresh = [wire.all_reduce(x, "sum"), wire.all_gather(x), wire.reduce_scatter(x, "sum")]
        same = [torch.equal(one.wait(), other.wait()) for one, other in zip(calls, fresh, strict=False)]
        return [*same, *(call.wait() is out for call, out in zip(calls, outs, strict=True))]

    assert World(world).run(body) == [[True] * 7] * world


@pytest.mark.parametrize("world", [1, 2, 3])
def test_in_place(world: int) -> None:
    def body(group: SimulatedGroup) -> tuple[float, float, list[float]]:
        wire = transport(group)
        summed, sent = torch.ones(2), torch.full((2,), float(group.rank))
        wire.all_reduce(summed, "sum", out=summed).wait()
        wire.broadcast(sent, group.world - 1, out=sent).wait()
        whole = torch.zeros(group.world)
        mine = whole[group.rank : group.rank + 1].fill_(group.rank + 1)
        wire.all_gather(mine, out=whole).wait()
        return summed[0].item(), sent[0].item(), whole.tolist()

    wanted = (float(world), float(world - 1), [float(rank + 1) for rank in range(world)])
    assert World(world).run(body) == [wanted] * world


def test_a_transport_records_no_gradient() -> None:
    def body(group: SimulatedGroup) -> bool:
        return transport(group).all_reduce(torch.ones(2, requires_grad=True), "sum").wait().requires_grad

    assert World(2).run(body) == [False, False]


# In flight, as over a process group


def flying(group: Any) -> Any:
    x = torch.ones(2) * (group.rank + 1)
    pending = launch(catalog.ALL_REDUCE, x, group, reduce_op="sum")
    known = pending.done, pending.shape
    return known, pending.wait().tolist(), pending.wait().tolist(), pending.done


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_collective_is_in_flight_until_it_is_waited_for(size: int) -> None:
    total = [size * (size + 1) / 2] * 2
    assert World(size).run(flying) == [((False, (2,)), total, total, True)] * size


def two_orders(group: Any) -> Any:
    """Two groups whose collectives start in another order on each rank, and are waited for only then."""
    pair, same = group.subgroup([0, 1]), group.subgroup([0, 1])
    first, second = (pair, same) if group.rank == 0 else (same, pair)
    started = {on: launch(catalog.ALL_REDUCE, torch.ones(1), on, reduce_op="sum") for on in (first, second)}
    return [started[on].wait().item() for on in (pair, same)]


def test_collectives_of_two_groups_may_start_in_another_order_on_each_rank() -> None:
    assert World(2).run(two_orders) == [[2.0, 2.0]] * 2


def test_waiting_in_another_order_on_each_rank_before_the_other_starts_is_a_deadlock() -> None:
    def body(group: Any) -> Any:
        pair, same = group.subgroup([0, 1]), group.subgroup([0, 1])
        for on in (pair, same) if group.rank == 0 else (same, pair):
            run(catalog.ALL_REDUCE, torch.ones(1), on, reduce_op="sum")

    with pytest.raises(DeadlockError, match=r"rank 0 waits in all_reduce.*rank 1 waits in all_reduce"):
        World(2).run(body)


def test_what_goes_wrong_is_raised_although_nobody_waits() -> None:
    def differ(group: Any) -> Any:
        launch(catalog.ALL_REDUCE, torch.ones(group.rank + 1), group, reduce_op="sum")

    def alone(group: Any) -> Any:
        if group.rank == 1:
            launch(catalog.ALL_REDUCE, torch.ones(1), group, reduce_op="sum")

    with pytest.raises(MismatchError, match=r"rank 0: .*shape \(1,\).*rank 1: .*shape \(2,\)"):
        World(2).run(differ)
    with pytest.raises(DeadlockError, match="rank 0 has returned; rank 1 waits in all_reduce"):
        World(2).run(alone)


def test_an_error_that_was_caught_is_not_raised_again_at_the_end() -> None:
    def body(group: Any) -> Any:
        with pytest.raises(MismatchError):
            run(catalog.ALL_REDUCE, torch.ones(group.rank + 1), group, reduce_op="sum")
        return run(catalog.ALL_REDUCE, torch.ones(1), group, reduce_op="sum").item()

    assert World(3).run(body) == [3.0] * 3


def test_a_result_may_be_waited_for_after_the_run_and_never_hangs() -> None:
    kept = []

    def fails(group: Any) -> Any:
        if group.rank == 0:
            kept.append(launch(catalog.ALL_REDUCE, torch.ones(1), group, reduce_op="sum"))
        raise ValueError("on purpose")

    after = World(2).run(lambda group: launch(catalog.ALL_REDUCE, torch.ones(1), group, reduce_op="sum"))
    assert [pending.wait().item() for pending in after] == [2.0, 2.0]
    with pytest.raises(RankFailedError):
        World(2).run(fails)
    with pytest.raises(DeadlockError, match="a run that is over"):
        kept[0].wait()


def test_a_write_to_what_a_process_group_would_still_be_sending_is_refused() -> None:
    def body(group: Any) -> Any:
        said = []
        for entry, params in (
            (catalog.ALL_GATHER, {"dim": 0}),
            (catalog.REDUCE_SCATTER, {"reduce_op": "sum", "dim": 0}),
            (catalog.ALL_REDUCE, {"reduce_op": "sum"}),
            (catalog.BROADCAST, {"src": 0}),
        ):
            x = torch.ones(2, 2)
            pending = launch(entry, x, group, **params)
            x.zero_()
            try:
                said.append(bool((pending.wait() != 0).all()))
            except ArgumentError:
                said.append("refused")
        return said

    assert World(2).run(body) == [["refused", "refused", True, True]] * 2


def test_a_graph_that_breaks_at_a_call_of_c10d_holds_no_frame_of_the_process_group() -> None:
    from torch._dynamo.eval_frame import _debug_get_cache_entry_list

    def step(x: torch.Tensor, on: dist.ProcessGroup) -> torch.Tensor:
        y = x * 2
        work = dist.all_reduce(y, group=on, async_op=True)
        work.wait()
        return y + 1

    def body(group: Any) -> list[float]:
        on = group.process_group
        return torch.compile(step, backend="eager")(torch.full((2,), float(group.rank)), on).tolist()

    torch.compiler.reset()
    assert World(2).run(body) == [[3.0, 3.0]] * 2
    ours = [SimulatedProcessGroup.allreduce, SimulatedProcessGroup.barrier, FinishedWork.wait]
    assert [fn.__name__ for fn in ours if _debug_get_cache_entry_list(fn.__code__)] == []
