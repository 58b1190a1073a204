"""Random programs of collectives and messages, the same on every rank, checked against definitions in one process.

A program is drawn from a seed: some sub-groups, then steps, each on one of the groups. Every rank draws the inputs of
all ranks, so it computes by itself what it has to get: reductions are folds in rank order, in the precision that shm
documents, and are compared bit for bit. That makes results the same on all ranks, for all sizes and algorithms.
"""

from __future__ import annotations

import os
import random
import signal
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
import torch.distributed as dist

from comm_core.errors import CommError, MismatchError, RankFailedError
from comm_core.reduce_ops import reduce_in_rank_order

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
COMPLEX = (torch.complex64, torch.complex128)
MOVED = (*FLOATS, *INTEGERS, *UNSIGNED, *COMPLEX, torch.float8_e4m3fn)
OPS_OF = {
    **dict.fromkeys(FLOATS, ("SUM", "AVG", "PRODUCT", "MIN", "MAX", "PREMUL")),
    **dict.fromkeys((*INTEGERS, *UNSIGNED), ("SUM", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR")),
    **dict.fromkeys(COMPLEX, ("SUM", "AVG")),
}
SIZES = (0, 1, 2, 3, 7, 64, 65, 1000, 4099, 20_011, 70_001, 300_007)
FACTOR = 0.5
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


@dataclass
class Step:
    """One call on one group, as all its ranks make it."""

    number: int
    what: str
    ranks: tuple[int, ...]
    at: int  # which group, 0 the whole world
    dtype: torch.dtype
    sizes: tuple[int, ...]  # elements by rank of the group, all alike but for all_to_all
    op: str
    root: int
    layouts: tuple[str, str]
    later: bool  # waited for at some later point
    table: list[list[int]] = field(default_factory=list)  # elements from rank to rank

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        how = f"{self.op}, root {self.root}, {self.layouts}, {'later' if self.later else 'now'}"
        return f"step {self.number}: {self.what} of {self.sizes[0]} {dtype} on {self.ranks}, {how}"


REDUCING = ("all_reduce", "reduce", "reduce_scatter", "reduce_scatter list")
MOVING = (
    "broadcast",
    "all_gather",
    "all_gather list",
    "gather",
    "scatter",
    "all_to_all",
    "all_to_all list",
    "messages",
)
KINDS = (*REDUCING, *REDUCING, *MOVING, "barrier")
LAYOUTS = ("plain", "plain", "offset", "every other", "transposed")


def groups_of(rng: random.Random, world: int) -> list[tuple[int, ...]]:
    """The whole world and some random parts of it, in rising order."""
    parts = [tuple(sorted(rng.sample(range(world), rng.randint(1, world)))) for _ in range(rng.randint(0, 4))]
    return [tuple(range(world)), *parts]


def step_of(rng: random.Random, number: int, groups: Sequence[tuple[int, ...]]) -> Step:
    """Draw one call."""
    at, what = rng.randrange(len(groups)), rng.choice(KINDS)
    ranks = groups[at]
    dtype = rng.choice([*FLOATS, *INTEGERS, *UNSIGNED, *COMPLEX] if what in REDUCING else MOVED)
    most = 20_011 if what in MOVING and len(ranks) > 3 else SIZES[-1]
    numel = rng.choice([size for size in SIZES if size <= most])
    step = Step(number, what, ranks, at, dtype, (numel,) * len(ranks), "", rng.randrange(len(ranks)), ("", ""), False)
    step.op = rng.choice(OPS_OF[dtype]) if what in REDUCING else ""
    step.layouts = rng.choice(LAYOUTS), rng.choice(LAYOUTS)
    step.later = rng.random() < 0.5
    if what.startswith("all_to_all"):
        step.table = [[rng.choice((0, 1, 5, 100, min(numel, 9001))) for _ in ranks] for _ in ranks]
    return step


def drawn(seed: int, step: Step, rank: int, numel: int) -> torch.Tensor:
    """Random values of a rank of the group; no NaN, and -0 only where it is not compared with 0."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step.number * 1009 + rank)
    if step.dtype.is_floating_point and step.dtype.itemsize > 1:
        return torch.randn(numel, generator=generator, dtype=torch.float64).to(step.dtype)
    if step.dtype.is_complex:
        return torch.randn(numel, generator=generator, dtype=step.dtype)
    raw = torch.randint(0, 100, (numel,), generator=generator, dtype=torch.int64)
    return raw > 50 if step.dtype is torch.bool else raw.to(torch.uint8).to(step.dtype)


def laid(x: torch.Tensor, layout: str) -> torch.Tensor:
    """A tensor of the same values that lies otherwise in memory."""
    numel = x.numel()
    if layout == "offset":
        room = torch.empty(numel + 3, dtype=x.dtype)[3:]
    elif layout == "every other":
        room = torch.empty(2 * numel, dtype=x.dtype)[::2]
    elif layout == "transposed" and numel % 3 == 0 and numel:
        room = torch.empty(3, numel // 3, dtype=x.dtype).t()
    else:
        return x.clone()
    return room.copy_(x.view(room.shape))


def flat(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(-1)


def folded(parts: Sequence[torch.Tensor], op: str) -> torch.Tensor:
    """The reduction of all ranks' values in rank order."""
    dtype = parts[0].dtype
    if op == "PREMUL":
        parts, op = [x * FACTOR for x in parts], "SUM"
    if dtype in UNSIGNED:  # torch does not compute with them
        return reduce_in_rank_order(op.lower(), parts)
    wide = [x.to(WIDE.get(dtype, dtype)) for x in parts]
    if dtype is torch.bool and op in ("SUM", "MAX", "BOR", "PRODUCT", "MIN", "BAND"):
        return reduce(torch.logical_or if op in ("SUM", "MAX", "BOR") else torch.logical_and, wide)
    folds: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "SUM": torch.add,
        "AVG": torch.add,
        "PRODUCT": torch.mul,
        "MIN": torch.minimum,
        "MAX": torch.maximum,
        "BAND": torch.bitwise_and,
        "BOR": torch.bitwise_or,
        "BXOR": torch.bitwise_xor,
    }
    total = reduce(folds[op], wide)
    if op == "AVG":
        reals = torch.view_as_real(total) if total.is_complex() else total
        total = torch.view_as_complex(reals / len(parts)) if total.is_complex() else reals / len(parts)
    return total.to(dtype)


def reduce_op(step: Step) -> Any:
    return dist._make_nccl_premul_sum(FACTOR) if step.op == "PREMUL" else getattr(dist.ReduceOp, step.op)


def same_bits(got: torch.Tensor, want: torch.Tensor) -> bool:
    if got.dtype != want.dtype or got.numel() != want.numel():
        return False
    got, want = flat(got), flat(want)
    if got.dtype.is_complex:
        got, want = torch.view_as_real(got), torch.view_as_real(want)
    bits = BITS[got.dtype.itemsize]
    return torch.equal(got.view(bits), want.view(bits))


Pairs = list[tuple[torch.Tensor, torch.Tensor]]  # what came, and what had to


class Player:
    """One rank's side of a program.

    Args:
        seed: of the program.
        rank: in the world.
        groups: torch's groups, None for those without this rank.
    """

    def __init__(self, seed: int, rank: int, groups: Sequence[Any]) -> None:
        self.seed, self.rank, self.groups = seed, rank, groups
        self.calls = {
            "all_reduce": self._all_reduce,
            "reduce": self._reduce,
            "reduce_scatter": self._reduce_scatter,
            "reduce_scatter list": self._reduce_scatter,
            "broadcast": self._broadcast,
            "all_gather": self._all_gather,
            "all_gather list": self._all_gather,
            "gather": self._gather,
            "scatter": self._scatter,
            "all_to_all": self._all_to_all,
            "all_to_all list": self._all_to_all,
            "messages": self._messages,
            "barrier": self._barrier,
        }

    def start(self, step: Step) -> tuple[list[Any], Pairs]:
        """Make the call; return what is to be waited for, and what must then hold."""
        works, pairs = self.calls[step.what](step)
        return [work for work in (works if isinstance(works, list) else [works]) if work is not None], pairs

    def _inputs(self, step: Step, times: int = 1) -> list[torch.Tensor]:
        return [drawn(self.seed, step, rank, size * times) for rank, size in enumerate(step.sizes)]

    def _room(self, step: Step, numel: int, layout: str | None = None) -> torch.Tensor:
        zeros = torch.zeros(numel, dtype=torch.uint8).to(step.dtype)
        return laid(zeros, step.layouts[1] if layout is None else layout)

    def _me(self, step: Step) -> int:
        return step.ranks.index(self.rank)

    def _how(self, step: Step) -> dict[str, Any]:
        return {"group": self.groups[step.at], "async_op": step.later}

    def _all_reduce(self, step: Step) -> tuple[Any, Pairs]:
        parts = self._inputs(step)
        x = laid(parts[self._me(step)], step.layouts[0])
        return dist.all_reduce(x, reduce_op(step), **self._how(step)), [(x, folded(parts, step.op))]

    def _reduce(self, step: Step) -> tuple[Any, Pairs]:
        parts, me = self._inputs(step), self._me(step)
        x = laid(parts[me], step.layouts[0])
        work = dist.reduce(x, step.ranks[step.root], reduce_op(step), **self._how(step))
        return work, [(x, folded(parts, step.op) if me == step.root else parts[me])]

    def _reduce_scatter(self, step: Step) -> tuple[Any, Pairs]:
        n, me, numel = len(step.ranks), self._me(step), step.sizes[0]
        parts = self._inputs(step, n)
        out = self._room(step, numel)
        if step.what.endswith("list"):
            given = [laid(x, step.layouts[0]) for x in parts[me].split(numel)] if numel else [parts[me]] * n
            work = dist.reduce_scatter(out, given, reduce_op(step), **self._how(step))
        else:
            work = dist.reduce_scatter_tensor(out, laid(parts[me], layout_1d(step)), reduce_op(step), **self._how(step))
        return work, [(out, folded(parts, step.op)[me * numel : (me + 1) * numel])]

    def _broadcast(self, step: Step) -> tuple[Any, Pairs]:
        parts = self._inputs(step)
        x = laid(parts[self._me(step)], step.layouts[0])
        return dist.broadcast(x, step.ranks[step.root], **self._how(step)), [(x, parts[step.root])]

    def _all_gather(self, step: Step) -> tuple[Any, Pairs]:
        parts, n = self._inputs(step), len(step.ranks)
        x = laid(parts[self._me(step)], layout_1d(step))
        if step.what.endswith("list"):
            outs = [laid(torch.zeros_like(x), layout_1d(step, 1)) for _ in parts]
            return dist.all_gather(outs, x, **self._how(step)), list(zip(outs, parts, strict=True))
        out = torch.zeros(step.sizes[0] * n, dtype=torch.uint8).to(step.dtype)
        return dist.all_gather_into_tensor(out, x, **self._how(step)), [(out, torch.cat(parts))]

    def _gather(self, step: Step) -> tuple[Any, Pairs]:
        parts, me = self._inputs(step), self._me(step)
        outs = [self._room(step, step.sizes[0], "plain") for _ in parts] if me == step.root else None
        work = dist.gather(parts[me], outs, step.ranks[step.root], **self._how(step))
        return work, list(zip(outs or [], parts if outs else [], strict=True))

    def _scatter(self, step: Step) -> tuple[Any, Pairs]:
        parts, me = self._inputs(step), self._me(step)
        out = self._room(step, step.sizes[0], "plain")
        given = [x.clone() for x in parts] if me == step.root else None
        return dist.scatter(out, given, step.ranks[step.root], **self._how(step)), [(out, parts[me])]

    def _all_to_all(self, step: Step) -> tuple[Any, Pairs]:
        me, table = self._me(step), step.table
        rows = [drawn(self.seed, step, rank, sum(table[rank])) for rank in range(len(step.ranks))]
        sent = [list(row.split(table[rank])) for rank, row in enumerate(rows)]
        want = [of[me] for of in sent]
        take = [table[rank][me] for rank in range(len(step.ranks))]
        if step.what.endswith("list"):
            outs = [self._room(step, size, "plain") for size in take]
            work = dist.all_to_all(outs, [x.clone() for x in sent[me]], **self._how(step))
            return work, list(zip(outs, want, strict=True))
        out = self._room(step, sum(take), "plain")
        return dist.all_to_all_single(out, rows[me].clone(), take, table[me], **self._how(step)), [
            (out, torch.cat(want))
        ]

    def _messages(self, step: Step) -> tuple[Any, Pairs]:
        """Every rank sends to the one `root + 1` places after it, so at times to itself."""
        parts, n, me, group = self._inputs(step), len(step.ranks), self._me(step), self.groups[step.at]
        after, before = (me + step.root + 1) % n, (me - step.root - 1) % n
        out, tag = self._room(step, step.sizes[0]), step.number
        sent = dist.isend(laid(parts[me], step.layouts[0]), step.ranks[after], group, tag)
        works = [sent, dist.irecv(out, step.ranks[before], group, tag)]
        return works if step.later else [work.wait() and None for work in works], [(out, parts[before])]

    def _barrier(self, step: Step) -> tuple[Any, Pairs]:
        return dist.barrier(**self._how(step)), []


def layout_1d(step: Step, which: int = 0) -> str:
    """A layout that keeps the tensor flat, for calls that look at its shape."""
    return "every other" if step.layouts[which] == "transposed" else step.layouts[which]


def play(seed: int, world: int, rank: int, steps: int) -> int:
    """Run a program and check every result; return how many calls this rank made.

    Raises:
        AssertionError: a result is not that of the definition; the seed and the step are named.
    """
    rng = random.Random(seed)
    parts = groups_of(rng, world)
    groups = made(parts)
    player, flying, calls = Player(seed, rank, groups), [], 0
    for number in range(steps):
        step = step_of(rng, number, parts)
        land = rng.random() < 0.2
        if rank in step.ranks:
            calls += 1
            works, pairs = player.start(step)
            flying.append((works, pairs, step))
        if land or not step.later:
            calls_checked(seed, flying if land else [flying.pop()] if rank in step.ranks else [])
            flying = [] if land else flying
    calls_checked(seed, flying)
    for group in groups[1:]:
        if group is not None:
            dist.destroy_process_group(group)
    return calls


def made(parts: Sequence[tuple[int, ...]]) -> list[Any]:
    default = dist.group.WORLD
    new = [dist.new_group(list(part)) for part in parts[1:]]
    return [default, *(None if one is dist.GroupMember.NON_GROUP_MEMBER else one for one in new)]


def calls_checked(seed: int, flying: Sequence[tuple[list[Any], Pairs, Step]]) -> None:
    for works, pairs, step in flying:
        for work in works:
            work.wait()
        for which, (got, want) in enumerate(pairs):
            assert same_bits(got, want), f"program {seed}, {step}: result {which} differs"


def play_many(group: Any, seeds: Sequence[int], steps: int) -> int:
    """Run several programs; return the number of calls."""
    warnings.simplefilter("ignore")  # of names that torch is about to rename
    return sum(play(seed, group.world, group.rank, steps) for seed in seeds)


# ---- programs in which one rank does something else, or ends ----


def changed(rng: random.Random, step: Step) -> Step:
    """The step as a rank makes it that is mistaken."""
    odd = Step(**{**vars(step), "later": False})
    ways = ["dtype", "size", "other"]
    ways += ["op"] if step.op in ("SUM", "MAX") and not step.dtype.is_complex else []
    ways += ["root"] if step.what in ("broadcast", "reduce", "gather", "scatter") else []
    how = rng.choice(ways)
    if how == "dtype" and step.what != "barrier":
        odd.dtype = torch.int32 if step.dtype is not torch.int32 else torch.int64  # complex may travel as floats
        odd.op = "SUM" if step.op else ""
    elif how == "size" and not step.table and step.what != "barrier":
        odd.sizes = tuple(size + 1 for size in step.sizes)
    elif how == "op":
        odd.op = "MAX" if step.op == "SUM" else "SUM"
    elif how == "root":
        odd.root = (step.root + 1) % len(step.ranks)
    else:
        odd.what = "barrier" if step.what != "barrier" else "all_reduce"
        odd.op = "SUM"
        odd.dtype = torch.float32
    return odd


def finished(player: Player, step: Step) -> None:
    works, pairs = player.start(step)
    calls_checked(player.seed, [(works, pairs, step)])


def disagree(group: Any, seeds: Sequence[int], steps: int) -> int:
    """Programs in which a rank is mistaken now and then: all ranks of that group are told, and it goes on."""
    warnings.simplefilter("ignore")
    told = 0
    for seed in seeds:
        rng = random.Random(seed)
        parts = groups_of(rng, group.world)
        groups = made(parts)
        player = Player(seed, group.rank, groups)
        for number in range(steps):
            step = step_of(rng, number, parts)
            step.later = False
            mistaken = rng.choice(step.ranks)
            odd = changed(rng, step)
            if group.rank not in step.ranks:
                continue
            if len(step.ranks) == 1 or step.what == "messages" or number % 2:
                finished(player, step)
                continue
            try:
                finished(player, odd if group.rank == mistaken else step)
            except MismatchError:
                told += 1
            else:
                raise AssertionError(f"program {seed}, {step}: rank {group.rank} was not told of {odd}")
        for one in groups[1:]:
            if one is not None:
                dist.destroy_process_group(one)
    return told


def die(group: Any, seed: int, steps: int) -> str:
    """A program in which a rank kills itself: every other one gets an error, if not there then at the next barrier."""
    warnings.simplefilter("ignore")
    rng = random.Random(seed)
    victim, when = rng.randrange(group.world), rng.randrange(steps)
    parts = groups_of(rng, group.world)
    player = Player(seed, group.rank, made(parts))
    dist.barrier()  # the victim may be the host of the store, which the others need until their groups are made
    try:
        for number in range(steps):
            step = step_of(rng, number, parts)
            if number == when and group.rank == victim:
                os.kill(os.getpid(), signal.SIGKILL)
            if group.rank in step.ranks:
                finished(player, step)
        dist.barrier()
    except RankFailedError as error:
        dist.destroy_process_group()  # as a program that ends: ranks that wait for this one elsewhere are told by that
        return str(error)
    except CommError as error:
        raise AssertionError(f"program {seed}: rank {group.rank} was told {error!r}") from error
    raise AssertionError(f"program {seed}: rank {group.rank} was not told that rank {victim} died before step {when}")
