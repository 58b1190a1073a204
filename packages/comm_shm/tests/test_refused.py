"""What shared memory cannot do is refused at the call, on every rank of a collective, and the group goes on."""

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import CommError, TransportError

pytestmark = [pytest.mark.needs_shm, pytest.mark.world(1, 2, 3, backend="shm")]


def one():
    return torch.ones(2)


CALLS = {
    "device": lambda n: dist.group.WORLD.allreduce([torch.ones(2, device="meta")]),
    "layout": lambda n: dist.all_reduce(torch.ones(2, 2).to_sparse()),
    "expanded": lambda n: dist.all_reduce(torch.ones(1).expand(2)),
    "several tensors": lambda n: dist.group.WORLD.allreduce([one(), one()]),
    "irecv to another device": lambda n: dist.group.WORLD.recv([torch.ones(2, device="meta")], 0, 0),
    "irecv to an expanded tensor": lambda n: dist.group.WORLD.recv([torch.ones(1).expand(2)], 0, 0),
    "isend of a sparse tensor": lambda n: dist.group.WORLD.send([torch.ones(2, 2).to_sparse()], 0, 0),
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
        for name in CALLS.keys() - {"expanded", "several tensors", "irecv to an expanded tensor"}:
            assert "CPU tensors" in answers[name][1] or "need a dense one" in answers[name][1]
            assert 'new_group(backend="gloo")' in answers[name][1]
        assert after == [float(world.size)] * 2
