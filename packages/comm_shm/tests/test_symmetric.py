"""Symmetric memory between processes: against the staged collectives, bit for bit, and what trouble does to it."""

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import (
    ArgumentError,
    CommError,
    MismatchError,
    RankError,
    RankFailedError,
    RankTimeoutError,
    ReduceOpError,
    ShapeError,
    TransportError,
)
from comm_shm.codes import DEFINED, DTYPES, REDUCE_OPS, REDUCED

pytestmark = pytest.mark.needs_shm

WORDS = {dtype: [REDUCE_OPS[op] for kind, op in sorted(DEFINED, key=str) if kind is dtype] for dtype in REDUCED}
SIZES = [1, 4099, 70_000]


def drawn(rank, numel, dtype):
    x = torch.randn(numel, generator=torch.Generator().manual_seed(1000 * rank + numel)) * 30
    return x > 0 if dtype is torch.bool else x.abs().to(dtype) if not dtype.is_signed else x.to(dtype)


def any_bytes(rank, shape, dtype):
    x = torch.empty(shape, dtype=dtype)
    bits(x).random_(0, 256, generator=torch.Generator().manual_seed(rank))
    return x


def bits(x):
    return x.contiguous().view(-1).view(torch.uint8)


def attempt(call):
    try:
        call()
    except CommError as error:
        return type(error), str(error)
    return None, ""


@pytest.mark.world(1, 2, 3, backend="shm")
def test_every_reduction_has_the_bits_of_the_staged_one(world):
    def body(group):
        from comm_shm import symmetric

        memory, wrong = symmetric.memory_of(group), []
        for dtype, words in WORDS.items():
            for numel in SIZES if dtype in (torch.float32, torch.bfloat16) else [7]:
                whole = memory.empty((numel * group.world,), dtype)
                buffer, mine = memory.rendezvous(whole), drawn(group.rank, numel * group.world, dtype)
                out = torch.empty_like(whole)
                for word in [word for word in words if word != "premul_sum"]:
                    op = getattr(dist.ReduceOp, word.upper())
                    staged, part = mine.clone(), torch.empty(numel, dtype=dtype)
                    dist.all_reduce(staged, op=op)
                    dist.reduce_scatter_tensor(part, mine, op=op)
                    whole.copy_(mine)
                    good = torch.equal(bits(buffer.one_shot_all_reduce(word, out)), bits(staged))
                    good &= torch.equal(bits(whole), bits(mine))
                    good &= torch.equal(bits(buffer.reduce_scatter(word)), bits(part))
                    buffer.reduce_scatter(word, out=whole.chunk(group.world)[group.rank])
                    good &= torch.equal(bits(whole.chunk(group.world)[group.rank]), bits(part))
                    whole.copy_(mine)
                    good &= torch.equal(bits(buffer.two_shot_all_reduce(word)), bits(staged))
                    if not good:
                        wrong.append((str(dtype), word, numel))
        return wrong

    assert world.run(body) == [[]] * world.size


@pytest.mark.world(1, 2, 3, backend="shm")
def test_gathering_looks_at_the_buffers_or_copies_them(world):
    def body(group):
        from comm_shm import symmetric

        good = []
        for dtype in DTYPES:
            x = symmetric.empty((3, 5), dtype, group)
            parts = [any_bytes(rank, (3, 5), dtype) for rank in range(group.world)]
            bits(x).copy_(bits(parts[group.rank]))  # torch copies no dtype of a part of a byte
            buffer = symmetric.rendezvous(x, group)
            out = torch.empty((group.world, 3, 5), dtype=dtype)
            copied, seen = buffer.all_gather(out), buffer.all_gather()
            good += [torch.equal(bits(copied[rank]), bits(parts[rank])) for rank in range(group.world)]
            good += [torch.equal(bits(seen[rank]), bits(parts[rank])) for rank in range(group.world)]
            buffer.barrier()
            bits(x).zero_()
            buffer.barrier()
            good += [not bits(seen[rank]).any() for rank in range(group.world)]
            good.append(not bits(buffer.peer(group.world - 1)).any())
            buffer.barrier()
        aligned = symmetric.empty((64,), torch.uint8, group)
        return all(good), symmetric.rendezvous(aligned, group).everyone().is_contiguous()

    assert world.run(body) == [(True, True)] * world.size


