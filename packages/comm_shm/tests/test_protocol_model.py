"""The protocol of csrc/pipeline.c and csrc/wait.c in every order, on memory that orders only what C11 says.

The programs below are those files without the data: what is written, published, awaited and read. The real code runs
under ThreadSanitizer in test_thread_sanitizer.py.
"""

import itertools
from dataclasses import dataclass

import pytest

from packages.comm_shm.tests.weak_memory import Op, Wrong, check


@dataclass(frozen=True)
class Design:
    """What a mutant changes."""

    slots: int = 4
    cards: int = 2
    on_card: tuple[tuple[int, int], ...] = ((1, 0),)
    publish: str = "release"
    wait: str = "acquire"
    put_early: bool = False


REAL = Design()
COLLECTIVES = [(lag, pieces) for lag in (1, 2) for pieces in (1, 2, 3, 5, 6)] + [(1, 0)]  # 0: on a card


class Rank:
    """Writes down what one rank does."""

    def __init__(self, rank, world, design):
        self.rank, self.world, self.design = rank, world, design
        self.peers = [peer for peer in range(world) if peer != rank]
        self.step, self.ops, self.on_card, self.changes_hands = 0, [], False, False

    def slot(self, owner, step, part):
        if self.on_card:
            return "card", owner, step % self.design.cards, part
        turn = step // self.design.slots if self.changes_hands else 0
        return "slot", (owner + turn) % self.world, step % self.design.slots, part

    def arrived(self, rank):
        return "arrived", rank, self.step % self.design.cards

    def say(self, what):
        self.step += 1
        self.ops += [
            Op("write", ("header", self.rank, self.step % self.design.cards), what),
            Op("store", self.arrived(self.rank), self.step, self.design.publish),
        ]

    def hear(self, first, what):
        self.ops += [Op("await", self.arrived(peer), self.step, self.design.wait) for peer in self.peers]
        if self.step == first:
            self.ops += [Op("read", ("header", peer, first % self.design.cards), what) for peer in self.peers]

    def put(self, name, first, piece):
        for peer in self.peers:
            self.ops.append(Op("write", self.slot(self.rank, first + piece, peer), (name, piece, self.rank)))

    def reduce(self, name, first, piece):
        places = [self.slot(peer, first + piece, self.rank) for peer in self.peers]
        self.ops += [Op("read", at, (name, piece, peer)) for at, peer in zip(places, self.peers, strict=True)]
        result = self.slot((self.rank + 1) % self.world, first + piece, self.rank)
        self.ops.append(Op("write", result, (name, piece, "of", self.rank)))

    def take(self, name, lag, first, piece):
        for peer in self.peers:
            if lag == 2:
                at, value = self.slot((peer + 1) % self.world, first + piece, peer), (name, piece, "of", peer)
                self.ops.append(Op("read", at, value))
            else:
                parts = [part for part in range(self.world) if part != peer]
                self.ops += [Op("read", self.slot(peer, first + piece, part), (name, piece, peer)) for part in parts]

    def run(self, name, lag, pieces):
        """As in pipeline.c; no pieces stand for one that goes on the card."""
        first, self.on_card, pieces = self.step + 1, (lag, pieces) in self.design.on_card, max(pieces, 1)
        self.changes_hands = lag == 1
        for turn in range(pieces + lag):
            put = turn < pieces
            if put and self.design.put_early:
                self.put(name, first, turn)
            if turn > 0:
                self.hear(first, name)
            if lag == 2 and 1 <= turn <= pieces:
                self.reduce(name, first, turn - 1)
            if put and not self.design.put_early:
                self.put(name, first, turn)
            if turn + 1 < pieces + lag:
                self.say(name)
            if turn >= lag:
                self.take(name, lag, first, turn - lag)


def programs(world, design, collectives):
    ranks = [Rank(rank, world, design) for rank in range(world)]
    for rank in ranks:
        for place, (lag, pieces) in enumerate(collectives):
            rank.run(f"c{place}", lag, pieces)
    return [rank.ops for rank in ranks]


PAIRS = list(itertools.product(COLLECTIVES, repeat=2))


def test_two_ranks_in_every_order():
    states = [check(programs(2, REAL, pair)) for pair in PAIRS]
    assert len(states) == 121
    assert min(states) > 4


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5])
def test_more_ranks_in_the_order_that_says_least(world):
    for pair in PAIRS:
        assert check(programs(world, REAL, pair), weakest=True) == 1


MUTANTS = {
    "publish relaxed": Design(publish="relaxed"),
    "wait relaxed": Design(wait="relaxed"),
    "three slots": Design(slots=3),
    "one card": Design(cards=1),
    "two pieces on a card": Design(on_card=((1, 2),)),
    "a piece on a card that is reduced for others": Design(on_card=((2, 1),)),
    "a put before the wait": Design(put_early=True),
}


@pytest.mark.parametrize("name", list(MUTANTS))
def test_a_weaker_protocol_is_found_out(name):
    def wrong(pair):
        try:
            check(programs(3, MUTANTS[name], pair), weakest=True)
        except Wrong:
            return True
        return False

    assert any(map(wrong, PAIRS))


def member(rank, world, steps, fence=True, order="sc"):
    """shm_publish and shm_wait_all, so many times: wake_sleepers, then sleep_for whoever is missing.

    Left out are the looks before, which may see nothing, and the time limit that would end a sleep that nobody ends.
    """
    ops, peers = [], [peer for peer in range(world) if peer != rank]

    def look(peer, step, order):
        ops.append(Op("load", ("arrived", peer, step % 2), order=order))

    def skip_if(condition, count):
        ops.append(Op("jump", None, condition, target=len(ops) + 1 + count))

    def wake_sleepers(step):
        if fence:
            ops.append(Op("fence", None, order="sc"))
        ops.append(Op("load", ("sleepers", rank), order="relaxed"))
        skip_if(lambda found: found == 0, 1)
        ops.append(Op("wake", ("arrived", rank, step % 2)))

    def sleep_for(peer, step):
        ops.append(Op("add", ("sleepers", peer), 1, order))
        look(peer, step, order)
        skip_if(lambda seen: seen >= step, 2)
        ops.append(Op("sleep", ("arrived", peer, step % 2)))
        ops.append(Op("jump", None, None, target=len(ops) - 3))
        ops.append(Op("add", ("sleepers", peer), -1, order))

    for step in range(1, steps + 1):
        ops.append(Op("store", ("arrived", rank, step % 2), step, "release"))
        wake_sleepers(step)
        for peer in peers:
            look(peer, step, "acquire")
            skip_if(lambda seen, step=step: seen >= step, 6)
            sleep_for(peer, step)
    return ops


@pytest.mark.parametrize(("world", "steps"), [(2, 1), (2, 2), (2, 3), (3, 1)])
def test_whoever_sleeps_is_woken(world, steps):
    assert check([member(rank, world, steps) for rank in range(world)]) > 10


@pytest.mark.parametrize("weaker", [{"fence": False}, {"order": "relaxed"}])
def test_without_the_fences_a_sleeper_is_forgotten(weaker):
    with pytest.raises(Wrong, match="nobody can go on"):
        check([member(rank, 2, 1, **weaker) for rank in range(2)])
