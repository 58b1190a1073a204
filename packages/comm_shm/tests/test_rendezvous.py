"""What the cards of the ranks say, and what follows from them."""

import json
import os
from dataclasses import asdict, replace
from datetime import timedelta

import pytest
import torch.distributed as dist

from comm_core.errors import RankFailedError, RankTimeoutError, TransportError
from comm_shm import rendezvous

HERE = rendezvous.Card(machine="m", pid_namespace=1, user=7, pid=1, born=1, why_not=None)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (replace(HERE, machine="n"), "several machines (rank 0: m; rank 1: m; rank 2: n)"),
        (replace(HERE, pid_namespace=2), "several pid namespaces"),
        (replace(HERE, user=8), "several users (rank 0: 7; rank 1: 7; rank 2: 8)"),
        (replace(HERE, why_not="it rains"), "got rank 2, where it rains"),
    ],
)
def test_what_makes_sharing_impossible_is_said_with_the_ranks(odd, words):
    error = rendezvous.refusal([HERE, HERE, odd])
    assert isinstance(error, TransportError)
    assert words in str(error)
    assert 'use backend="gloo"' in str(error)


def test_nothing_is_refused_on_one_machine():
    assert rendezvous.refusal([HERE]) is None
    assert rendezvous.refusal([HERE] * 3) is None


def test_cards_are_exchanged_anew_each_time():
    store = dist.HashStore()
    for pid in (1, 2):
        card = replace(HERE, pid=pid)
        assert rendezvous.exchange(store, 0, 1, card, timedelta(seconds=5)) == [card]


def test_ranks_without_a_card_are_named():
    with pytest.raises(RankTimeoutError, match=r"no sign of rank 0, 2 within 0\.05 s; need all 3 ranks"):
        rendezvous.exchange(dist.HashStore(), 1, 3, HERE, timedelta(milliseconds=50))


def test_a_rank_that_has_ended_is_named_unless_it_has_left_its_card():
    store = dist.HashStore()
    with pytest.raises(RankFailedError, match="rank 2, which has ended before it came to create the group"):
        rendezvous.exchange(store, 1, 3, HERE, timedelta(seconds=50), lambda: [2])
    with pytest.raises(RankTimeoutError, match=r"no sign of rank 0, 2 within 0\.05 s"):
        rendezvous.exchange(store, 1, 3, HERE, timedelta(milliseconds=50), list)
    store = dist.HashStore()
    store.set("shm/0/1", json.dumps(asdict(HERE)))
    assert rendezvous.exchange(store, 1, 2, HERE, timedelta(seconds=5), lambda: [0]) == [HERE] * 2


def test_a_process_is_told_from_a_later_one_with_its_id():
    me = rendezvous.own_card(None)
    assert me.born == rendezvous.born(os.getpid()) > 0
    pidfds = rendezvous.open_pidfds([HERE, me], 0)
    assert pidfds[0] == -1
    os.close(pidfds[1])
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RankFailedError, match="rank 1, whose process"):
        rendezvous.open_pidfds([HERE, replace(me, born=me.born + 1)], 0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_that_is_gone_was_never_born():
    assert rendezvous.born(2**22 + 1) == -1


def test_what_a_rank_left_is_taken_back_and_the_rounds_start_again():
    store = dist.HashStore()
    for pid in (1, 2, 3):
        card = replace(HERE, pid=pid)
        assert rendezvous.exchange(store, 0, 1, card, timedelta(seconds=5)) == [card]
    assert store.num_keys() == 4
    rendezvous.forget(store, 0)
    assert store.num_keys() == 0
    assert rendezvous.exchange(store, 0, 1, HERE, timedelta(seconds=5)) == [HERE]
    assert store.check(["shm/0/1"])
