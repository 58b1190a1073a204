"""A rank that is killed, or stops and goes on, at every phase of every collective, of joining and of closing.

The victim is the first or the last of three ranks and runs a copy of the C core that tells when each of its functions
is entered and left (phases.py). First the moments of each collective are recorded, then a victim is killed at them. By
default these are the ones that phases are named after, and a few more by chance; with COMM_SHM_SOAK=1 all of them,
which takes minutes.
"""

import contextlib
import os
import random
import re
import signal
import time
import warnings
from dataclasses import dataclass
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import CommError, RankFailedError
from comm_shm import rendezvous

from . import phases

pytestmark = pytest.mark.needs_shm

WORLD = 3
LAST = WORLD - 1
SOAK = bool(os.environ.get("COMM_SHM_SOAK"))
BY_CHANCE = 3  # moments of each collective, in the default run
MANY = 100_003  # elements, of 4 bytes: several pieces


def data(rank, numel, times=1):
    return (torch.arange(numel * times, dtype=torch.float32) % 13) + rank


def total(numel):
    return data(0, numel) * WORLD + sum(range(WORLD))


def all_reduce(me, numel):
    x = data(me, numel)
    dist.all_reduce(x)
    return torch.equal(x, total(numel))


def broadcast(me, numel):
    x = data(me, numel)
    dist.broadcast(x, LAST)
    return torch.equal(x, data(LAST, numel))


def all_gather(me, numel):
    out = torch.zeros(numel * WORLD)
    dist.all_gather_into_tensor(out, data(me, numel))
    return torch.equal(out, torch.cat([data(rank, numel) for rank in range(WORLD)]))


def reduce_scatter(me, numel):
    out = torch.zeros(numel)
    dist.reduce_scatter_tensor(out, data(me, numel, WORLD))
    whole = data(0, numel, WORLD) * WORLD + sum(range(WORLD))
    return torch.equal(out, whole[me * numel : (me + 1) * numel])


def all_to_all(me, numel):
    out = torch.zeros(numel * WORLD)
    dist.all_to_all_single(out, data(me, numel, WORLD))
    return torch.equal(out, torch.cat([data(r, numel, WORLD)[me * numel : (me + 1) * numel] for r in range(WORLD)]))


def reduce(me, numel):
    x = data(me, numel)
    dist.reduce(x, 0)
    return torch.equal(x, total(numel) if me == 0 else data(me, numel))


def gather(me, numel):
    outs = [torch.zeros(numel) for _ in range(WORLD)]
    dist.gather(data(me, numel), outs if me == 0 else None, 0)
    return me != 0 or all(torch.equal(out, data(rank, numel)) for rank, out in enumerate(outs))


def scatter(me, numel):
    out = torch.zeros(numel)
    parts = [data(rank, numel) for rank in range(WORLD)]
    dist.scatter(out, parts if me == LAST else None, LAST)
    return torch.equal(out, parts[me])


def barrier(me, numel):
    dist.barrier()
    return True


def join(me, numel):
    """Stands for creating the group."""


def close(me, numel):
    """Stands for destroying it."""
    dist.destroy_process_group()
    return True


CALLS = {
    "all_reduce of little": (all_reduce, 5),
    "all_reduce of much": (all_reduce, MANY),
    **{call.__name__: (call, MANY) for call in (broadcast, all_gather, reduce_scatter, all_to_all)},
    **{call.__name__: (call, MANY) for call in (reduce, gather, scatter)},
    "barrier": (barrier, 0),
    "join": (join, 0),
    "close": (close, 0),
}


def do(what, me):
    call, numel = CALLS[what]
    return call(me, numel)


@dataclass(frozen=True)
class Round:
    """One life of a victim: what it calls, when it gets which signal, and whether others come only afterwards.

    To a group that is being joined that is the next rank.
    """

    what: str
    moment: phases.Moment
    number: int
    victim: int
    after: bool = False

    def __str__(self):
        return f"{self.what}, {self.moment}"


def enter(number, rank, meeting):
    """Join the group of a round; by a file, because a store over TCP asks for the name of its peer's address."""
    store = dist.PrefixStore(f"round {number}", dist.FileStore(meeting))
    dist.distributed_c10d._world.group_count = 0  # a failed init counts on, and a new process begins at 0
    dist.init_process_group("shm", store=store, rank=rank, world_size=WORLD)
    return store


