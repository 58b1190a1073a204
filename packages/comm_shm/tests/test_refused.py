"""What shared memory cannot do is refused at the call, on every rank of a collective, and the group goes on."""

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import (
    ArgumentError,
    CommError,
    DtypeError,
    MismatchError,
    ReduceOpError,
    ShapeError,
    TransportError,
)

pytestmark = [pytest.mark.needs_shm, pytest.mark.world(1, 2, 3, backend="shm")]


def one():
    return torch.ones(2)


def quantized():
    return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


def nested():
    return torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)])


CALLS = {
    "device": lambda n: dist.group.WORLD.allreduce([torch.ones(2, device="meta")]),
    "layout": lambda n: dist.broadcast(torch.ones(2, 2).to_sparse(), 0),
    "expanded": lambda n: dist.all_reduce(torch.ones(1).expand(2)),
    "several tensors": lambda n: dist.group.WORLD.allreduce([one(), one()]),
    "irecv to another device": lambda n: dist.group.WORLD.recv([torch.ones(2, device="meta")], 0, 0),
    "irecv to an expanded tensor": lambda n: dist.group.WORLD.recv([torch.ones(1).expand(2)], 0, 0),
    "isend of a sparse tensor": lambda n: dist.group.WORLD.send([torch.ones(2, 2).to_sparse()], 0, 0),
    "isend of a quantized tensor": lambda n: dist.group.WORLD.send([quantized()], 0, 0),
    "quantized": lambda n: dist.broadcast(quantized(), 0),
    "nested": lambda n: dist.all_reduce(nested()),
    "nested, of other strides": lambda n: dist.broadcast(nested().transpose(1, 2), 0),
    "irecv to a nested tensor": lambda n: dist.group.WORLD.recv([nested().transpose(1, 2)], 0, 0),
}
HINTS = {
    "device": 'new_group(backend="gloo")',
    "irecv to another device": 'new_group(backend="gloo")',
    "layout": "pass x.to_dense()",
    "isend of a sparse tensor": "pass x.to_dense()",
    "isend of a quantized tensor": "pass x.int_repr()",
    "quantized": "pass x.int_repr()",
    "nested": "x.unbind()",
    "nested, of other strides": "x.unbind()",
    "irecv to a nested tensor": "x.unbind()",
}


@pytest.mark.filterwarnings("ignore")
def test_each_is_refused_by_a_transport_error_that_says_what_to_do(world):
    def body(group):
        answers = {}
        for name, call in CALLS.items():
            try:
                call(group.world)
            except CommError as error:
                answers[name] = type(error), str(error)
            except Exception as error:
                answers[name] = type(error), repr(error)
        x = torch.ones(2)
        dist.all_reduce(x)
        return answers, x.tolist()

    for answers, after in world.run(body):
        assert {name: kind for name, (kind, _) in answers.items()} == dict.fromkeys(CALLS, TransportError)
        for name, hint in HINTS.items():
            assert "CPU tensors" in answers[name][1] or "need a dense one" in answers[name][1]
            assert hint in answers[name][1]
        assert after == [float(world.size)] * 2


# Mistakes that a rank can see in its own arguments, as calls that are started.
STARTED = {
    "layout": (lambda n: dist.broadcast(torch.ones(2, 2).to_sparse(), 0, async_op=True), TransportError),
    "expanded": (lambda n: dist.all_reduce(one()[:1].expand(2), async_op=True), TransportError),
    "no reduce op": (lambda n: dist.group.WORLD.allreduce([one()], op="most"), ReduceOpError),
    "no op of that dtype": (lambda n: dist.all_reduce(one(), op=dist.ReduceOp.BXOR, async_op=True), ReduceOpError),
    "several tensors": (lambda n: dist.group.WORLD.broadcast([one(), one()], 0), TransportError),
    "no such root": (lambda n: dist.group.WORLD.reduce(one(), n), ArgumentError),
    "size": (lambda n: dist.all_gather_into_tensor(torch.ones(2 * n + 1), one(), async_op=True), ShapeError),
    "dtype": (lambda n: dist.group.WORLD.all_gather_single(torch.ones(2 * n).int(), one()), DtypeError),
    "part": (lambda n: dist.reduce_scatter_tensor(one(), torch.ones(2 * n + 1), async_op=True), ShapeError),
    "list": (lambda n: dist.all_gather([torch.ones(3) for _ in range(n)], one(), async_op=True), ShapeError),
    "splits": (
        lambda n: dist.all_to_all_single(torch.ones(n), torch.ones(n), [2] * n, [1] * n, async_op=True),
        ShapeError,
    ),
    "lists": (lambda n: dist.group.WORLD.alltoall([one()], [one()] * (n + 1)), ArgumentError),
    "coalesced": (lambda n: dist.group.WORLD.all_gather_single_coalesced([one()], [one(), one()]), ArgumentError),
}


def own_error(call, *args):
    try:
        call(*args)
    except CommError as error:
        return type(error), str(error)
    return None, ""


def test_a_started_call_raises_its_own_mistake_before_the_others_come(fleet):
    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        told = {}
        for name, (call, _) in STARTED.items():
            if rank == 0:
                told[name] = own_error(call, world)
                store.set(name, "refused")
            else:
                store.wait([name])
                work = dist.broadcast(one(), 1, async_op=True)
                told[name] = own_error(work.wait)
            x = one()
            dist.all_reduce(x)
            assert x.tolist() == [world] * 2
        return told

    mine, *others = fleet.run(body, 3)
    assert {name: kind for name, (kind, _) in mine[1].items()} == {name: kind for name, (_, kind) in STARTED.items()}
    for how, told in others:
        assert how == "returned"
        for name, (kind, said) in told.items():
            assert kind is MismatchError, name
            assert "rank 0: " in said
            assert "(refused: " in said
            assert "rank 1, rank 2: broadcast(src=1) of 2 float32" in said


def test_started_calls_that_all_ranks_get_wrong_alike_leave_nothing_behind(world):
    def body(group):
        told = [own_error(call, group.world)[0] for call, _ in STARTED.values()]
        x = one()
        dist.all_reduce(x)
        return told, x.tolist(), len(dist.group.WORLD._open)

    want = [kind for _, kind in STARTED.values()], [world.size] * 2, 0
    assert world.run(body) == [want] * world.size


def test_a_rank_that_leaves_after_its_mistake_tells_the_others_first(fleet):
    def body(rank, world, store):
        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        if rank == 0:
            told = own_error(lambda: dist.broadcast(torch.ones(2, 2).to_sparse(), 0, async_op=True))
            dist.destroy_process_group()
            return told
        return own_error(dist.all_reduce, one())

    (_, mine), (_, theirs) = fleet.run(body, 2)
    assert mine[0] is TransportError
    assert theirs[0] is MismatchError
    assert "(refused: not a dense layout)" in theirs[1]
