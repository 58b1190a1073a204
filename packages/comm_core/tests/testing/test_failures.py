"""Ranks that raise, hang or die: who is blamed, how soon the run ends, and that the next run works."""

import os
import pickle
import signal
import sys
import time

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import RankFailedError, RankTimeoutError
from comm_core.testing import RankFailure, RankPool, RanksFailedError, RanksTimedOutError
from comm_core.testing.failures import first_failure

LONG = 300.0  # a limit that no test here waits for


class OwnError(Exception):
    pass


@pytest.fixture(scope="module")
def pool():
    with RankPool() as pool:
        yield pool


def pids(pool, world=3):
    return pool.run(lambda group: os.getpid(), world)


def raise_on(group, bad, error):
    if group.rank == bad:
        raise error
    dist.all_reduce(torch.ones(4))
    return "done"


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_failing_rank_is_named_while_others_wait(pool, world):
    bad = world - 1
    with pytest.raises(RanksFailedError, match=f"rank {bad} of {world}: got ValueError: no good") as caught:
        pool.run(raise_on, world, timeout=LONG, args=(bad, ValueError("no good")))
    error = caught.value
    assert error.rank == bad
    assert type(error.cause) is ValueError
    assert error.__cause__ is error.cause
    assert "in raise_on" in error.errors[bad].traceback
    assert "raise error" in str(error)
    assert set(error.errors) == set(range(world))
    assert isinstance(error, RankFailedError)


def test_a_failure_ends_the_run_long_before_the_limit(pool):
    start = time.monotonic()
    with pytest.raises(RanksFailedError):
        pool.run(raise_on, 3, timeout=LONG, args=(1, ValueError("no good")))
    assert time.monotonic() - start < LONG / 3


def test_clean_failures_keep_the_processes():
    with RankPool(grace=LONG) as pool:
        before = pids(pool)
        with pytest.raises(RanksFailedError):
            pool.run(raise_on, 3, args=(0, ValueError("no good")))
        assert pids(pool) == before


def test_all_ranks_may_fail(pool):
    def body(group):
        raise KeyError(group.rank)

    with pytest.raises(RanksFailedError) as caught:
        pool.run(body, 3)
    assert [caught.value.errors[rank].kind for rank in range(3)] == ["KeyError"] * 3
    assert str(caught.value).count("KeyError") >= 3


def test_own_exceptions_of_a_test_module_arrive(pool):
    with pytest.raises(RanksFailedError) as caught:
        pool.run(raise_on, 2, args=(1, OwnError("mine", 3)))
    assert type(caught.value.cause) is OwnError
    assert caught.value.cause.args == ("mine", 3)


def test_an_exception_that_cannot_be_pickled_is_told_in_words(pool):
    def body(group):
        error = OwnError("with a lock inside")
        error.lock = __import__("threading").Lock()
        raise error

    with pytest.raises(RanksFailedError, match="OwnError: with a lock inside") as caught:
        pool.run(body, 2)
    assert caught.value.cause is None


def test_a_chain_of_exceptions_is_shown(pool):
    def body(group):
        try:
            raise OwnError("deep")
        except OwnError as error:
            raise ValueError("shallow") from error

    with pytest.raises(RanksFailedError, match=r"(?s)OwnError: deep.*direct cause.*ValueError: shallow"):
        pool.run(body, 1)


def test_output_is_shown_on_failure_and_only_of_this_run(pool):
    def body(group, word, fails):
        print(word, "on stdout", group.rank)
        print(word, "on stderr", group.rank, file=sys.stderr)
        if fails:
            raise ValueError

    pool.run(body, 2, args=("before", False))
    with pytest.raises(RanksFailedError) as caught:
        pool.run(body, 2, args=("now", True))
    for rank in range(2):
        assert f"now on stdout {rank}\nnow on stderr {rank}" in caught.value.errors[rank].output
        assert f"now on stdout {rank}" in str(caught.value)
    assert "before" not in str(caught.value)


