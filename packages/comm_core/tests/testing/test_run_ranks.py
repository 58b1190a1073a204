"""What `run_ranks` gives back, and what it takes."""

import os
import random
import threading
from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist

import comm_core
from comm_core.catalog import ALL_REDUCE
from comm_core.errors import ArgumentError
from comm_core.groups import as_group
from comm_core.testing import RanksFailedError, run_ranks

SCALE = 3.0


@dataclass
class Pair:
    first: int
    second: torch.Tensor


def scaled_rank(group, shift=0.0):
    return group.rank * SCALE + shift


def everyones_sum(group, n=4):
    x = torch.full((n,), float(group.rank + 1))
    dist.all_reduce(x)
    return x


@pytest.mark.parametrize("world", [1, 2, 3])
def test_results_come_in_rank_order(world):
    assert run_ranks(lambda group: (group.rank, group.world), world) == [(r, world) for r in range(world)]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_communicate(world):
    expected = [torch.full((4,), float(sum(range(1, world + 1))))] * world
    torch.testing.assert_close(run_ranks(everyones_sum, world), expected)


@pytest.mark.parametrize("world", [1, 3])
def test_the_catalogue_runs_as_in_the_simulator(world):
    def body(group):
        return comm_core.run(ALL_REDUCE, torch.arange(5.0) * group.rank, group, reduce_op="sum").tolist()

    assert run_ranks(body, world) == comm_core.World(world).run(body)


def test_code_keeps_the_file_that_it_is_from():
    """Newer cloudpickles leave it out, of functions in functions as well."""

    def body(group):
        def inner(): ...

        return [of.__code__.co_filename for of in (body, inner)]

    assert run_ranks(body, 1) == [[__file__] * 2]


def test_module_functions_with_globals_and_closures_and_lambdas():
    kept = [10, 20]

    def inner(group):
        return scaled_rank(group) + kept[group.rank]

    assert run_ranks(scaled_rank, args=(0.5,)) == [0.5, 3.5]
    assert run_ranks(inner) == [10.0, 23.0]
    assert run_ranks(lambda group, *more: (len(kept), more), args=(1, "a")) == [(2, (1, "a"))] * 2


def test_the_parents_globals_are_taken_at_the_call(monkeypatch):
    monkeypatch.setitem(globals(), "SCALE", 7.0)
    assert run_ranks(scaled_rank) == [0.0, 7.0]


def test_classes_of_a_test_module_stay_themselves():
    results = run_ranks(lambda group: Pair(group.rank, torch.ones(2)))
    assert [type(result) is Pair for result in results] == [True, True]
    assert [result.first for result in results] == [0, 1]


def test_tensors_come_back_as_plain_values():
    def body(group):
        weight = torch.nn.Parameter(torch.ones(3))
        big = torch.arange(1000.0)
        return {"parameter": weight, "graph": weight * 2, "view": big[3:5], "meta": torch.ones(2, device="meta")}

    for result in run_ranks(body):
        assert type(result["parameter"]) is torch.Tensor
        assert not result["graph"].requires_grad
        assert result["view"].untyped_storage().nbytes() == 8
        assert result["view"].tolist() == [3.0, 4.0]
        assert result["meta"].is_meta


def test_an_asynchronous_tensor_comes_back_finished():
    def body(group):
        import torch.distributed._functional_collectives as funcol

        return funcol.all_reduce(torch.ones(2), "sum", dist.group.WORLD)

    for result in run_ranks(body):
        assert type(result) is torch.Tensor
        assert result.tolist() == [2.0, 2.0]


def test_big_arguments_and_results():
    sent = torch.arange(6_000_000, dtype=torch.float32)  # 24 MB each way and rank, far beyond any pipe's buffer
    for rank, result in enumerate(run_ranks(lambda group, x: x + group.rank, args=(sent,))):
        assert torch.equal(result, sent + rank)


