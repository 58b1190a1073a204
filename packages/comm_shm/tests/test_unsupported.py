"""What shm does not offer yet is refused at the call, on every rank, and the group goes on."""

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import CommError, TransportError

pytestmark = [pytest.mark.needs_shm, pytest.mark.world(1, 2, 3, backend="shm")]


def one():
    return torch.ones(2)


def functional(name, *args):
    from torch import ops  # cloudpickle cannot send a function that says `torch` and `ops`

    return getattr(ops._c10d_functional, name)(*args)


CALLS = {
    "broadcast": lambda n: dist.broadcast(one(), 0),
    "reduce": lambda n: dist.reduce(one(), 0),
    "all_gather": lambda n: dist.all_gather([one() for _ in range(n)], one()),
    "all_gather, tensor": lambda n: dist.all_gather_into_tensor(torch.ones(2 * n), one()),
    "gather": lambda n: dist.gather(one(), [one() for _ in range(n)] if dist.get_rank() == 0 else None, 0),
    "scatter": lambda n: dist.scatter(one(), [one() for _ in range(n)] if dist.get_rank() == 0 else None, 0),
    "reduce_scatter": lambda n: dist.reduce_scatter(one(), [one() for _ in range(n)]),
    "reduce_scatter, tensor": lambda n: dist.reduce_scatter_tensor(one(), torch.ones(2 * n)),
    "all_to_all": lambda n: dist.all_to_all([one() for _ in range(n)], [one() for _ in range(n)]),
    "all_to_all, single": lambda n: dist.all_to_all_single(torch.ones(n), torch.ones(n)),
    "all_gather_object": lambda n: dist.all_gather_object([None] * n, "x"),
    "functional all_gather": lambda n: functional("all_gather_into_tensor", one(), n, "0"),
    "functional reduce_scatter": lambda n: functional("reduce_scatter_tensor", torch.ones(2 * n), "sum", n, "0"),
    "functional all_to_all": lambda n: functional("all_to_all_single", torch.ones(n), [1] * n, [1] * n, "0"),
    "functional broadcast": lambda n: functional("broadcast", one(), 0, "0"),
    "dtype": lambda n: dist.all_reduce(one().bfloat16()),
    "complex": lambda n: dist.all_reduce(torch.ones(2, dtype=torch.complex128)),
    "device": lambda n: dist.group.WORLD.allreduce([torch.ones(2, device="meta")]),
    "layout": lambda n: dist.all_reduce(torch.ones(2, 2).to_sparse()),
    "reduce op": lambda n: dist.all_reduce(one(), op=dist.ReduceOp.BAND),
    "expanded": lambda n: dist.all_reduce(torch.ones(1).expand(2)),
    "several tensors": lambda n: dist.group.WORLD.allreduce([one(), one()]),
    "coalesced": lambda n: dist.all_reduce_coalesced([one(), one()]),
    "irecv": lambda n: dist.group.WORLD.recv([one()], 0, 0),
    "isend": lambda n: dist.group.WORLD.send([one()], 0, 0),
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
        for name in CALLS.keys() - {"expanded", "several tensors"}:
            assert "need all_reduce (sum, avg, product, min, max) of float32 CPU tensors" in answers[name][1]
            assert 'new_group(backend="gloo")' in answers[name][1]
        assert after == [float(world.size)] * 2