@pytest.mark.world(1, 2, 3, backend="shm")
def test_a_program_for_any_memory_runs_here_and_in_the_simulator(world):
    def body(group):
        from comm_core import symmetric_memory

        memory = symmetric_memory(group)
        x = memory.empty((4, 2)).fill_(memory.rank + 1.0)
        buffer, to = memory.rendezvous(x[1:3]), (memory.rank + 1) % memory.world
        first = buffer.one_shot_all_reduce("sum").tolist()
        buffer.peer(to)[0, 0] = 7.0 + memory.rank
        buffer.signal(to, 3)
        buffer.wait((memory.rank - 1) % memory.world, 3)
        return first, x[1, 0].item(), buffer.two_shot_all_reduce("max").tolist(), x[0].tolist()

    assert world.run(body) == world.simulate(body)


@pytest.mark.world(2, backend="gloo")
def test_a_group_of_another_backend_has_it_too(world):
    def body(group):
        from comm_shm import symmetric

        x = symmetric.empty((0,), torch.int16, group)
        symmetric.rendezvous(x, group).barrier()
        y = symmetric.empty((5,), torch.int16, group).fill_(3)
        return symmetric.rendezvous(y, group).two_shot_all_reduce().tolist(), tuple(x.shape)

    assert world.run(body) == [([6] * 5, (0,))] * 2


def mappings():
    with open("/proc/self/maps") as maps:
        return sum("comm_shm-" in line for line in maps)


@pytest.mark.parametrize("size", [2, 3])
def test_memory_is_given_back_with_the_last_user(fleet, size):
    def body(rank, world, store):
        import gc
        import os

        from comm_shm import symmetric

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        memory = symmetric.memory_of()
        memory.rendezvous(memory.empty((3,))).barrier()  # what is made with the first buffer, and stays
        gc.collect()
        before, open_before = mappings(), len(os.listdir("/proc/self/fd"))
        x = memory.empty((1 << 16,))
        view, peer = x[5:9], memory.rendezvous(x).peer(0)
        held = [mappings() - before]
        del x
        held.append(mappings() - before)
        del view
        held.append(mappings() - before)
        del peer
        gc.collect()
        held.append(mappings() - before)
        for _ in range(50):
            memory.rendezvous(memory.empty((1 << 18,)).fill_(1.0)).barrier()
        held.append(mappings() - before)
        return held, len(os.listdir("/proc/self/fd")) - open_before, len(memory._by_address)

    assert fleet.run(body, size) == [("returned", ([1, 1, 1, 0, 0], 0, 0))] * size


def test_tensors_and_handles_outlive_the_group(fleet):
    def body(rank, world, store):
        from comm_shm import symmetric

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        x = symmetric.empty((3,)).fill_(rank + 1.0)
        buffer = symmetric.rendezvous(x)
        dist.destroy_process_group()
        y = buffer.one_shot_all_reduce()
        del buffer
        return x.add_(1).tolist(), y.tolist()

    assert fleet.run(body, 2) == [("returned", ([2.0] * 3, [3.0] * 3)), ("returned", ([3.0] * 3, [3.0] * 3))]


@pytest.mark.world(1, 2, 3, backend="shm")
def test_what_a_tensor_can_be_used_for(world):
    def body(group):
        import copy
        import io
        import pickle

        from comm_shm import symmetric

        x = symmetric.empty((2, 3), torch.float32, group).fill_(2.0)
        buffer = symmetric.rendezvous(x, group)
        file = io.BytesIO()
        torch.save(x[:1], file)
        copied = copy.deepcopy(x).add_(1)
        x.requires_grad_()
        (x * x).sum().backward()
        moved = symmetric.empty((2,), torch.float32, group)
        handle = symmetric.rendezvous(moved, group)
        moved.share_memory_()
        return (
            pickle.loads(pickle.dumps(x.detach())).tolist() == [[2.0] * 3] * 2,
            len(file.getvalue()) < 4000,
            copied.tolist() == [[3.0] * 3] * 2 and x.tolist() == [[2.0] * 3] * 2,
            x.grad.tolist() == [[4.0] * 3] * 2,
            attempt(lambda: pickle.dumps(buffer))[0] is TransportError,
            attempt(handle.barrier),
            attempt(lambda: symmetric.rendezvous(moved, group))[0] is ArgumentError,
            attempt(buffer.barrier)[0],
        )

    for answer in world.run(body):
        assert answer[:5] == (True,) * 5
        assert answer[5][0] is TransportError
        assert "not in symmetric memory any more" in answer[5][1]
        assert answer[6:] == (True, None)


def test_a_forked_child_shares_the_tensors_and_cannot_meet(fleet):
    def body(rank, world, store):
        import os

        from comm_shm import symmetric

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        x = symmetric.empty((2,), torch.int32)
        buffer = symmetric.rendezvous(x)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            said = [attempt(call)[0] for call in (buffer.barrier, lambda: buffer.signal(0), lambda: buffer.wait(0))]
            x.fill_(5 + rank)
            os.write(writer, b"refused" if said == [TransportError] * 3 else str(said).encode())
            os._exit(0)
        os.waitpid(child, 0)
        return os.read(reader, 4096).decode(), buffer.two_shot_all_reduce().tolist()

    assert fleet.run(body, 2) == [("returned", ("refused", [11, 11]))] * 2


