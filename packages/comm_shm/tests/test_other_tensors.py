"""Tensors that are not what they seem: in flight, imagined, made of others, or without memory. No rank ends by them."""

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import CommError, MismatchError, TransportError

pytestmark = [pytest.mark.needs_shm]


def everything(me, n, pg, make):
    """Calls of every method with a tensor of a kind that `make(value, *shape)` gives, wherever one may stand."""
    last = n - 1

    def given(*shape):
        return make(me + 1.0, *shape)

    def room(*shape):
        return make(0.0, *shape)

    def in_place(call):
        x = given(3)
        return x, call(x)

    def into(out, call):
        return out, call(out)

    def rooted(call):
        outs = [room(3) for _ in range(n)] if me == last else None
        return outs or [], call(outs)

    def passed(later):
        if n == 1:
            return [], None
        after, before, out = (me + 1) % n, (me - 1) % n, room(3)
        works = [dist.isend(given(3), after), dist.irecv(out, before)]
        for work in works:
            work.wait()
        return out, None

    return {
        "all_reduce": lambda w: in_place(lambda x: dist.all_reduce(x, async_op=w)),
        "broadcast": lambda w: in_place(lambda x: dist.broadcast(x, last, async_op=w)),
        "reduce": lambda w: in_place(lambda x: dist.reduce(x, last, async_op=w)),
        "all_gather_into_tensor": lambda w: into(
            room(3 * n), lambda out: dist.all_gather_into_tensor(out, given(3), async_op=w)
        ),
        "all_gather": lambda w: into(
            [room(3) for _ in range(n)], lambda outs: dist.all_gather(outs, given(3), async_op=w)
        ),
        "reduce_scatter_tensor": lambda w: into(
            room(3), lambda out: dist.reduce_scatter_tensor(out, given(3 * n), async_op=w)
        ),
        "reduce_scatter": lambda w: into(
            room(3), lambda out: dist.reduce_scatter(out, [given(3) for _ in range(n)], async_op=w)
        ),
        "all_to_all_single": lambda w: into(
            room(2 * n), lambda out: dist.all_to_all_single(out, given(2 * n), async_op=w)
        ),
        "all_to_all": lambda w: into(
            [room(3) for _ in range(n)],
            lambda outs: dist.all_to_all(outs, [given(3) for _ in range(n)], async_op=w),
        ),
        "gather": lambda w: rooted(lambda outs: dist.gather(given(3), outs, last, async_op=w)),
        "scatter": lambda w: into(
            room(3),
            lambda out: dist.scatter(out, [given(3) for _ in range(n)] if me == last else None, last, async_op=w),
        ),
        "coalesced": lambda w: into([given(2), given(3)], lambda xs: pg.allreduce_coalesced(xs, coalesced_options(w))),
        "messages": passed,
    }


def coalesced_options(later):
    from torch._C import _distributed_c10d as c10d

    options = c10d.AllreduceCoalescedOptions()
    options.asyncOp = later
    return options


def values(outs):
    return [values(one) for one in outs] if isinstance(outs, list) else (outs + 0).tolist()


def seen(make, plain=False):
    me, n, told = dist.get_rank(), dist.get_world_size(), {}
    for name, call in everything(me, n, dist.group.WORLD, make).items():
        for later in (False, True):
            outs, work = call(later)
            if work is not None and later:
                work.wait()
            told[name, later] = None if plain else values(outs)
    return told


def filled(value, *shape):
    return torch.full(shape, value)


@pytest.mark.world(1, 2, 3, backend="shm")
@pytest.mark.parametrize("whose", ["torch", "functional_collectives"])
def test_what_is_in_flight_is_waited_for(world, whose):
    def body(group):
        if whose == "torch":
            import torch.distributed._functional_collectives as funcol

            alone = dist.new_subgroups(1, backend="shm")[0]

            def flying(value, *shape):
                return funcol.all_reduce(filled(value, *shape), "sum", alone)
        else:
            import functional_collectives as fc

            alone = dist.new_subgroups(1, backend="shm")[0]

            def flying(value, *shape):
                return fc.all_reduce(filled(value, *shape), "sum", alone)

        kind = type(flying(1.0, 1)).__name__
        return kind, seen(flying) == seen(filled)

    assert world.run(body) == [("AsyncCollectiveTensor", True)] * world.size


@pytest.mark.world(1, 2, backend="shm")
def test_the_result_of_a_collective_in_flight_can_be_the_next_ones_input(world):
    def body(group):
        import torch.distributed._functional_collectives as funcol

        x = funcol.all_reduce(torch.ones(3), "sum", dist.group.WORLD)
        dist.all_reduce(x)
        work = dist.all_reduce(x, async_op=True)
        work.wait()
        return x.tolist()

    assert world.run(body) == [[float(world.size) ** 3] * 3] * world.size


@pytest.mark.world(1, 2, backend="shm")
def test_calls_with_fake_tensors_do_nothing(world):
    def body(group):
        from torch._subclasses.fake_tensor import FakeTensorMode

        x = torch.ones(2)
        with FakeTensorMode():
            told = seen(filled, plain=True)
        dist.all_reduce(x)
        return len(told), x.tolist()

    count = 13 * 2
    assert world.run(body) == [(count, [float(world.size)] * 2)] * world.size


def own_error(call):
    try:
        call()
    except CommError as error:
        return type(error), str(error)
    return None, ""


