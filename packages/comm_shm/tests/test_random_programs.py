"""Random programs of messages and started collectives, value-checked.

`COMM_SHM_PROGRAMS=1000` runs so many of them a world size instead of a few.
"""

import os

import pytest
import torch
import torch.distributed as dist

pytestmark = [pytest.mark.needs_shm, pytest.mark.world(1, 2, 3, 4, backend="shm", timeout=500)]

PROGRAMS = int(os.environ.get("COMM_SHM_PROGRAMS", "12"))


def plan(seed, world):
    """What all ranks do, drawn from the seed: messages (source, target, tag, numel), and collectives between them."""
    import random

    draw = random.Random(seed)
    steps = []
    for _ in range(draw.randrange(4, 30)):
        if draw.random() < 0.25:
            steps.append(("all_reduce", draw.choice([1, 100, 70_000])))
        else:
            numel = draw.choice([0, 1, 3, 500, 16_000, 65_537, 200_000])
            steps.append(("message", draw.randrange(world), draw.randrange(world), draw.randrange(3), numel))
    return steps


def filled(place, numel):
    return torch.arange(numel) * 7 + place


def test_whatever_the_ranks_do_each_message_arrives_once_and_unharmed(world):
    def body(group):
        import random

        for seed in range(PROGRAMS):
            draw, me = random.Random(1000 * seed + group.rank), group.rank
            works, checks, own = [], [], []
            for place, step in enumerate(plan(seed, group.world)):
                if step[0] == "all_reduce":
                    x = torch.full((step[1],), place)
                    works.append(dist.all_reduce(x, async_op=True))
                    checks.append((x, torch.full((step[1],), place * group.world)))
                    if draw.random() < 0.3:
                        works.pop().wait()
                    continue
                _, source, target, tag, numel = step
                if source == me:
                    works.append(dist.isend(filled(place, numel), target, tag=tag))
                if target == me:
                    own.append((source, tag, numel, place))
                if own and draw.random() < 0.5:
                    own = receive(own, works, checks, draw)
            while own:
                own = receive(own, works, checks, draw)
            draw.shuffle(works)
            for work in works:
                work.wait()
            for got, want in checks:
                if not torch.equal(got, want):
                    return seed
            dist.barrier()
        return None

    assert world.run(body) == [None] * world.size


def receive(own, works, checks, draw):
    """Ask for one of the messages that are to come: any, but of one source and tag the first."""
    source, tag, numel, place = draw.choice(own)
    source, tag, numel, place = next(one for one in own if one[:2] == (source, tag))
    out = torch.full((numel,), -1)
    works.append(dist.irecv(out, source, tag=tag))
    checks.append((out, filled(place, numel)))
    if draw.random() < 0.2:
        works[-1].is_completed()
    return [one for one in own if one[3] != place]