@pytest.mark.parametrize("world", [2, 3])
def test_a_collective_that_one_rank_leaves_out_is_a_timeout_that_names_the_rest(pool, world):
    def body(group):
        if group.rank != 1:
            dist.all_reduce(torch.ones(4))

    waiting = tuple(rank for rank in range(world) if rank != 1)
    with pytest.raises(RanksTimedOutError, match="rank 1 had returned") as caught:
        pool.run(body, world, timeout=3.0)
    assert caught.value.unfinished == waiting
    assert all("in all_reduce" in caught.value.stacks[rank] for rank in waiting)
    assert "in body" in str(caught.value)
    assert isinstance(caught.value, RankTimeoutError)
    assert isinstance(caught.value, TimeoutError)
    assert "rank_process" not in str(caught.value)


def test_a_rank_that_holds_the_interpreter_still_tells_where_it_is(pool):
    def stuck(group):
        import ctypes

        ctypes.PyDLL(None).pause()

    with pytest.raises(RanksTimedOutError, match="in stuck"):
        pool.run(stuck, 1, timeout=1.0)


def test_only_the_hung_processes_are_replaced(pool):
    before = pids(pool)

    def body(group):
        if group.rank == 0:
            dist.all_reduce(torch.ones(4))

    with pytest.raises(RanksTimedOutError):
        pool.run(body, 3, timeout=1.0)
    after = pids(pool)
    assert len(set(before) & set(after)) == 2
    assert before[0] not in after


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda: os._exit(7), "exit code 7"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"),
    ],
)
def test_a_rank_that_dies_is_named(pool, end, said):
    def body(group):
        if group.rank == 1:
            end()
        dist.all_reduce(torch.ones(4))

    with pytest.raises(RanksFailedError, match=f"rank 1 of 3: got its process .*{said}") as caught:
        pool.run(body, 3, timeout=LONG)
    assert caught.value.rank == 1
    assert caught.value.errors[1].kind == "died"
    assert len(set(pids(pool))) == 3


def test_sys_exit_is_a_failure_and_the_process_is_replaced(pool):
    before = pids(pool, 2)

    def body(group):
        if group.rank == 0:
            sys.exit("enough")

    with pytest.raises(RanksFailedError, match="rank 0 of 2: got SystemExit: enough"):
        pool.run(body, 2)
    assert before[0] not in pids(pool, 2)


def test_a_result_that_cannot_be_sent_is_explained(pool):
    with pytest.raises(RanksFailedError, match="a result that cannot be sent back"):
        pool.run(lambda group: __import__("threading").Lock(), 2)
    assert len(pids(pool, 2)) == 2


def test_a_rank_outside_every_collective_is_ended_after_the_grace(pool):
    def body(group):
        import threading

        if group.rank == 0:
            raise ValueError("first")
        threading.Event().wait()

    with pytest.raises(RanksFailedError, match="first") as caught:
        pool.run(body, 2, timeout=LONG)
    assert caught.value.errors[1].kind == "unfinished"
    assert "in wait" in caught.value.errors[1].traceback


def test_a_group_that_the_function_destroyed_itself_is_no_failure(pool):
    def body(group):
        dist.barrier()
        dist.destroy_process_group()
        return group.rank

    assert pool.run(body, 2) == pool.run(body, 2) == [0, 1]


def test_the_errors_survive_pickling():
    failures = {0: RankFailure(0, "ValueError", "no", "tb", "out", ValueError("no"), 1.0)}
    failed = pickle.loads(pickle.dumps(RanksFailedError(2, failures, 0)))
    timed_out = pickle.loads(pickle.dumps(RanksTimedOutError(2, failures, 3.0)))
    assert str(failed) == str(RanksFailedError(2, failures, 0))
    assert (failed.rank, failed.errors[0].message, timed_out.unfinished) == (0, "no", (0,))


@pytest.mark.parametrize(
    ("failures", "first"),
    [
        ([RankFailure(0, "ValueError", "a", when=2.0), RankFailure(1, "ValueError", "b", when=1.0)], 1),
        ([RankFailure(0, "RuntimeError", "Connection reset", when=1.0), RankFailure(1, "died", "", when=2.0)], 1),
        ([RankFailure(0, "TransportError", "lost", when=1.0), RankFailure(1, "KeyError", "k", when=2.0)], 1),
        ([RankFailure(0, "RuntimeError", "shape", when=1.0), RankFailure(1, "died", "", when=2.0)], 0),
        ([RankFailure(0, "unfinished", "", when=1.0), RankFailure(1, "TransportError", "", when=2.0)], 1),
    ],
)
def test_the_rank_that_explains_the_others_is_first(failures, first):
    assert first_failure({failure.rank: failure for failure in failures}) == first