def test_the_group_is_the_default_group():
    def body(group):
        return group == as_group(None), group.backend, group.ranks, dist.get_world_size()

    assert run_ranks(body, 3, "gloo") == [(True, "gloo", (0, 1, 2), 3)] * 3


def test_backend_strings_are_passed_on():
    assert [x.tolist() for x in run_ranks(everyones_sum, backend="cpu:gloo", args=(1,))] == [[3.0]] * 2


def test_the_fake_backend():
    def body(group):
        dist.all_reduce(torch.ones(2))
        return group.backend, group.rank

    assert run_ranks(body, backend="fake") == [("fake", 0), ("fake", 1)]


def test_new_groups_work_and_do_not_outlive_the_run():
    def body(group):
        alone = dist.new_group([group.rank], use_local_synchronization=True)
        x = torch.ones(1)
        dist.all_reduce(x, group=alone)
        return x.item(), len(dist.distributed_c10d._world.pg_map)

    assert run_ranks(body) == run_ranks(body) == [(1.0, 2)] * 2


def test_every_run_starts_clean():
    def spoil(group):
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2)
        os.environ["COMMBOOK_SPOILED"] = "1"
        os.chdir("/")
        return torch.rand(2).tolist(), random.random()

    def look(group):
        state = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
        return state, os.environ.get("COMMBOOK_SPOILED"), os.getcwd()

    first = run_ranks(spoil)
    assert run_ranks(look) == [((True, torch.float32, 1), None, os.getcwd())] * 2
    assert run_ranks(spoil) == first
    assert first[0] == first[1]


def test_the_parents_environment_and_folder_are_taken_over(monkeypatch, tmp_path):
    monkeypatch.setenv("COMMBOOK_WORD", "blue")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made_by_this_test.py").write_text("answer = 42\n")
    monkeypatch.syspath_prepend(tmp_path)

    def body(group):
        import made_by_this_test

        here = os.environ["COMMBOOK_WORD"], os.getcwd()
        return *here, os.environ["RANK"], os.environ["WORLD_SIZE"], made_by_this_test.answer

    assert run_ranks(body) == [("blue", str(tmp_path), str(rank), "2", 42) for rank in range(2)]


def test_threads_of_the_parent_take_turns():
    results = {}

    def use(k):
        results[k] = run_ranks(lambda group: group.rank + k)

    threads = [threading.Thread(target=use, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {k: [k, k + 1] for k in range(4)}


def test_ranks_may_run_ranks():
    def outer(group):
        from comm_core.testing import close_shared_pool, run_ranks

        try:
            return run_ranks(lambda inner: inner.rank, world=2)
        finally:
            close_shared_pool()

    assert run_ranks(outer, world=1) == [[0, 1]]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"world": 0}, "world=0"),
        ({"world": True}, "world=True"),
        ({"world": "2"}, "world='2'"),
        ({"backend": 1}, "backend=1"),
        ({"timeout": 0}, "timeout=0"),
        ({"fn": 3}, "fn of type int"),
        ({"args": (threading.Lock(),)}, "cannot be sent"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(wrong, named):
    arguments = {"fn": scaled_rank} | wrong
    with pytest.raises(ArgumentError, match=named):
        run_ranks(**arguments)


def test_an_unknown_backend_is_named():
    with pytest.raises(RanksFailedError, match="carrier_pigeon"):
        run_ranks(scaled_rank, backend="carrier_pigeon")
    assert run_ranks(scaled_rank, world=3) == [0.0, 3.0, 6.0]


def test_warm_runs_need_no_new_processes():
    pids = run_ranks(lambda group: os.getpid(), 3)
    assert all(run_ranks(lambda group: os.getpid(), 3) == pids for _ in range(5))


def test_a_function_may_name_torchs_ops():
    def body(group):
        started = torch.ops._c10d_functional.all_reduce(torch.ones(2), "sum", group.name)
        return torch.ops._c10d_functional.wait_tensor(started).tolist()

    assert run_ranks(body, world=2) == [[2.0, 2.0]] * 2
