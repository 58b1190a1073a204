"""Checked mode in this package's own forms: lists of tensors, given outputs, results in flight."""

import subprocess
import sys

import pytest
import torch

import functional_collectives as fc
from comm_core import World, errors

ODD = {
    "list length": lambda odd: fc.all_gather_into_tensor_coalesced([torch.ones(2)] * (2 + odd)),
    "sizes in a list": lambda odd: fc.all_reduce_coalesced([torch.ones(2 + odd), torch.ones(3 - odd)], "sum"),
    "dim in a list": lambda odd: fc.reduce_scatter_tensor_coalesced([torch.ones(6, 6)], "sum", [int(odd)]),
    "refused in a list": lambda odd: fc.all_reduce_coalesced([torch.ones(2)] * 2, "band" if odd else "sum"),
    "in place": lambda odd: fc.all_reduce_inplace(torch.ones(2), "max" if odd else "sum"),
    "refused output": lambda odd: (
        fc.all_gather_tensor_inplace(torch.ones(3), torch.ones(6)) if odd else fc.all_gather_tensor(torch.ones(6), 0)
    ),
    "in flight": lambda odd: fc.wait_tensor(fc.all_reduce(torch.ones(2 + odd), "sum")),
}


def _each(group):
    odd = group.rank == group.world - 1
    said = {}
    with fc.checked(timeout_s=20):
        for name, call in ODD.items():
            with pytest.raises(errors.CommError) as caught:
                call(odd)
            said[name] = type(caught.value).__name__, str(caught.value), fc.all_reduce(torch.ones(1), "sum").item()
    return said


@pytest.mark.world(2, 3)
def test_every_form_is_compared(world):
    *others, odd = world.run(_each)
    for said in others:
        for name, (kind, words, after) in said.items():
            assert (kind, after) == ("MismatchError", world.size), name
            assert words.count("test_checked.py:") == world.size, name
    for name, (kind, _, after) in odd.items():
        assert (kind == "MismatchError") == ("refused" not in name)
        assert after == world.size


def _alike(group):
    n = group.world
    with fc.checked(timeout_s=20):
        many = fc.all_reduce_coalesced([torch.ones(2), torch.ones(3, dtype=torch.int64)], "sum")
        gathered = fc.all_gather_into_tensor_coalesced([torch.ones(1), torch.ones(2)])
        blocks = fc.reduce_scatter_tensor_coalesced([torch.ones(n), torch.ones(2, n)], "sum", [0, 1])
        out = fc.all_gather_tensor_inplace(torch.zeros(n), torch.ones(1))
        flying = fc.all_reduce(torch.ones(2), "sum") + 1
    return [x.sum().item() for x in [*many, *gathered, *blocks, out, flying]]


@pytest.mark.world(1, 3)
def test_what_agrees_passes(world):
    n = world.size
    assert world.run(_alike) == [[2 * n, 3 * n, n, 2 * n, n, 2 * n, n, 2 * n + 2]] * n


def _unwaited(group):
    with pytest.warns(errors.UnwaitedWarning) as seen:  # noqa: PT031
        with fc.checked(timeout_s=20):
            early = fc.all_reduce(torch.ones(2), "sum")
            late = fc.broadcast(torch.ones(2), 0)
            early.wait()
        late.wait()
    return [str(one.message) for one in seen]


@pytest.mark.world(2, 3)
def test_a_wait_that_never_comes_is_reported_with_its_line(world):
    for said in world.run(_unwaited):
        (only,) = said
        assert only.startswith("broadcast: the result, started at ")
        assert "test_checked.py:" in only


STARTS = {
    "isend": lambda x, group: fc.isend(x, 1, group) if group.rank == 0 else fc.irecv(torch.empty(4), 0, group),
    "all_gather_tensor": lambda x, group: fc.all_gather_tensor(x, 0, group),
    "all_gather_into_tensor_coalesced": lambda x, group: fc.all_gather_into_tensor_coalesced([x], group)[0],
    "all_to_all_single": lambda x, group: fc.all_to_all_single(x, None, None, group),
}


def _part_written(group, name):
    said = []
    for write in (slice(0, 4), slice(4, 8)):
        whole = torch.ones(8)
        y = STARTS[name](whole[:4], group)
        whole[write].add_(1)
        try:
            said.append(y.wait().tolist() if isinstance(y, fc.AsyncCollectiveTensor) else y.tolist())
        except errors.ArgumentError as error:
            said.append(str(error))
    return said


def _part_written_checked(group, name):
    with fc.checked(timeout_s=20):
        return _part_written(group, name)


@pytest.mark.world(2)
@pytest.mark.parametrize("name", STARTS)
def test_a_write_to_a_part_of_a_tensor_while_it_is_sent_is_reported_and_one_beside_it_is_not(world, name):
    for rank, (onto, beside) in enumerate(world.run(_part_written_checked, name)):
        receives = (name, rank) == ("isend", 1)
        assert receives or "got an input that was written while it was being sent, after the start at " in onto
        assert receives or "test_checked.py:" in onto
        assert set(beside) <= {1.0}


@pytest.mark.parametrize("name", STARTS)
def test_the_simulator_always_sees_a_write_to_a_part_that_is_sent(name):
    for rank, (onto, beside) in enumerate(World(2).run(_part_written, name)):
        assert (name, rank) == ("isend", 1) or "got an input that was written while it was being sent" in onto
        assert set(beside) <= {1.0}


def test_blocks_of_threads_may_be_left_in_any_order():
    from comm_core import checking

    first, second = fc.checked(timeout_s=1), fc.checked(timeout_s=2)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert checking.mode == checking.Mode(2)
    second.__exit__(None, None, None)
    assert checking.mode is None


HELD = """
import sys
import torch
import torch.distributed as dist
import functional_collectives as fc

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
used = fc.all_reduce(torch.ones(2), "sum") + 1
held = fc.all_reduce(torch.ones(2), "sum")  # this line
if sys.argv[1] == "error":
    raise ValueError
"""


@pytest.mark.parametrize("ends", ["well", "error"])
def test_a_result_that_is_held_until_the_program_ends_is_told_with_its_line(ends, tmp_path):
    """After an error, what was under way is not the news."""
    program = tmp_path / "held.py"
    program.write_text(HELD)
    done = subprocess.run(
        [sys.executable, str(program), ends], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == (ends == "error")
    line = HELD.splitlines().index('held = fc.all_reduce(torch.ones(2), "sum")  # this line') + 1
    told = f"all_reduce: nobody waited for the result, started at {program}:{line}"
    assert done.stderr.count("nobody waited for") == done.stderr.count(told) == (ends == "well")
