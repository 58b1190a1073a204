"""Ops of our own in the code that Inductor makes: in the order of the program, whatever it would gain by another."""

import contextlib
import re
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.distributed as dist
from torch._functorch import config as functorch_config
from torch.torch_version import TorchVersion

import comm_core
import functional_collectives as fc
from comm_core import inductor_compat, own_ops

WORLD = 4
# Rows that rank 0 sends to each other rank in turn, and that it receives: a memory planner would sort them by size.
MESSAGES = [(2, 2), (9, 1), (0, 0), (4, 0), (5, 7), (0, 3), (2, 0), (1, 30), (12, 2)]


def exchanges(group, inputs):
    """Messages that do not depend on each other, and reductions to a root and collectives of torch's among them."""
    results = []
    for number, (x, (_, received)) in enumerate(zip(inputs, MESSAGES, strict=True)):
        ops = [fc.Send(x.clone(), 1 + number % 3, number)] if len(x) else []
        ops += [fc.Receive(x.new_empty(received, 2), 1 + number % 3, number)] if received else []
        results += fc.batch_p2p(ops, group) if ops else []
        results.append(fc.reduce(x.clone(), "sum", number % WORLD, group) * 2)
        results.append(fc.all_gather_tensor(torch.cat([x, x.new_ones(number, 2)]), 0, group).sum())
    return results


def order_in(code):
    messages, reduction = r"\[[\d, ]*\], \[[\d, ]*\]", r"'\w+', \d+"
    ours = rf"comm_core\.(batch_p2p|reduce)\.default\(.*?({messages}|{reduction}), '"
    found = re.findall(rf"{ours}|_c10d_functional\.(all_gather_into_tensor)(?:_out)?\.default\((\w+)", code)
    return [f"{name} {arguments}" if name else torchs for name, arguments, torchs, _ in found]


def expected():
    order = []
    for number, (sent, received) in enumerate(MESSAGES):
        peer = 1 + number % 3
        sends = f"[{peer}, {2 * sent}, {number}]" if sent else "[]"
        receives = f"[{peer}, {2 * received}, {number}]" if received else "[]"
        order += [f"batch_p2p {sends}, {receives}"] if sent or received else []
        order += [f"reduce 'sum', {number % WORLD}", "all_gather_into_tensor"]
    return order


@contextlib.contextmanager
def without_caches():
    """Compile anew what is compiled here, but for torch's C++ headers, which `force_disable_caches` compiles too."""
    with torch._inductor.config.patch(fx_graph_cache=False), functorch_config.patch(enable_autograd_cache=False):
        yield


def test_inductor_keeps_them_in_the_order_of_the_program(fake_world):
    from torch._inductor.utils import run_and_get_code

    group = fake_world(WORLD)
    inputs = [torch.ones(sent, 2, requires_grad=True) for sent, _ in MESSAGES]

    def run(inputs):
        with without_caches():
            torch.compiler.reset()
            return torch.compile(exchanges, fullgraph=True)(group, inputs)

    _, codes = run_and_get_code(run, inputs)
    assert order_in(codes[0]) == expected()


def started(inputs):
    """Reductions to a root and all_reduces, all on their way before any is waited for, the last one first."""
    tensors, works = [], []
    for number, x in enumerate(inputs):
        y, z = x * 2, torch.cat([x, x.new_ones(2 * number, 2)])
        works += [dist.reduce(y, number % WORLD, async_op=True), dist.all_reduce(z, async_op=True)]
        tensors += [y, z]
    for work in reversed(works):
        work.wait()
    return [tensor.sum() for tensor in tensors]


def test_inductor_keeps_reductions_in_their_places_among_collectives_of_torchs_and_all_starts_before_the_waits(
    fake_world,
):
    from torch._inductor.utils import run_and_get_code

    fake_world(WORLD)
    inputs = [torch.ones(sent, 2) for sent, _ in MESSAGES]

    def run():
        with without_caches(), fc.remapped():
            return torch.compile(started, fullgraph=True)(inputs)

    _, codes = run_and_get_code(run)
    found = re.findall(
        r"(?:start_(reduce)\.default\(\w+, 'sum', (\d)|_c10d_functional\.(all_reduce)_?\.default)", codes[0]
    )
    expected = [("reduce", str(number % WORLD), "") for number in range(len(MESSAGES))]
    assert found == [one for each in expected for one in (each, ("", "", "all_reduce"))]
    starts, waits = (
        [at.start() for at in re.finditer(rf"{name}\.default\(", codes[0])]
        for name in ("(?:start_reduce|all_reduce_)", "wait_tensor")
    )
    assert len(starts) == len(waits)
    assert max(starts) < min(waits)