def attempt(call):
    try:
        return "right" if call() is not False else "wrong"
    except CommError as error:
        return type(error).__name__, str(error), time.monotonic()


def before(module, name, act):
    """Have something done before each call of a function, in a `with` block."""

    def later(*given):
        act()
        return function(*given)

    function = getattr(module, name)
    return mock.patch.object(module, name, later)


def survive(number, rank, meeting, one, store):
    """Come to the collective of a round, and to one more; return what became of them."""
    from comm_shm import segment  # needs the core, which is the copy by now

    join_late = one.what == "join" and one.after and rank == (one.victim + 1) % WORLD
    ended = [f"{number} ended"]
    with before(segment, "attach", lambda: store.wait(ended)) if join_late else contextlib.nullcontext():
        said = [attempt(lambda: enter(number, rank, meeting) and True)]
    if dist.is_initialized():
        if one.after:
            store.wait(ended)
        if one.what not in ("join", "close"):
            said.append(attempt(lambda: do(one.what, rank)))
        deadly = one.number == signal.SIGKILL
        for _ in range(2 if deadly else one.what != "close"):  # the victim comes to one, if it lives
            said.append(attempt(lambda: barrier(rank, 0)))
        dist.destroy_process_group()
    return said


def be_killed(number, meeting, one, core):
    """The victim: in a fork of a process that never had a group."""

    def arm():
        core.arm(one.moment, one.number)

    with before(rendezvous, "exchange", arm) if one.what == "join" else contextlib.nullcontext():
        enter(number, one.victim, meeting)
    if one.what != "join":
        arm()
        do(one.what, one.victim)
    if one.what != "close":
        barrier(one.victim, 0)
        dist.destroy_process_group()