@pytest.mark.world(2, 3, backend="shm")
def test_ranks_that_disagree_are_told_and_nothing_is_touched(world):
    def body(group):
        from comm_shm import symmetric

        memory, odd = symmetric.memory_of(group), group.rank == group.world - 1
        x, y = memory.empty((6,)).fill_(1.0), memory.empty((6,)).fill_(1.0)
        buffer, other = memory.rendezvous(x), memory.rendezvous(y[3:])
        said = [
            attempt(lambda: memory.empty((2, 3) if odd else (3, 2))),
            attempt(lambda: memory.empty((2,), torch.int8 if odd else torch.uint8)),
            attempt(lambda: memory.empty((-2,) if odd else (2,))),
            attempt(lambda: (other if odd else buffer).two_shot_all_reduce()),
            attempt(lambda: buffer.two_shot_all_reduce("max" if odd else "sum")),
            attempt(lambda: buffer.barrier() if odd else buffer.one_shot_all_reduce()),
            attempt(lambda: buffer.one_shot_all_reduce(out=torch.empty(5 + (not odd)))),
            attempt(lambda: buffer.two_shot_all_reduce("band" if odd else "sum")),
            attempt(lambda: buffer.one_shot_all_reduce(out=x if odd else None)),
        ]
        return said, x.tolist(), buffer.two_shot_all_reduce().tolist()

    n = world.size
    for rank, (said, before, after) in enumerate(world.run(body)):
        odd = rank == n - 1
        assert before == [1.0] * 6
        assert after == [float(n)] * 6
        kinds = [MismatchError] * 9
        kinds[2] = ArgumentError if odd else MismatchError
        assert [kind for kind, _ in said] == kinds
        assert [f"rank {n - 1}: one_shot_all_reduce of 6 float32" in said[at][1] for at in (6, 8)] == [True, True]
        assert "(refused: not such a call)" in said[7][1]
        assert f"rank {n - 1}: [2, 3] float32" in said[0][1]
        assert f"rank {n - 1}: two_shot_all_reduce(sum) of 3 float32 in buffer 2 from byte 12" in said[3][1]
        assert "two_shot_all_reduce(sum) of 6 float32 in buffer 1;" in said[3][1]
        assert f"rank {n - 1}: symmetric barrier of 6 float32 in buffer 1" in said[5][1]


@pytest.mark.world(1, 2, backend="shm")
def test_what_does_not_fit_on_any_rank_says_what_is_wrong(world):
    def body(group):
        from comm_shm import symmetric

        x = symmetric.empty((4 * group.world + 1,), group=group)
        buffer = symmetric.rendezvous(x, group)
        return [
            attempt(buffer.reduce_scatter if group.world > 1 else lambda: buffer.reduce_scatter(out=x[:1]))[0],
            attempt(lambda: buffer.one_shot_all_reduce(out=torch.empty(3)))[0],
            attempt(lambda: buffer.two_shot_all_reduce("band"))[0],
            attempt(lambda: buffer.two_shot_all_reduce("premul_sum"))[0],
            attempt(lambda: buffer.all_gather(out=buffer.everyone()))[0],
            attempt(lambda: symmetric.empty((2,), "float"))[0],
            attempt(lambda: symmetric.rendezvous(x[::2], group))[0],
            attempt(lambda: buffer.wait(group.world))[0],
            attempt(lambda: buffer.signal(0, -1))[0],
        ]

    want = [ShapeError, ShapeError, ReduceOpError, ReduceOpError, None, ArgumentError, ArgumentError, RankError]
    for kinds in world.run(body):
        assert kinds[4] in (ShapeError, ArgumentError)
        kinds[4] = None
        assert kinds == [*want, ArgumentError]


