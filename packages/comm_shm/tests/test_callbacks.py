"""Callbacks of futures that start collectives and wait for them, inside each other, as those of DDP's PowerSGD do."""

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import CommError
from comm_core.testing import run_ranks

pytestmark = pytest.mark.needs_shm

WORLDS = pytest.mark.parametrize("world", [1, 2, 3])


def started(group, numel=3):
    return dist.all_reduce(torch.ones(numel), group=group, async_op=True)


def through_its_future(group):
    return started(group).get_future().wait()[0]


def through_a_callback(group):
    return started(group).get_future().then(lambda one: one.value()[0] * 2).wait()


def through_its_work(group):
    work = started(group)
    work.wait()
    return work.result()[0]


def at_once(group):
    x = torch.ones(3)
    dist.all_reduce(x, group=group)
    return x


def deep(group, levels):
    """A callback in a callback: each starts a collective and waits for it by a future that knows nothing of it."""
    future = started(group).get_future()
    if levels == 0:
        return future.then(lambda one: one.value()[0]).wait()
    return future.then(lambda one: one.value()[0] + deep(group, levels - 1)).wait()


NESTED = {
    "its future": through_its_future,
    "a callback of it": through_a_callback,
    "its work": through_its_work,
    "a call that waits": at_once,
    "three levels": lambda group: deep(group, 3),
    "large": lambda group: started(group, 200_000).get_future().wait()[0][:3],
}


def over_hosts(layout, body):
    """`body(group over several hosts)` on as many ranks as the layout has letters."""

    def ranked(group):
        import os

        os.environ["COMM_SHM_HOST"] = layout[group.rank]
        try:
            span = dist.new_group(backend="shm")
        finally:
            del os.environ["COMM_SHM_HOST"]
        try:
            return body(span)
        finally:
            dist.destroy_process_group(span)

    return run_ranks(ranked, len(layout), "gloo")


def nested(how, group=None):
    def call(one):
        return one.value()[0] + NESTED[how](group)

    return started(group).get_future().then(call).wait().tolist()


@WORLDS
@pytest.mark.parametrize("how", list(NESTED))
def test_a_callback_may_wait_for_what_it_starts(world, how):
    def body(group):
        return nested(how)

    n = float(world)
    want = {"a callback of it": 3 * n, "three levels": 5 * n}.get(how, 2 * n)
    assert run_ranks(body, world, "shm") == [[want] * 3] * world


@pytest.mark.parametrize("how", list(NESTED))
def test_a_callback_may_wait_for_what_it_starts_on_several_hosts(how):
    want = {"a callback of it": 9.0, "three levels": 15.0}.get(how, 6.0)
    assert over_hosts("aba", lambda span: nested(how, span)) == [[want] * 3] * 3


@WORLDS
def test_many_callbacks_that_wait(world):
    def body(group):
        def call(one):
            return one.value()[0] + through_a_callback(None)

        futures = [started(None).get_future().then(call) for _ in range(20)]
        return [future.wait().tolist() for future in futures]

    assert run_ranks(body, world, "shm") == [[[3.0 * world] * 3] * 20] * world


@pytest.mark.parametrize("world", [2, 3])
def test_a_callback_may_wait_for_a_message(world):
    def body(group):
        after, before = (group.rank + 1) % group.world, (group.rank - 1) % group.world

        def call(one):
            out = torch.zeros(1)
            works = [dist.isend(torch.full((1,), float(group.rank)), after), dist.irecv(out, before)]
            for work in works:
                work.get_future().then(lambda two: two.value()).wait()
            return out

        def answered(one):
            return one.value()[0] + through_a_callback(None)[:1]

        out, answer = started(None).get_future().then(call).wait().item(), torch.zeros(1)
        works = [dist.isend(torch.ones(1), after, tag=1), dist.irecv(answer, before, tag=1)]
        return out, works[1].get_future().then(answered).wait().item(), works[0].wait()

    want = [(float((rank - 1) % world), 1.0 + 2 * world, True) for rank in range(world)]
    assert run_ranks(body, world, "shm") == want


@WORLDS
def test_a_future_is_filled_when_its_work_has_been_waited_for(world):
    def body(group):
        seen = []
        for _ in range(50):
            work = started(None)
            future = work.get_future()
            called = future.then(lambda one: one.value()[0].sum().item())
            work.wait()
            seen.append((future.done(), called.wait()))
        return seen

    assert run_ranks(body, world, "shm") == [[(True, 3.0 * world)] * 50] * world


def attempt(call):
    try:
        call()
    except Exception as error:
        return type(error), str(error)
    return None, ""


