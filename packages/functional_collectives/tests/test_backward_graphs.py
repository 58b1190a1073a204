"""Which collectives a compiler puts into forward and which into backward: the same ones on every rank, whatever else
that computes, as ranks whose graphs differ there would wait for each other.
"""

import itertools

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition

import functional_collectives as fc
from comm_core.testing import run_ranks

REDUCTIONS = {
    "all_reduce": lambda x, op, group: fc.all_reduce(x, op, group),
    "reduce_scatter": lambda x, op, group: fc.reduce_scatter_tensor(x, op, 0, group),
    "reduce_scatter 1": lambda x, op, group: fc.reduce_scatter_tensor(x, op, 1, group),
    "reduce_scatter_v": lambda x, op, group: fc.reduce_scatter_v(x, op, 0, group, sizes=[4, 0]),
    "reduce": lambda x, op, group: fc.reduce(x, op, 1, group),
}
OPS = ("product", "max", "sum")
AFTERWARDS = {
    "sine": lambda y: y.sin(),
    "twice": lambda y: y * 2,
    "square": lambda y: y * y,
    "nothing": lambda y: y * 1,
    "some": lambda y: y[:1].exp().sum() + y.sum(),
}
CASES = [pytest.param(name, op, id=f"{name}-{op}") for name, op in itertools.product(REDUCTIONS, OPS)]


def collectives_of(call, afterwards):
    """Return the names of the collectives of forward and of backward, as a compiler cuts them to keep least."""
    seen = []

    def note(graph, inputs):
        nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
        targets = [str(node.args[1] if "with_effects" in str(node.target) else node.target) for node in nodes]
        seen.append([name for name in targets if name.startswith(("_c10d", "comm_core")) and "wait" not in name])
        return torch._functorch.aot_autograd.make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=note, bw_compiler=note, partition_fn=min_cut_rematerialization_partition)
    torch.compiler.reset()
    x = torch.ones(4, 4, requires_grad=True)
    torch.compile(lambda x: afterwards(call(x * x)), backend=backend, fullgraph=True)(x).sum().backward()
    return tuple(map(tuple, seen))


@pytest.mark.parametrize(("name", "op"), CASES)
def test_collectives_are_in_the_graph_where_they_are_on_every_rank(name, op, fake_world):
    group = fake_world(2)
    cut = {key: collectives_of(lambda x: REDUCTIONS[name](x, op, group), use) for key, use in AFTERWARDS.items()}
    assert len(set(cut.values())) == 1, cut
    forward, backward = cut["sine"]
    assert len([each for each in forward if "rows" not in each]) == 1
    exchanges = {"product": 2, "max": name != "all_reduce", "sum": 0}[op]  # of factors and back; of the reduced
    shares = op == "max"
    assert len(backward) == 1 + exchanges + shares, backward


def gradients(group, compiled):
    """Return each case's gradient where the ranks go on differently."""
    found = {}
    uses = list(AFTERWARDS.values())
    for at, (name, op) in enumerate(itertools.product(REDUCTIONS, OPS)):
        torch.compiler.reset()
        call, use = REDUCTIONS[name], uses[(at + group.rank) % len(uses)]

        def program(x, call=call, op=op, use=use):
            return use(call(x * x, op, group))

        x = (torch.arange(16.0).view(4, 4) / 8 + group.rank).requires_grad_()
        (torch.compile(program, backend="aot_eager", fullgraph=True) if compiled else program)(x).sum().backward()
        found[name, op] = x.grad
    return found


@pytest.mark.usefixtures("world_backend")
def test_ranks_that_go_on_differently_have_the_gradients_of_eager_code():
    compiled, eager = (run_ranks(gradients, 2, args=(how,), timeout=240.0) for how in (True, False))
    torch.testing.assert_close(compiled, eager)
