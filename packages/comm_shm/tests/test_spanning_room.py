"""Ranks of several hosts without memory for what a collective brings together: all are told, and the group goes on."""

from functools import partial

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import MismatchError, TransportError
from packages.comm_shm.tests.spans import attempt, joined, on_hosts

pytestmark = pytest.mark.needs_shm

PART = 1 << 16  # elements of int32: more than what comes with the agreement
BIG = 65 << 20  # bytes: more than malloc ever has at hand
REFUSED = "(refused: no room for what the others have)"


def counted(numel, rank):
    return torch.arange(numel, dtype=torch.int32) % 11 + rank


def calls(span):
    """Each collective that needs memory of its own: what runs it, its output, and what that has to be."""
    world, rank = span.size(), span.rank()
    whole, peers = PART * world, range(world)
    total = sum(counted(whole, peer) for peer in peers)
    x, part, everyones, exchanged = counted(whole, rank), *(torch.zeros(size).int() for size in (PART, whole, whole))
    return {
        "all_reduce": (partial(dist.all_reduce, x, group=span), x, total),
        "all_gather": (
            partial(dist.all_gather_into_tensor, everyones, counted(PART, rank), group=span),
            everyones,
            torch.cat([counted(PART, peer) for peer in peers]),
        ),
        "reduce_scatter": (
            partial(dist.reduce_scatter_tensor, part, counted(whole, rank), group=span),
            part,
            total.view(world, -1)[rank],
        ),
        "all_to_all": (
            partial(dist.all_to_all_single, exchanged, counted(whole, rank), group=span),
            exchanged,
            torch.cat([counted(whole, peer).view(world, -1)[rank] for peer in peers]),
        ),
    }


def without_memory(call):
    """Make a call for which torch finds no memory; return how it ended."""
    from unittest import mock

    real = torch.empty

    def full(numel, **given):
        if isinstance(numel, int) and numel > PART:
            raise RuntimeError(f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {numel} bytes")
        return real(numel, **given)

    with mock.patch.object(torch, "empty", full):
        return attempt(call)


def waited(call):
    work = call(async_op=True)
    work.wait()


# The bytes that the rank lacks for each.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    ("layout", "poor", "lacks"),
    [
        ("abab", 1, {"all_reduce": 16, "all_gather": 16, "reduce_scatter": 40, "all_to_all": 16}),
        ("aab", 2, {"all_reduce": 12, "reduce_scatter": 16}),
        ("abc", 0, {"all_reduce": 8, "reduce_scatter": 20}),
    ],
)
def test_a_rank_without_memory_tells_all_and_nothing_is_lost(layout, poor, lacks, later):
    def body(span):
        told = {}
        for name, (run, out, want) in calls(span).items():
            if name in lacks:
                before, call = out.clone(), partial(waited, run) if later else run
                said = without_memory(call) if span.rank() == poor else attempt(call)
                told[name] = *said, torch.equal(out, before)
            run()
            assert torch.equal(out, want), name
        return told

    for rank, told in enumerate(on_hosts(layout, body)):
        assert set(told) == set(lacks)
        for name, (kind, said, untouched) in told.items():
            assert untouched
            assert kind is (TransportError if rank == poor else MismatchError), said
            if rank == poor:
                assert said.startswith(f"{name}: got no memory for {lacks[name] * PART} bytes"), said
            else:
                assert f"rank {poor}: {name}" in said
                assert REFUSED in said


def test_a_rank_that_has_reached_its_memory_limit_names_the_bytes_and_the_others_name_the_rank(fleet):
    def body(rank, world, store, big):
        import os
        import resource
        from pathlib import Path

        joined(rank, world, store, "aab")
        x = torch.ones(big // 4)
        dist.all_reduce(torch.ones(3))
        limits = resource.getrlimit(resource.RLIMIT_AS)
        if rank == 2:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGESIZE") + big // 2, limits[1]))
        told = attempt(lambda: dist.all_reduce(x))
        untouched = bool((x == 1).all())
        resource.setrlimit(resource.RLIMIT_AS, limits)
        dist.all_reduce(x)
        return told, untouched, bool((x == world).all())

    for rank, (how, answer) in enumerate(fleet.run(body, 3, BIG)):
        assert how == "returned", answer
        (kind, said), untouched, right = answer
        assert untouched
        assert right
        assert kind is (TransportError if rank == 2 else MismatchError), said
        assert (f"all_reduce: got no memory for {BIG} bytes" if rank == 2 else "rank 2: all_reduce of") in said