def mother_of_victims(meeting, plan, core, store):
    """Fork a victim for each round and tell when it ended, and how often it stopped before.

    The mother has one thread and no connection of its own, so that a fork of it is sound: its store is a file.
    """
    fates = []
    for number, one in enumerate(plan):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                be_killed(number, meeting, one, core)
                code = 0
            finally:
                os._exit(code)
        stops, status = 0, 0x7F
        while status & 0xFF == 0x7F:  # stopped, and not ended
            _, status = os.waitpid(pid, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                stops += 1
                os.kill(pid, signal.SIGCONT)
        fates.append((os.waitstatus_to_exitcode(status), stops, time.monotonic()))
        store.set(f"{number} ended", "")
    return fates


def live(rank, world, store, library, meeting, plan):
    warnings.simplefilter("ignore")  # of names that torch is about to rename
    core = phases.Core(library)
    if rank == plan[0].victim:
        return mother_of_victims(meeting, plan, core, store)
    return [survive(number, rank, meeting, one, store) for number, one in enumerate(plan)]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return phases.build(tmp_path_factory.mktemp("core"))


def record(rank, world, store, library):
    warnings.simplefilter("ignore")
    core = phases.Core(library)
    with before(rendezvous, "exchange", core.begin):  # who has left no card yet is one that never came
        seen = {"join": core.record(lambda: dist.init_process_group("shm", store=store, rank=rank, world_size=world))}
    for what in CALLS:
        if what != "join":
            seen[what] = core.record(lambda what=what: do(what, rank))
    return seen


def moments(library, fleet, victim):
    """The victim's moments of each call, each function's first and last entry and end, by their names."""
    how, seen = fleet.run(record, WORLD, str(library))[victim]
    assert how == "returned", seen
    names = phases.functions(library)
    found = {}
    for what, codes in seen.items():
        all_of = phases.named(codes, names)
        last = {one.code: one for one in all_of}
        first = {one.code: one for one in reversed(all_of)}
        found[what] = list(dict.fromkeys([*first.values(), *last.values()]))
    return found


# What phases are named after; a victim that sleeps in a wait, or looks around in one, needs the others to be late.
BEFORE_PUBLISH, AFTER_PUBLISH, IN_WAIT = ("shm_publish", False), ("shm_publish", True), ("shm_wait_all", False)
MID_COPY, AT_CLOSE = ("copy", True), ("release", False)
NAMED = {BEFORE_PUBLISH, AFTER_PUBLISH, IN_WAIT, MID_COPY, AT_CLOSE}
LATE = {"sleep_for", "look_around", "futex_wait"}


def planned(library, fleet, number, victim, seed=0):
    """Rounds for all moments of each collective, or by default for those of a name and a few more by chance."""
    rng = random.Random(seed)
    codes = {name: 2 * distance for distance, name in phases.functions(library).items()}
    plan = []
    for what, found in moments(library, fleet, victim).items():
        alone = [one for one in found if one.function not in LATE]
        first = [one for one in alone if (one.function, one.leaving) in NAMED and one.nth == 1]
        plan += [
            Round(what, one, number, victim) for one in (alone if SOAK else [*first, *rng.sample(alone, BY_CHANCE)])
        ]
        if number == signal.SIGKILL and what == "join":
            told = [one for one in first if (one.function, one.leaving) == AFTER_PUBLISH]
            plan += [Round(what, one, number, victim, True) for one in told]
        elif number == signal.SIGKILL and what != "close":
            asleep = sorted(LATE) if SOAK else rng.sample(sorted(LATE), 1)
            plan += [Round(what, phases.Moment(name, False, 1, codes[name]), number, victim, True) for name in asleep]
    return plan


def told(round_, rank, said, died):
    """What is wrong with a survivor's answers, or nothing; and how long it took to be told."""
    errors = [one for one in said if isinstance(one, tuple)]
    if "wrong" in said:
        return f"{round_}: rank {rank} got a wrong result", 0.0
    if not errors or isinstance(said[-1], str):
        return f"{round_}: rank {rank} was not told: {said}", 0.0
    if any(kind != RankFailedError.__name__ for kind, _, _ in errors):
        return f"{round_}: rank {rank} was told {errors}", 0.0
    return "", errors[0][2] - died


def run(library, fleet, tmp_path, plan):
    """Return what the survivors said, by rank, and the fates of the victims."""
    lives = fleet.run(live, WORLD, str(library), str(tmp_path / "meeting"), plan, limit=30.0 + len(plan))
    assert {how for how, _ in lives} == {"returned"}, lives
    answers = {rank: said for rank, (_, said) in enumerate(lives)}
    fates = answers.pop(plan[0].victim)
    return answers, fates


@pytest.mark.parametrize("victim", [LAST, 0])
def test_a_rank_killed_at_any_phase_is_an_error_on_all_others(library, fleet, tmp_path, victim):
    plan = planned(library, fleet, signal.SIGKILL, victim)
    said, fates = run(library, fleet, tmp_path, plan)
    wrong, waits = [], []
    reached = {what: set() for what in CALLS}
    for number, round_ in enumerate(plan):
        code, _, died = fates[number]
        if code == 0:  # this time the moment did not come, such as a sleep that was not needed
            continue
        assert code == -signal.SIGKILL, f"{round_}: {code}"
        reached[round_.what].add((round_.moment.function, round_.moment.leaving))
        answers = {rank: each[number] for rank, each in said.items()}
        for rank, answer in answers.items():
            complaint, waited = told(round_, rank, answer, died)
            wrong += [complaint] if complaint else []
            waits.append(waited)
        if not re.search(f"rank {victim}, wh(ich has ended|ich has destroyed|ose process)", str(answers)):
            wrong.append(f"{round_}: nobody named the rank: {answers}")
    assert wrong == []
    for what, of in reached.items():
        assert {BEFORE_PUBLISH, AFTER_PUBLISH, IN_WAIT} <= of or (what == "close" and AT_CLOSE in of), (what, of)
    print(f"{len(waits) // 2} deaths in {len(plan)} rounds; all others told after at most {max(waits):.3f} s")
    assert sorted(waits)[len(waits) * 9 // 10] < 1.0  # as is promised; a few may be late where the machine is busy
    assert max(waits) < 10.0


def test_a_rank_that_stops_at_any_phase_and_goes_on_changes_nothing(library, fleet, tmp_path):
    plan = planned(library, fleet, signal.SIGSTOP, LAST, 1)[:: 1 if SOAK else 3]
    said, fates = run(library, fleet, tmp_path, plan)
    assert [code for code, _, _ in fates] == [0] * len(plan)
    assert sum(stops for _, stops, _ in fates) > len(plan) / 2
    for number, round_ in enumerate(plan):
        for each in said.values():
            assert set(each[number]) == {"right"}, f"{round_}: {each[number]}"
