"""The ops of our own: torch's own checks of an op, registration that can be undone, their place in a graph."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from comm_core import World, own_ops, run
from comm_core.catalog import BATCH_P2P, CATALOG, REDUCE
from comm_core.collective import Lowering

ROOT = Path(__file__).parents[3]
PACKAGES = sorted({found.parent.name for found in ROOT.glob("packages/*/src/*/__init__.py")})
LOCAL = {"reduce_rows", "scan_rows"}  # what a rank does with what arrived
OPAQUE = [name for name, entry in CATALOG.items() if entry.lowering is Lowering.OPAQUE]


def _registered():
    """All ops in namespaces of our own, as torch's dispatcher knows them once everything is imported and registered."""
    for package in PACKAGES:
        importlib.import_module(package)
    own_ops.register()
    known = (name.split("::") for name in torch._C._dispatch_get_all_op_names())
    return [f"{space}::{name}" for space, name in known if space in PACKAGES]


def _samples(group):
    ring = [(group.rank + 1) % group.world, 2, 0], [(group.rank - 1) % group.world, 2, 0]
    x, last = torch.arange(6.0).view(2, 3), group.world - 1
    leaf = x.double().requires_grad_()
    return {
        "comm_core::reduce": [
            (x, "sum", 0, group.name),
            (x.t(), "max", last, group.name),
            (x[:0], "sum", last, group.name),
            (x.int(), "bxor", 0, group.name),
            *((leaf, op, last, group.name) for op in ("sum", "avg", "max", "product")),
        ],
        "comm_core::start_reduce": [],  # its result is in flight: see below
        "comm_core::batch_p2p": [
            (x, *ring, group.name),
            (torch.ones(4)[::2], *ring, group.name),
            (x[:0], [], [], group.name),
            (leaf, *ring, group.name),
        ],
        "comm_core::start_batch_p2p": [(x[:0], [], [], group.name)],  # with messages its result is in flight: see below
        "comm_core::reduce_rows": [
            (x, "sum"),
            (x.t(), "max"),
            (x[:, :0], "sum"),
            (x.int(), "bxor"),
            *((leaf, op) for op in ("sum", "avg", "max", "product")),
        ],
        "comm_core::scan_rows": [
            (x, "sum", False, False),
            (x.t(), "max", True, True),
            (x[:, :0], "sum", True, False),
            (x.int(), "band", True, True),
            *((leaf, op, op == "avg", op == "max") for op in ("sum", "avg", "max", "product")),
        ],
    }


def _checked(group):
    samples = _samples(group)
    ops = {name: getattr(getattr(torch.ops, name.split("::")[0]), name.split("::")[1]) for name in _registered()}
    return {
        f"{name}.{overload} {i}": dict(torch.library.opcheck(getattr(op, overload), arguments))
        for name, op in ops.items()
        for overload in op.overloads()
        for i, arguments in enumerate(samples[name])
    }


@pytest.mark.world(1, 2, timeout=120)
def test_torch_finds_nothing_wrong_with_any_op_that_we_register(world):
    for found in world.run(_checked):
        assert {name.split("::")[1].split(".")[0] for name in found} == {*OPAQUE, "start_batch_p2p", *LOCAL}
        for name, results in found.items():
            assert len(results) == 4, name
            assert set(results.values()) == {"SUCCESS"}, name


def test_no_op_is_defined_in_a_namespace_that_is_not_a_package_of_ours():
    """So that the list of the ops that are checked, which goes by namespace, has them all."""
    made = {}
    for source in ROOT.glob("packages/*/src/**/*.py"):
        for call in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in ("Library", "custom_op", "triton_op"):
                made.setdefault(source.name, []).append([ast.unparse(argument) for argument in call.args[:2]])
    assert made == {"own_ops.py": [["NAMESPACE", "'DEF'"]], "functional_compat.py": [["'_c10d_functional'", "'IMPL'"]]}
    assert own_ops.NAMESPACE in PACKAGES
    native = [found for found in ROOT.glob("packages/*/csrc/**/*") if found.is_file()]
    assert native
    assert not [found.name for found in native if b"TORCH_LIBRARY" in found.read_bytes()]


def _slopes(group):
    x = torch.tensor([[1.0, 2.0], [float(group.rank), -1.0]], dtype=torch.float64, requires_grad=True)
    samples = [("reduce", (op, 1)) for op in ("sum", "avg", "max", "product")]
    ring = [(group.rank + 1) % group.world, 2, 3], [(group.rank - 1) % group.world, 2, 3]
    found = []
    own_ops.register()
    for name, numbers in [*samples, ("batch_p2p", ring)]:
        params = (
            {"reduce_op": numbers[0], "dst": numbers[1]}
            if name == "reduce"
            else {"sends": [tuple(numbers[0])], "receives": [tuple(numbers[1])]}
        )
        by_op = getattr(torch.ops.comm_core, name)(x, *numbers, group.name)
        by_entry = run(CATALOG[name], x, group, **params)
        both = [torch.autograd.grad((y * y * (group.rank + 1)).sum(), x)[0] for y in (by_op, by_entry)]
        found.append(torch.equal(*both) and bool(both[0].abs().sum() > 0))
    return found


def test_an_op_has_the_gradient_of_the_entry():
    assert World(3).run(_slopes) == [[True] * 5] * 3


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


def _started(group):
    """A receipt and an arrival, both started before either is waited for; what was sent is written at once."""
    own_ops.register()
    op, wait = torch.ops.comm_core.start_batch_p2p.default, torch.ops._c10d_functional.wait_tensor
    x = torch.full((2, 3), float(group.rank))
    right, left = (group.rank + 1) % group.world, (group.rank - 1) % group.world
    arriving = op(x[:0], [], [left, 2, 4], group.name)
    receipt = op(x, [right, 2, 4], [], group.name)
    x.fill_(-1.0)
    return wait(receipt).shape, wait(arriving).tolist(), wait(arriving).tolist()


@pytest.mark.world(2, 3)
def test_a_started_batch_is_finished_by_wait_tensor_and_owns_what_it_sends(world):
    for rank, answer in enumerate(world.run(_started)):
        rows = [[float((rank - 1) % world.size)] * 3] * 2
        assert answer == ((0, 3), rows, rows)


def _started_reduce(group):
    own_ops.register()
    op, wait = torch.ops.comm_core.start_reduce.default, torch.ops._c10d_functional.wait_tensor
    x = torch.tensor([1.0, group.rank])
    totals = [op(x, "sum", dst, group.name) for dst in range(group.world)]
    x.fill_(-1.0)
    return [wait(total).tolist() for total in totals]


@pytest.mark.world(1, 3)
def test_a_started_reduction_is_finished_by_wait_tensor_and_owns_what_it_sends(world):
    n = world.size
    total = [float(n), n * (n - 1) / 2]
    assert world.run(_started_reduce) == [
        [total if dst == rank else [0.0, 0.0] for dst in range(n)] for rank in range(n)
    ]


def test_a_started_batch_between_simulated_ranks():
    assert World(2).run(_started) == [((0, 3), [[1.0 - rank] * 3] * 2, [[1.0 - rank] * 3] * 2) for rank in range(2)]


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


def test_an_op_moves_bytes_while_another_thread_compiles(monkeypatch):
    """Of which torch tells all threads."""

    def body(group):
        own_ops.register()
        return torch.ops.comm_core.reduce.default(torch.ones(1), "sum", 0, group.name).item()

    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert World(2).run(body) == [2.0, 0.0]
