"""Simulated ranks run one at a time, and wait for each other by other means as well."""

import itertools
import threading

import torch

import functional_collectives as fc
from comm_core import World, baton


def test_one_rank_runs_at_a_time(monkeypatch):
    monkeypatch.setattr(baton, "_LOOK_S", 60.0)  # no pause of the machine makes others go on
    inside, most = itertools.count(1), []
    gone = itertools.count(0)

    def alone(group):
        for _ in range(5):
            entered = next(inside)
            for _ in range(200):
                torch.ones(64) + 1  # torch lets other threads run in each of its ops
            most.append(entered - next(gone))
            fc.wait_tensor(fc.all_reduce(torch.ones(2), "sum", group))

    World(4).run(alone)
    assert most == [1] * 20


def test_ranks_that_wait_for_each_other_by_other_means_go_on():
    barrier = threading.Barrier(3, timeout=60)

    def meet(group):
        barrier.wait()
        y = fc.all_reduce(torch.ones(1), "sum", group).item()
        barrier.wait()
        return y

    assert World(3).run(meet) == [3.0] * 3


def test_a_thread_of_a_rank_takes_part_in_its_place():
    def body(group):
        found = []
        thread = threading.Thread(target=lambda: found.append(fc.all_reduce(torch.ones(1), "sum", group).item()))
        thread.start()
        thread.join(60)
        return found

    assert World(2).run(body) == [[2.0]] * 2


def test_who_has_no_turn_passes_nothing_on(monkeypatch):
    monkeypatch.setattr(baton, "_LOOK_S", 60.0)
    one, order = baton.Baton(), []

    def other():
        with one.turn():
            order.append("other")

    thread = threading.Thread(target=other)
    with one.passed_on(), one.turn():  # the first is of a thread that has none
        thread.start()
        order.append("first")
        with one.passed_on():
            thread.join(60)
        order.append("last")
    assert order == ["first", "other", "last"]