@pytest.mark.parametrize("limit", ["file", "address space", "machine"])
def test_no_room_is_an_error_with_the_numbers_on_every_rank(fleet, limit):
    def body(rank, world, store, limit):
        import resource

        from comm_shm import allocation, symmetric

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        memory = symmetric.memory_of()
        x = memory.empty((10,)).fill_(1.0)
        size = 1 << 28
        if rank == 0 and limit == "file":
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        if rank == 1 and limit == "address space":
            resource.setrlimit(resource.RLIMIT_AS, (1 << 26, resource.RLIM_INFINITY))
        if rank == 1 and limit == "machine":
            allocation.room_bytes = lambda: 12345
        said = attempt(lambda: memory.empty((size,), torch.uint8))
        return said, memory.rendezvous(x).two_shot_all_reduce().tolist()

    answers = fleet.run(body, 3, limit)
    for how, (said, after) in answers:
        assert how == "returned"
        assert said[0] is TransportError
        assert said == answers[0][1][0]
        assert ("rank 0" if limit == "file" else "rank 1") in said[1]
        assert str(1 << 28) in said[1] or str(3 * (1 << 28) + 4096) in said[1]
        assert after == [3.0] * 10


@pytest.mark.parametrize("where", ["barrier", "wait", "collective"])
def test_a_killed_rank_is_named_within_a_second(fleet, where):
    def body(rank, world, store, where):
        import os
        import signal
        import time

        from comm_shm import symmetric

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        buffer = symmetric.rendezvous(symmetric.empty((3,)))
        if rank == 1:
            buffer.wait(0)
            os.kill(os.getpid(), signal.SIGKILL)
        if rank == 0:
            buffer.signal(1)
        call = {"barrier": buffer.barrier, "wait": lambda: buffer.wait(1), "collective": buffer.two_shot_all_reduce}
        began = time.monotonic()
        said = attempt(call[where])
        return said, time.monotonic() - began

    answers = fleet.run(body, 3, where)
    assert answers[1] == ("died", -9)
    for how, (said, took) in (answers[0], answers[2]):
        assert how == "returned"
        assert said[0] is RankFailedError
        assert "rank 1, which has ended" in said[1] or "found rank 1 gone" in said[1]
        assert took < 1.0
    assert any("rank 1, which has ended" in said[1] for _, (said, _) in (answers[0], answers[2]))


@pytest.mark.world(2, 3, backend="shm")
def test_a_wait_in_vain_names_the_rank_and_loses_nothing(world):
    def body(group):
        from comm_shm import symmetric

        buffer = symmetric.rendezvous(symmetric.empty((3,), group=group), group)
        if group.rank == 0:
            said = attempt(lambda: buffer.wait(1, 2, timeout_s=0.05))
            buffer.signal(1, 2)
            buffer.wait(1, 2)
            assert attempt(lambda: buffer.wait(1, 2, timeout_s=0.05))[0] is RankTimeoutError  # one signal, one wait
        elif group.rank == 1:
            said = buffer.wait(0, 2), ""
            buffer.signal(0, 2)
        else:
            said = None, ""
        buffer.barrier()
        return said

    first, second, *_ = world.run(body)
    assert first[0] is RankTimeoutError
    assert "no signal within 0.05 s from rank 1 on channel 2 (it last met in: symmetric empty" in first[1]
    assert second == (None, "")


def test_a_late_rank_is_named(fleet):
    def body(rank, world, store):
        from comm_shm import symmetric

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        buffer = symmetric.rendezvous(symmetric.empty((3,)))
        if rank == 1:
            store.wait(["given up"])
            return attempt(buffer.barrier)
        said = attempt(lambda: buffer.barrier(timeout_s=0.2))
        store.set("given up", "")
        return said

    answers = [answer for _, answer in fleet.run(body, 3)]
    assert [kind for kind, _ in answers] == [RankTimeoutError] * 3
    assert any("no arrival within 0.2 s of rank 1" in said for _, said in answers)


def test_a_rank_that_dropped_it_is_named(fleet):
    def body(rank, world, store):
        from comm_shm import symmetric

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        buffer = symmetric.rendezvous(symmetric.empty((3,)))
        if rank == 1:
            del buffer
            dist.destroy_process_group()
            store.wait(["told"])
            return None
        said = attempt(lambda: buffer.wait(1))
        store.set("told", "")
        return said

    kind, said = fleet.run(body, 2)[0][1]
    assert kind is RankFailedError
    assert "rank 1, which has" in said


@pytest.mark.world(2, backend="shm")
def test_ordinary_meetings_of_the_group_do_not_stand_between(world):
    def body(group):
        from comm_shm import symmetric

        x = symmetric.empty((1000,), group=group)
        buffer, seen = symmetric.rendezvous(x, group), []
        for step in range(50):
            y = torch.full((step + 1,), 1.0)
            if group.rank:
                buffer.signal(0)
                dist.all_reduce(y)
            else:
                dist.all_reduce(y)
                buffer.wait(1)
            x.fill_(step)
            seen.append((buffer.two_shot_all_reduce() == 2 * step).all().item() and (y == 2).all().item())
            buffer.barrier()
        return all(seen)

    assert world.run(body) == [True, True]