def test_inductor_is_told_of_reads_when_it_is_loaded_after_the_first_trace():
    program = textwrap.dedent("""
        import sys, torch, torch.distributed as dist, functional_collectives as fc
        from torch.testing._internal.distributed.fake_pg import FakeStore

        def backend(graph, inputs):
            assert "torch._inductor.scheduler" not in sys.modules
            from torch._inductor.compile_fx import compile_fx
            return compile_fx(graph, inputs)

        dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
        before = list(sys.meta_path)
        torch.compile(lambda x: fc.all_reduce(x, "sum") + 1, fullgraph=True, backend=backend)(torch.ones(3))
        from torch._inductor.scheduler import SchedulerNode

        assert sys.meta_path == before
        print(SchedulerNode.recompute_size_and_body.__module__)
        from comm_core import inductor_compat, own_ops
        own_ops.unregister()
        print(SchedulerNode.recompute_size_and_body.__module__)
    """)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
    assert said.returncode == 0, said.stderr
    mended = "comm_core.inductor_compat" if TorchVersion(torch.__version__) < "2.14" else "torch._inductor.scheduler"
    assert said.stdout.split() == [mended, "torch._inductor.scheduler"]


def test_what_inductor_was_told_is_taken_back():
    from torch._inductor.lowering import lowerings

    def ours():
        return [str(op) for op in lowerings if str(op).startswith("comm_core.")]

    own_ops.unregister()
    assert ours() == []
    comm_core.World(2).run(lambda group: own_ops.register())
    torch.ops.comm_core.reduce.default(torch.ones(2, device="meta"), "sum", 0, "0")
    assert ours() == ["comm_core.reduce.default"]
    own_ops.unregister()
    assert ours() == []


COLLECTIVES = {
    "all_gather": lambda x, group: fc.all_gather_tensor(x[:4], 0, group),
    "all_reduce": lambda x, group: fc.all_reduce(x, "sum", group),
    "reduce_scatter": lambda x, group: fc.reduce_scatter_tensor(torch.cat([x, x]), "sum", 0, group),
    "broadcast": lambda x, group: fc.broadcast(x, 0, group),
    "all_to_all": lambda x, group: fc.all_to_all_single(x, [4, 4], [4, 4], group),
    "permute": lambda x, group: fc.permute_tensor(x, [1, 0], group),
    "scan": lambda x, group: fc.scan(x, "sum", group),
}


def read_before_the_wait(code):
    """The buffers that a kernel reads between the start of a collective and the wait for it."""
    under_way, early = set(), []
    for line in map(str.strip, code.splitlines()):
        if started := re.match(r"(buf\d+) = torch\.ops\._c10d_functional\.(?!wait)", line):
            under_way.add(started[1])
        elif waited := re.match(r"torch\.ops\._c10d_functional\.wait_tensor\.default\((?:\w+\()?(buf\d+)", line):
            under_way.discard(waited[1])
        elif re.match(r"cpp_fused|extern_kernels", line):
            early += under_way & set(re.findall(r"buf\d+", line))
    return early


@pytest.mark.parametrize("name", COLLECTIVES)
def test_inductor_reads_a_result_behind_its_wait_where_it_fuses_loops_of_other_ranges(fake_world, name):
    from torch._inductor.utils import run_and_get_code

    _, codes = run_and_get_code(lambda: compiled_anew(of_other_ranges(name, fake_world(2))))
    assert "wait_tensor" in codes[0]
    assert read_before_the_wait(codes[0]) == []


def of_other_ranges(name, group):
    def program(x, weight, mixed):
        of_two_dims = (weight.t() * 2 + 1).contiguous()
        product = of_two_dims @ mixed
        y = COLLECTIVES[name](x, group)  # the loop over it has one dim, until it is fused
        return product, (y * 2).view(4, 2) + of_two_dims

    return program


def compiled_anew(program, caches=False):
    # sorted for memory, this program happens to be in order
    anew = contextlib.nullcontext() if caches else without_caches()
    with anew, torch._inductor.config.patch(reorder_for_peak_memory=False):
        torch.compiler.reset()
        inputs = torch.arange(8.0), torch.arange(8.0).view(2, 4), torch.ones(2, 2)
        return torch.compile(program, fullgraph=True)(*inputs)


@pytest.mark.skipif(TorchVersion(torch.__version__) >= "2.14", reason="this torch orders reads behind waits itself")
def test_code_that_inductor_made_without_the_order_of_reads_is_not_taken_from_its_cache(fake_world, monkeypatch):
    from torch._inductor.utils import fresh_cache, run_and_get_code

    program = of_other_ranges("all_gather", fake_world(2))
    with fresh_cache():
        with monkeypatch.context() as without:
            without.setattr(inductor_compat, "_mend", lambda _: None)
            inductor_compat.forget_reads("tracing")
            _, codes = run_and_get_code(lambda: compiled_anew(program, caches=True))
            assert read_before_the_wait(codes[0]) != []
        _, codes = run_and_get_code(lambda: compiled_anew(program, caches=True))
        assert read_before_the_wait(codes[0]) == []
