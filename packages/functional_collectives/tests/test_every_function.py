"""Every public function where no data is: in an exported graph, on fake tensors, and in one graph for many sizes."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

import functional_collectives as fc
from comm_core import Group
from packages.functional_collectives.tests.test_compile import every_function

NAMES = list(every_function(Group("", 0, 4, (), "")))
BY_ROWS = {  # of which another dim than the first is what ranks share, or the size that the call gives
    "all_gather_inplace",
    "all_gather_tensor_inplace",
    "all_gather_v 1",
    "gather 1",
    "reduce_scatter_inplace",
    "reduce_scatter_tensor",
    "reduce_scatter_tensor_coalesced",
    "reduce_scatter_v 1",
    "scatter 1",
}


@pytest.fixture
def call(request, fake_world):
    """A function on rank 0 of 4."""
    return every_function(fake_world(4))[request.param]


def rows():
    return torch.zeros(8, 2)


@pytest.mark.parametrize("call", NAMES, indirect=True)
def test_is_exported_without_tracing_python(call):
    class Module(torch.nn.Module):
        def forward(self, x):
            return call(x)

    program = torch.export.export(Module(), (rows(),), strict=False)
    assert program.module()(rows()).shape == fc.wait_tensor(call(rows())).shape


@pytest.mark.parametrize("call", NAMES, indirect=True)
def test_gives_fake_tensors_what_it_gives_real_ones(call):
    real = fc.wait_tensor(call(rows()))
    with FakeTensorMode():
        fake = call(rows())
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


@pytest.mark.parametrize("call", NAMES, indirect=True)
def test_one_graph_serves_what_stands_beside_it_at_many_sizes(call):
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(lambda x, y: call(x) * y.shape[0], fullgraph=True, dynamic=True, backend=counter)
    for size in (3, 5):
        assert compiled(rows(), torch.zeros(size)).shape == fc.wait_tensor(call(rows())).shape
    assert counter.frame_count == 1


@pytest.mark.parametrize("call", [name for name in NAMES if name not in BY_ROWS], indirect=True)
def test_one_graph_serves_rows_of_many_sizes(call):
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend=counter)
    for size in (3, 5, 7):
        x = torch.zeros(8, size)
        assert compiled(x).shape == fc.wait_tensor(call(x)).shape
    assert counter.frame_count == 1