class Wrapper(torch.Tensor):
    """A tensor that is made of another."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError("nobody asks it anything")


def without_memory(value, *shape):
    x = torch.full(shape, value)
    x.untyped_storage().resize_(0)
    return x


def sharded(value, *shape):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return DTensor.from_local(torch.full(shape, value), mesh, [Replicate()], run_check=False)


KINDS = {
    "DTensor": (sharded, "got a DTensor; need a plain tensor, which has memory; pass x.to_local()"),
    "wrapper": (lambda value, *shape: Wrapper(torch.full(shape, value)), "got a Wrapper; need a plain tensor"),
    "no memory": (without_memory, "without memory; need a tensor with memory"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.world(1, 2, 3, backend="shm")
@pytest.mark.parametrize("kind", list(KINDS))
def test_other_tensors_are_refused_by_every_method(world, kind):
    def body(group):
        make, _ = KINDS[kind]
        me, n, pg = group.rank, group.world, dist.group.WORLD
        told = {}
        for name, call in everything(me, n, pg, make).items():
            if name == "messages" and n == 1:
                continue
            for later in (False, True):
                told[name, later] = own_error(lambda call=call, later=later: call(later))
        x = torch.ones(2)
        dist.all_reduce(x)
        return told, x.tolist()

    for told, after in world.run(body):
        for name, (error, said) in told.items():
            assert error is TransportError, (name, error, said)
            assert KINDS[kind][1] in said, name
        assert after == [float(world.size)] * 2


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_rank_that_brings_one_alone_tells_the_others(fleet, kind):
    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        calls = (
            lambda x: dist.all_reduce(x),
            lambda x: dist.broadcast(x, 0),
            lambda x: dist.all_gather_into_tensor(torch.zeros(3 * world), x),
        )
        made = KINDS[kind][0](1.0, 3)
        told = [own_error(lambda call=call: call(made if rank == 0 else torch.ones(3))) for call in calls]
        x = torch.ones(2)
        dist.all_reduce(x)
        return told, x.tolist()

    for how, (told, after) in fleet.run(body, 2):
        assert how == "returned"
        for error, said in told:
            assert error is MismatchError
            assert "(refused: not a plain tensor)" in said
        assert after == [2.0] * 2


@pytest.mark.world(2, backend="shm")
def test_under_vmap_and_in_a_trace_every_rank_is_told(world):
    def body(group):
        def reduced(x):
            dist.all_reduce(x)
            return x

        told = [
            own_error(lambda: torch.vmap(reduced)(torch.ones(2, 3))),
            own_error(lambda: torch.func.grad(lambda x: reduced(x).sum())(torch.ones(3))),
            own_error(lambda: reduced(torch._to_functional_tensor(torch.ones(3)))),
        ]
        dist.barrier()
        return told

    for told in world.run(body):
        for error, said in told:
            assert error is TransportError
            assert "without memory" in said


@pytest.mark.world(1, 2, backend="shm")
def test_a_subclass_that_is_only_a_name_is_a_plain_tensor(world):
    def body(group):
        class Named(torch.Tensor):
            pass

        return seen(lambda value, *shape: torch.full(shape, value).as_subclass(Named)) == seen(filled)

    assert world.run(body) == [True] * world.size


@pytest.mark.world(1, 2, backend="shm")
def test_symmetric_memory_refuses_an_output_without_memory(world):
    def body(group):
        from torch._subclasses.fake_tensor import FakeTensorMode

        from comm_shm import symmetric

        x = symmetric.empty((4,), torch.float32).fill_(1.0)
        buffer = symmetric.rendezvous(x)
        with FakeTensorMode():
            imagined = torch.empty(4)
        outs = [imagined, without_memory(0.0, 4), Wrapper(torch.zeros(4)), sharded(0.0, 4)]
        told = [own_error(lambda out=out: buffer.one_shot_all_reduce(out=out))[0] for out in outs]
        found = [own_error(lambda one=one: symmetric.rendezvous(one))[1] != "" for one in outs]
        return told, found, buffer.one_shot_all_reduce().tolist()

    want = [TransportError] * 4, [True] * 4, [float(world.size)] * 4
    assert world.run(body) == [want] * world.size


def test_the_c_core_refuses_an_address_of_nothing():
    from comm_shm import _native
    from comm_shm.rendezvous import own_card
    from comm_shm.segment import attach, create

    memfd, _ = create(1)
    handle = attach(memfd, [own_card(None)], 0)
    calls = [
        lambda: _native.all_reduce(handle, 0, 3, 0, 0, 1.0),
        lambda: _native.broadcast(handle, 1, 0, 3, 0, 0, 0, 4, 1.0),
        lambda: _native.launch("all_gather", None, handle, 1, 0, 3, 0, 0, 0, 4, 1.0),
        lambda: _native.post(handle, True, 0, 0, 0, 3, 12, 0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="no memory behind a tensor"):
            call()
    _native.close_group(handle)


def test_over_several_hosts():
    from comm_core.testing import run_ranks

    def body(group):
        import os

        import torch.distributed._functional_collectives as funcol

        os.environ["COMM_SHM_HOST"] = "aba"[group.rank]
        try:
            span = dist.new_group(backend="shm")
        finally:
            del os.environ["COMM_SHM_HOST"]
        try:
            x = funcol.all_reduce(torch.ones(3), "sum", span)
            dist.all_reduce(x, group=span)
            odd = Wrapper(torch.ones(3)) if group.rank == 1 else torch.ones(3)
            told = own_error(lambda: dist.all_reduce(odd, group=span))
            return type(span).__name__, x.tolist(), told[0], "(refused: not a plain tensor)" in told[1]
        finally:
            dist.destroy_process_group(span)

    assert run_ranks(body, 3, "gloo") == [("SpanningGroup", [9.0] * 3, MismatchError, True)] * 3
