"""Checked mode on real ranks: every fault is named on every rank, nobody is left hanging, and the next call works."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from comm_core import Group, World, as_group, catalog, checked, errors, run, start, transport
from comm_core.pending import Pending
from comm_core.testing import RankPool, RanksFailedError
from comm_core_pytest import Ranks

HERE = "test_checking.py:"


def sum_of(x: torch.Tensor, group: Any, op: object = "sum") -> torch.Tensor:
    return run(catalog.ALL_REDUCE, x, group, reduce_op=op)


def calls(group: Any) -> dict[str, Callable[[], object]]:
    """Calls that the last rank makes in another way than the others."""
    n, odd, x = group.world, group.rank == group.world - 1, torch.ones(2 * group.world)
    even, uneven = [2] * n, [2 + (place == 0) for place in range(n)]
    return {
        "size": lambda: sum_of(torch.ones(4 + odd), group),
        "dtype": lambda: sum_of(x.int() if odd else x, group),
        "reduce op": lambda: sum_of(x, group, "max" if odd else "sum"),
        "op": lambda: run(catalog.BROADCAST, x, group, src=0) if odd else sum_of(x, group),
        "root": lambda: run(catalog.BROADCAST, x, group, src=int(odd)),
        "dim": lambda: run(catalog.ALL_GATHER, torch.ones(2, 2), group, dim=int(odd)),
        "splits": lambda: run(catalog.ALL_TO_ALL, x, group, output_splits=uneven if odd else even, input_splits=even),
        "refused op": lambda: sum_of(x, group, "bxor" if odd else "sum"),
        "refused dim": lambda: run(catalog.ALL_GATHER, x, group, dim=5 if odd else 0),
        "refused type": lambda: sum_of("x" if odd else x, group),  # type: ignore[arg-type]
        "refused gradient": lambda: sum_of(torch.ones(2, dtype=torch.int32) if odd else x, group, "avg"),
        "wire": lambda: transport(group).all_reduce(torch.ones(3 + odd), "sum").wait(),
        "wire refused": lambda: transport(group).all_gather(torch.tensor(1.0) if odd else x).wait(),
    }


def faults(group: Any) -> dict[str, tuple[str, str, float]]:
    said = {}
    with checked(timeout_s=20):
        for name, call in calls(group).items():
            with pytest.raises(errors.CommError) as caught:
                call()
            said[name] = type(caught.value).__name__, str(caught.value), sum_of(torch.ones(1), group).item()
    return said


@pytest.mark.world(2, 3)
def test_every_rank_says_what_each_rank_said_and_the_next_call_works(world: Ranks) -> None:
    n = world.size
    for rank, said in enumerate(world.run(faults)):
        for name, (kind, words, after) in said.items():
            assert after == n, name
            if "refused" in name and rank == n - 1:
                assert kind in ("ReduceOpError", "ShapeError", "DtypeError"), name
                continue
            assert kind == "MismatchError", name
            lines = words.splitlines()[-n:]
            assert [line.split()[0] for line in lines] == [str(place) for place in range(n)], name
            assert all(HERE in line for line in lines), name
            assert ("refused the call" in words) == ("refused" in name), name


def in_all_forms(group: Group) -> list[float]:
    n, x = group.world, torch.ones(2)
    alone = dist.new_group([group.rank], use_local_synchronization=True)
    with checked(timeout_s=20):
        flying = [start(catalog.ALL_REDUCE, x * k, Pending.wait, group, reduce_op="sum") for k in range(3)]
        leaf = torch.ones(2, requires_grad=True)
        (run(catalog.ALL_REDUCE, leaf, group, reduce_op="sum") * 2).sum().backward()
        assert leaf.grad is not None
        out = torch.zeros(2 * n)
        transport(group).all_gather(x, out).wait()
        mine = run(catalog.ALL_REDUCE, x, alone, reduce_op="sum")
        splits = [1] * n
        moved = run(catalog.ALL_TO_ALL, torch.ones(n), group, output_splits=splits, input_splits=splits)
    return [
        *(y.sum().item() for y in flying),
        leaf.grad[0].item(),
        out.sum().item(),
        mine[0].item(),
        moved.sum().item(),
    ]


@pytest.mark.world(1, 2, 3)
def test_what_agrees_passes_in_every_form(world: Ranks) -> None:
    n = float(world.size)
    assert world.run(in_all_forms) == [[0.0, 2 * n, 4 * n, 2 * n, 2 * n, 1.0, n]] * world.size


def in_part(group: Group) -> str:
    pair = dist.new_group([0, 2], use_local_synchronization=True) if group.rank != 1 else None
    if pair is None:
        return ""
    with checked(timeout_s=20), pytest.raises(errors.MismatchError) as caught:
        sum_of(torch.ones(1 + as_group(pair).rank), pair)
    return str(caught.value)


@pytest.mark.world(3)
def test_a_part_of_the_ranks_compares_alone(world: Ranks) -> None:
    first, outside, last = world.run(in_part)
    assert outside == ""
    assert first == last
    assert "(2,)" in first


def backwards_apart(group: Group) -> str:
    x = torch.ones(2, requires_grad=True)
    reduced, gathered = sum_of(x, group), run(catalog.ALL_GATHER, x, group, dim=0)
    with checked(timeout_s=20), pytest.raises(errors.MismatchError) as caught:
        (reduced if group.rank == 0 else gathered).sum().backward()
    return str(caught.value)


@pytest.mark.world(2)
def test_backward_compares_too(world: Ranks) -> None:
    for words in world.run(backwards_apart):
        assert "reduce_scatter" in words
        assert words.count(HERE) == 2


def late(group: Group) -> tuple[str, float]:
    x = torch.ones(2)
    with checked(timeout_s=20):
        sum_of(x, group)
        if group.rank == 1:
            group.process_group.get_group_store().wait(["rank 0 has raised"])
        with checked(timeout_s=1.0), pytest.raises(errors.RankTimeoutError) as caught:
            run(catalog.BROADCAST, x, group, src=0)
        if group.rank == 0:
            group.process_group.get_group_store().set("rank 0 has raised", "1")
        return str(caught.value), sum_of(x, group)[0].item()


@pytest.mark.world(2, 3)
def test_a_late_rank_is_named_with_what_it_did_last_and_where(world: Ranks) -> None:
    for words, after in world.run(late):
        assert "broadcast: got rank 1 has not come: last all_reduce(" in words
        assert words.count(HERE) == 2
        assert after == world.size


def without_rank_0(group: Group) -> tuple[str, float]:
    x, store = torch.ones(2), group.process_group.get_group_store()
    with checked(timeout_s=20):
        sum_of(x, group)
        if group.rank == 0:
            store.wait([f"rank {rank} has raised" for rank in range(1, group.world)])
        with checked(timeout_s=20 if group.rank == 0 else 0.2), pytest.raises(errors.CommError) as caught:
            run(catalog.BROADCAST, x, group, src=0)
        store.set(f"rank {group.rank} has raised", "1")
        return f"{type(caught.value).__name__} {caught.value}", sum_of(x, group)[0].item()


@pytest.mark.world(2, 3)
def test_when_rank_0_is_late_nobody_goes_on_alone(world: Ranks) -> None:
    first, *others = world.run(without_rank_0)
    assert first[0].startswith("MismatchError")
    assert "it waited for rank 0 and gave up" in first[0]
    for _, after in [first, *others]:
        assert after == world.size
    for words, _ in others:
        assert words.startswith("RankTimeoutError")
        assert "rank 0 has not come: last all_reduce(" in words


def dying(group: Group, dead: int, folder: str) -> None:
    x = torch.ones(2)
    with checked(timeout_s=20):
        sum_of(x, group)
        if group.rank == dead:
            os._exit(3)
        try:
            sum_of(x, group)
        except errors.RankFailedError as error:
            Path(folder, str(group.rank)).write_text(str(error))


@pytest.mark.parametrize("dead", [0, 2])
def test_a_dead_rank_is_named_on_every_other(dead: int, tmp_path: Path, world_backend: str) -> None:
    with RankPool(grace=60.0) as pool, pytest.raises(RanksFailedError):
        pool.run(dying, 3, world_backend, timeout=60.0, args=(dead, str(tmp_path)))
    said = {int(file.name): file.read_text() for file in tmp_path.iterdir()}
    assert said.keys() == {0, 1, 2} - {dead}
    for words in said.values():
        assert words.startswith(f"all_reduce: got rank {dead} has ended: last all_reduce(")
        assert HERE in words


def test_the_simulator_always_compares() -> None:
    def body(group: Any) -> float:
        with checked():
            return sum_of(torch.ones(1 + group.rank), group)[0].item()

    with pytest.raises(errors.MismatchError):
        World(2).run(body)


@pytest.mark.parametrize("limit", [0, -1.0, "1"])
def test_a_limit_is_a_positive_number(limit: Any) -> None:
    with pytest.raises(errors.ArgumentError, match="checked: got timeout_s="), checked(limit):
        pass


def test_the_environment_switches_it_on_for_a_whole_program() -> None:
    import subprocess
    import sys

    program = "from comm_core import checking; print(checking.mode)"
    for value, wanted in {"1": "Mode(limit_s=None)", "0": "None", "": "None"}.items():
        given = {**os.environ, "COMM_CHECKED": value}
        done = subprocess.run([sys.executable, "-c", program], env=given, capture_output=True, text=True, timeout=100)
        assert done.stdout.strip() == wanted, done.stderr