def test_a_timeout_ends_a_callback_that_waits(fleet):
    def body(rank, world, store):
        from datetime import timedelta

        limit = timedelta(seconds=3)  # in which both make the first call, also on a busy machine
        dist.init_process_group("shm", store=store, rank=rank, world_size=world, timeout=limit)
        future = started(None).get_future()
        if rank == 0:
            said = attempt(future.then(lambda one: through_a_callback(None)).wait)
            store.set("over", "")
            return said[1]
        future.wait()
        store.wait(["over"])  # never makes the second call
        return ""

    (how, said), other = fleet.run(body, 2)
    assert how == "returned"
    assert "no arrival within 3 s of rank 1" in said
    assert other == ("returned", "")


def test_a_timeout_ends_a_callback_that_waits_on_several_hosts():
    def body(span):
        from datetime import timedelta

        future = started(span).get_future()
        future.wait()
        dist.barrier(span)
        if dist.get_rank() == 1:
            dist.barrier()  # never makes the second call
            return ""
        span.set_timeout(timedelta(milliseconds=300))
        said = attempt(started(span).get_future().then(lambda one: one.value()).wait)
        dist.barrier()
        return said[1]

    first, last = over_hosts("ab", body)
    assert "rank 1" in first
    assert last == ""


def test_closing_a_group_ends_a_callback_that_waits(fleet):
    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        told = []
        if rank == 0:

            def call(one):
                work = dist.irecv(torch.zeros(1), 1)
                store.set("waits", "")
                told.append(attempt(work.get_future().then(lambda two: two.value()).wait)[1] != "")

            future = started(None).get_future().then(call)
            store.set("asked", "")  # so that it is not finished before, and called in this thread
            store.wait(["waits", "reduced"])  # else it may be the other rank's all_reduce that fails
            dist.group.WORLD.abort()
            future.wait()
            store.set("closed", "")
            return told
        store.wait(["asked"])
        started(None).wait()
        store.set("reduced", "")
        store.wait(["closed"])
        return [True]

    assert fleet.run(body, 2) == [("returned", [True])] * 2


def test_a_forked_child_has_callbacks_of_its_own(fleet):
    def body(rank, world, store):
        import os

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        nested("a callback of it")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                dist.group.WORLD = None
                dist.distributed_c10d._world.pg_map.clear()
                from torch.distributed import PrefixStore

                dist.init_process_group("shm", store=PrefixStore("c", store), rank=rank, world_size=world)
                code = 0 if nested("a callback of it") == [3.0 * world] * 3 else 2
            finally:
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return status, nested("a callback of it")

    assert fleet.run(body, 2) == [("returned", (0, [6.0] * 3))] * 2


def test_errors_of_callbacks_and_of_collectives_reach_who_waits():
    def body(group):
        def bad(one):
            raise ValueError("not so")

        said = attempt(started(None).get_future().then(bad).wait)
        odd = started(None, 3 + group.rank).get_future()
        through = attempt(odd.wait)
        later = attempt(lambda: started(None, 3 + group.rank).get_future().then(lambda one: one.value()).wait())
        return "not so" in said[1], issubclass(through[0], CommError), "3 float32" in later[1]

    assert run_ranks(body, 2, "shm") == [(True, True, True)] * 2


@pytest.mark.parametrize("world", [1, 2])
def test_ddp_with_power_sgd_is_that_of_gloo(world):
    def body(group):
        from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

        torch.manual_seed(0)
        model = torch.nn.parallel.DistributedDataParallel(
            torch.nn.Sequential(torch.nn.Linear(32, 48), torch.nn.ReLU(), torch.nn.Linear(48, 16))
        )
        state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=2, start_powerSGD_iter=2)
        model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        x = torch.randn(8, 32, generator=torch.Generator().manual_seed(group.rank))
        for _ in range(6):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        return [p.detach() for p in model.parameters()]

    for gloo, shm in zip(run_ranks(body, world, "gloo"), run_ranks(body, world, "shm"), strict=True):
        torch.testing.assert_close(shm, gloo, rtol=0, atol=0)


def test_ddp_with_power_sgd_of_several_buckets_is_told_and_does_not_hang():
    """Whichever callback is first starts its collectives first, and that may be another one on another rank."""

    def body(group):
        from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

        torch.manual_seed(0)
        layers = [torch.nn.Linear(64, 64) for _ in range(8)]
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(*layers), bucket_cap_mb=0.03)
        state = powerSGD_hook.PowerSGDState(
            None, matrix_approximation_rank=1, start_powerSGD_iter=2, min_compression_rate=0.5
        )
        model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
        x = torch.randn(8, 64, generator=torch.Generator().manual_seed(group.rank))
        try:
            for _ in range(6):
                model(x).square().mean().backward()
        except RuntimeError as error:
            return str(error)
        return [p.grad for p in model.parameters()]

    first, second = run_ranks(body, 2, "shm", timeout=60.0)
    if isinstance(first, list):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    else:
        assert "MismatchError" in first
        assert "MismatchError" in second
