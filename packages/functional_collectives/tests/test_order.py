"""Ops of our own in the code that Inductor makes: in the order of the program, whatever it would gain by another."""

import re

import torch
import torch.distributed as dist

import comm_core
import functional_collectives as fc
from comm_core import own_ops

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


def test_inductor_keeps_them_in_the_order_of_the_program(fake_world):
    from torch._inductor.utils import run_and_get_code

    group = fake_world(WORLD)
    inputs = [torch.ones(sent, 2, requires_grad=True) for sent, _ in MESSAGES]

    def run(inputs):
        with torch._inductor.config.patch(force_disable_caches=True):
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
        with torch._inductor.config.patch(force_disable_caches=True), fc.remapped():
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
