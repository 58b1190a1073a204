"""Random programs on 2 to 6 ranks: bits, disagreements and deaths.

By default a few seconds; COMM_SHM_SOAK=SECONDS gives the first test that long and the two others a quarter of it, from
seeds that COMM_SHM_SEED begins. A failure names its seed.
"""

import os
import time

import pytest

from comm_core.testing import RankPool, RanksFailedError

from . import programs

pytestmark = pytest.mark.needs_shm

SOAK_S = float(os.environ.get("COMM_SHM_SOAK") or 0)
SEED = int(os.environ.get("COMM_SHM_SEED") or 0)
LIMIT_S = 120.0


@pytest.fixture(scope="module")
def pool():
    with RankPool(grace=LIMIT_S) as pool:
        yield pool


def rounds(count, share=1.0):
    """Numbers from 0: so many, or in a soak as many as the time allows."""
    end = time.monotonic() + SOAK_S * share
    number = 0
    while number < count or time.monotonic() < end:
        yield number
        number += 1


def seeds(number, count):
    return list(range(SEED + number * count, SEED + (number + 1) * count))


def test_programs_give_the_bits_of_their_definition(pool, record_property):
    calls = played = 0
    for number in rounds(5):
        world = 2 + number % 5
        calls += sum(pool.run(programs.play_many, world, "shm", LIMIT_S, (seeds(number, 4), 25)))
        played += 4
    report(record_property, f"{played} programs, {calls} calls, from seed {SEED}")


def test_a_mistaken_rank_is_an_error_on_every_rank_of_its_group(pool, record_property):
    told = played = 0
    for number in rounds(5, 0.25):
        world = 2 + number % 5
        told += sum(pool.run(programs.disagree, world, "shm", LIMIT_S, (seeds(number, 2), 20)))
        played += 2
    assert told > played
    report(record_property, f"{played} programs with mistaken ranks, {told} errors, from seed {SEED}")


def test_a_death_is_an_error_on_every_other_rank(pool, record_property):
    deaths = 0
    for number in rounds(5, 0.25):
        world, seed = 2 + number % 5, SEED + number
        with pytest.raises(RanksFailedError) as caught:
            pool.run(programs.die, world, "shm", LIMIT_S, (seed, 12))
        assert {rank: one.kind for rank, one in caught.value.errors.items()} == {caught.value.rank: "died"}, (
            caught.value
        )
        deaths += 1
    report(record_property, f"{deaths} programs with a death, from seed {SEED}")


def report(record_property, words):
    record_property("figures", words)
    print(words)
