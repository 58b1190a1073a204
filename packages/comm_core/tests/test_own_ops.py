"""The ops of our own: torch's own checks of an op, registration that can be undone, their place in a graph."""

import subprocess
import sys

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from comm_core import World, own_ops, run
from comm_core.catalog import BATCH_P2P, CATALOG, REDUCE
from comm_core.collective import Lowering

OPAQUE = [name for name, entry in CATALOG.items() if entry.lowering is Lowering.OPAQUE]


def _samples(group):
    ring = [(group.rank + 1) % group.world, 2, 0], [(group.rank - 1) % group.world, 2, 0]
    x = torch.arange(6.0).view(2, 3)
    return {
        "reduce": [(x, "sum", 0, group.name), (x.t(), "max", group.world - 1, group.name)],
        "batch_p2p": [(x, *ring, group.name), (torch.ones(4)[::2], *ring, group.name), (x[:0], [], [], group.name)],
    }


def _checked(group):
    own_ops.register()
    return {
        f"{name} {i}": dict(torch.library.opcheck(getattr(torch.ops.comm_core, name).default, arguments))
        for name, samples in _samples(group).items()
        for i, arguments in enumerate(samples)
    }


@pytest.mark.world(1, 2, timeout=120)
def test_torch_finds_nothing_wrong_with_the_ops(world):
    for found in world.run(_checked):
        assert {name.split()[0] for name in found} == set(OPAQUE)
        for name, results in found.items():
            assert set(results.values()) == {"SUCCESS"}, name


def test_many_threads_may_register_at_once():
    for _ in range(5):
        own_ops.unregister()
        assert World(8).run(lambda group: own_ops.register()) == [True] * 8


def test_an_op_gives_what_the_entry_gives():
    def body(group):
        own_ops.register()
        x = torch.tensor([1.0, group.rank])
        ours = run(REDUCE, x, group, reduce_op="max", dst=1)
        return torch.equal(torch.ops.comm_core.reduce(x, "max", 1, group.name), ours)

    assert World(3).run(body) == [True] * 3


def test_importing_registers_nothing_and_registering_can_be_undone():
    code = (
        "import torch, comm_core, functional_collectives\n"
        "from comm_core import own_ops\n"
        "def known(): return hasattr(torch.ops.comm_core, 'reduce')\n"
        "assert not known()\n"
        "own_ops.register(); own_ops.register(); assert known()\n"
        "own_ops.unregister(); own_ops.unregister()\n"
        "try:\n"
        "    torch.ops.comm_core.reduce.default(torch.ones(1), 'sum', 0, 'x')\n"
        "except (AttributeError, NotImplementedError, RuntimeError): pass\n"
        "else: raise SystemExit('it is still there')\n"
        "own_ops.register()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_messages_keep_their_places_when_dead_code_is_removed():
    def body(group):
        def two(x):
            run(BATCH_P2P, x, group, sends=[(0, 2, 1)], receives=[(0, 2, 1)])
            run(BATCH_P2P, x, group, sends=[(0, 2, 2)], receives=[(0, 2, 2)])
            return x + 1

        graph = make_fx(two)(torch.ones(2))
        graph.graph.eliminate_dead_code()
        return [node.args[1] for node in graph.graph.nodes if "batch_p2p" in str(node.target)]

    assert World(1).run(body) == [[[0, 2, 1], [0, 2, 2]]]


def _exported(group):
    class Model(torch.nn.Module):
        def forward(self, x):
            return run(REDUCE, x * 2, group, reduce_op="sum", dst=0) + 1

    program = torch.export.export(Model(), (torch.ones(2),), strict=False)
    return program.module()(torch.full((2,), 3.0)).tolist()


@pytest.mark.world(2, timeout=120)
def test_an_exported_program_runs(world):
    assert world.run(_exported) == [[13.0, 13.0], [1.0, 1.0]]
