"""Calls of torch.distributed inside compiled code: ours while the context lasts, torch's before and after."""

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as torchs
from torch._dynamo.exc import Unsupported

import functional_collectives as fc
from functional_collectives.remaps import TABLE


def _calls(group):
    """Each call as a function of a (2 * world, 3) tensor, which returns what it wrote."""
    n, r = group.world, group.rank
    pg = group.process_group
    sizes = [1 + (r + i) % 2 for i in range(n)]  # rank r sends as many rows to rank i as rank i to rank r

    def on(call):
        def whole(x):
            y = x * 2
            call(y)
            return y

        return whole

    def into(make, call):
        def whole(x):
            out = make(x)
            call(out, x * 2)
            return torch.cat([part.reshape(-1) for part in out]) if isinstance(out, list) else out

        return whole

    new = torch.zeros
    return {
        "all_reduce": on(dist.all_reduce),
        "all_reduce avg": on(lambda y: dist.all_reduce(y, dist.ReduceOp.AVG, group=pg)),
        "all_reduce max": on(lambda y: dist.all_reduce(y, op=dist.ReduceOp.MAX)),
        "broadcast": on(lambda y: dist.broadcast(y, n - 1)),
        "broadcast, place in the group": on(lambda y: dist.broadcast(y, group=pg, group_src=0)),
        "barrier": on(lambda y: dist.barrier()),
        "all_gather": into(lambda x: [new(2 * n, 3) for _ in range(n)], dist.all_gather),
        "all_gather_into_tensor": into(lambda x: new(2 * n * n, 3), dist.all_gather_into_tensor),
        "reduce_scatter": into(
            lambda x: new(2, 3), lambda out, x: dist.reduce_scatter(out, list(x.chunk(n)), dist.ReduceOp.SUM)
        ),
        "reduce_scatter_tensor": into(lambda x: new(2, 3), dist.reduce_scatter_tensor),
        "all_to_all_single": into(lambda x: new(2 * n, 3), dist.all_to_all_single),
        "all_to_all_single, splits": into(
            lambda x: new(sum(sizes), 3), lambda out, x: dist.all_to_all_single(out, x[: sum(sizes)], sizes, sizes)
        ),
    }


def _compiled(group):
    import functional_collectives as fc

    calls = _calls(group)

    def everything(x):
        return [call(x) for call in calls.values()]

    def stacked(x):
        n = group.world
        gathered, reduced = torch.zeros(n, 2 * n, 3), torch.zeros(2, 3)
        dist.all_gather_into_tensor(gathered, x * 2)
        dist.reduce_scatter_tensor(reduced, (x * 2).view(n, 2, 3))
        return gathered.flatten(0, 1), reduced

    x = torch.arange(6.0 * group.world).view(-1, 3) + 100 * group.rank
    eager = everything(x)
    with fc.remapped():
        compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")(x)
        pair = torch.compile(stacked, fullgraph=True, backend="eager")(x)
    results = dict(zip(calls, compiled, strict=True))
    wrong = [name for name, one in zip(calls, eager, strict=True) if not torch.equal(results[name], one)]
    same = [results[name] for name in ("all_gather_into_tensor", "reduce_scatter_tensor")]
    return wrong, [torch.equal(*both) for both in zip(pair, same, strict=True)]  # gloo takes no stack in eager code


@pytest.mark.world(1, 2, 3, timeout=240.0)
def test_compiled_calls_write_what_eager_calls_write(world):
    assert world.run(_compiled) == [([], [True, True])] * world.size


def _all_to_all_of_lists(group):
    """`dist.all_to_all` of tensors of uneven sizes, which gloo itself does not have."""
    import torch.distributed as dist

    import functional_collectives as fc

    def call(xs):
        outs = [torch.zeros(group.rank + i + 1, 2) for i in range(group.world)]
        dist.all_to_all(outs, xs)
        return outs

    xs = [torch.full((group.rank + i + 1, 2), 10.0 * group.rank + i) for i in range(group.world)]
    with fc.remapped():
        outs = torch.compile(call, fullgraph=True, backend="aot_eager")(xs)
    return [torch.equal(out, torch.full_like(out, 10.0 * i + group.rank)) for i, out in enumerate(outs)]


@pytest.mark.world(1, 3)
def test_all_to_all_of_lists(world):
    assert world.run(_all_to_all_of_lists) == [[True] * world.size] * world.size


def _messages(group):
    """Rings of messages in each spelling, in eager code and compiled with our table."""
    import torch.distributed as dist

    import functional_collectives as fc

    pg = group.process_group
    right, left = (group.rank + 1) % group.world, (group.rank - 1) % group.world

    def batch(x, out):
        for work in dist.batch_isend_irecv([dist.P2POp(dist.irecv, out, left), dist.P2POp(dist.isend, x, right)]):
            work.wait()
        return out + 1

    def started(x, out):
        sent, received = dist.isend(x, right, tag=3), dist.irecv(out, group=pg, tag=3, group_src=left)
        y = x * 5
        assert received.wait()
        sent.wait()
        return out + y

    def received_first(x, out):
        received, sent = dist.irecv(out, left), dist.isend(x * 2, right)
        received.wait()
        y = out * 3
        sent.wait()
        return y

    def blocking(x, out):
        if group.rank == 0:
            dist.send(x, group=pg, group_dst=right)
            return out + dist.recv(out, left)
        source = dist.recv(out, left)
        dist.send(x, right)
        return out + source

    wrong = []
    x = torch.arange(3.0, requires_grad=True) + 10 * group.rank
    for call in (batch, started, received_first, blocking):
        eager_out, out = torch.zeros(3), torch.zeros(3)
        eager = call(x.detach(), eager_out)
        torch.compiler.reset()
        with fc.remapped():
            backend = "inductor" if call is received_first else "aot_eager"
            got = torch.compile(call, fullgraph=True, backend=backend)(x, out)
        if not (torch.equal(got, eager) and torch.equal(out, eager_out)):
            wrong.append((call.__name__, got.tolist(), eager.tolist()))
    return wrong, torch._dynamo.config.enable_p2p_compilation


@pytest.mark.world(2, 3, timeout=180.0)
def test_messages_write_what_eager_messages_write(world):
    assert world.run(_messages) == [([], False)] * world.size


def _all_gather_of_uneven_lists(group):
    """`dist.all_gather` of tensors of uneven sizes, which torch's own table refuses."""
    import torch.distributed as dist

    import functional_collectives as fc

    def call(x):
        outs = [torch.zeros(i + 1, 2) for i in range(group.world)]
        dist.all_gather(outs, x)
        return outs

    with fc.remapped():
        outs = torch.compile(call, fullgraph=True, backend="aot_eager")(
            torch.full((group.rank + 1, 2), group.rank + 0.5)
        )
    return [out.unique().tolist() for out in outs]


@pytest.mark.world(1, 3)
def test_all_gather_of_tensors_of_different_sizes(world):
    assert world.run(_all_gather_of_uneven_lists) == [[[i + 0.5] for i in range(world.size)]] * world.size


def _gradients(group):
    """A call in a compiled function has the gradient of the function without _inplace."""
    import torch._dynamo

    import functional_collectives as fc

    plain = {
        "all_reduce": lambda x: fc.all_reduce(x * 2, "sum", group),
        "all_reduce avg": lambda x: fc.all_reduce(x * 2, "avg", group),
        "broadcast": lambda x: fc.broadcast(x * 2, group.world - 1, group),
        "all_gather_into_tensor": lambda x: fc.all_gather_tensor(x * 2, 0, group),
        "reduce_scatter_tensor": lambda x: fc.reduce_scatter_tensor(x * 2, "sum", 0, group),
        "all_to_all_single": lambda x: fc.all_to_all_single(x * 2, None, None, group),
    }
    wrong = []
    for name, eager in plain.items():
        torch._dynamo.reset()
        with fc.remapped():
            compiled = torch.compile(_calls(group)[name], fullgraph=True, backend="aot_eager")
            grads = []
            for f in (eager, compiled):
                x = (torch.arange(6.0 * group.world).view(-1, 3) + group.rank).requires_grad_()
                y = f(x)
                (y * y * (group.rank + 1)).sum().backward()
                grads.append(x.grad)
        if not torch.equal(*grads):
            wrong.append(name)
    return wrong


@pytest.mark.world(1, 3, timeout=120.0)
def test_gradients_are_those_of_the_functions(world):
    assert world.run(_gradients) == [[]] * world.size


def _in_a_subgroup(group):
    """`src` counts in the world, so in the group of ranks 1 and 2 a source of 2 is the second."""
    import torch.distributed as dist

    import functional_collectives as fc

    pair = dist.new_group([1, 2])
    if group.rank == 0:
        return None

    def call(x):
        y = x * 1
        dist.broadcast(y, 2, group=pair)
        return y

    with fc.remapped():
        return torch.compile(call, fullgraph=True, backend="eager")(torch.tensor([group.rank])).item()


@pytest.mark.world(3)
def test_a_source_is_named_by_its_rank_in_the_world(world):
    assert world.run(_in_a_subgroup) == [None, 2, 2]


def test_the_table_is_torchs_again_afterwards_and_what_was_compiled_inside_is_compiled_anew(fake_world):
    fake_world(2)
    before = dict(torchs.traceable_collective_remaps)

    def call(x):
        y = x * 1
        dist.broadcast(y, 0)
        return y

    compiled = torch.compile(call, fullgraph=True, backend="eager")
    with pytest.raises(Unsupported):
        compiled(torch.ones(2))
    torch._dynamo.reset()
    with fc.remapped():
        compiled(torch.ones(2))
        assert torchs.traceable_collective_remaps != before
    assert torchs.traceable_collective_remaps == before
    assert not [fn for fn in TABLE.values() if hasattr(torchs, fn.__name__)]
    with pytest.raises(Unsupported):
        compiled(torch.ones(2))


def test_a_mistake_is_told_in_our_words(fake_world):
    fake_world(2)
    mistakes = {
        "got size 3 in dim 0": lambda x: dist.reduce_scatter_tensor(torch.empty(1), x),
        "an output of shape (5,)": lambda x: dist.all_gather_into_tensor(torch.empty(5), x),
        "rank 7 and group rank None": lambda x: dist.broadcast(x * 1, 7),
        "1 tensors": lambda x: dist.all_gather([x * 1], x),
    }
    for words, call in mistakes.items():
        torch._dynamo.reset()
        with fc.remapped(), pytest.raises(Unsupported) as caught:
            torch.compile(call, fullgraph=True, backend="eager")(torch.ones(3))
        assert words.replace("got ", "") in str(caught.value)


def _waits_for_async_op(group):
    import torch.distributed as dist

    import functional_collectives as fc

    def finish(x):
        return fc.wait_tensor(x) * 2

    with fc.allow_inflight_collective_as_graph_input_ctx():
        x = torch.ones(1 << 22) * (group.rank + 1)  # so large that it is not there at once
        dist.all_reduce(x, async_op=True)
        y = torch.compile(finish, fullgraph=True, backend="aot_eager")(x)
    inside = torch._C._distributed_c10d._allow_inflight_collective_as_graph_input()
    return y.unique().tolist(), inside


@pytest.mark.world(1, 3)
def test_compiled_code_waits_for_what_torch_distributed_started(world):
    total = world.size * (world.size + 1)
    assert world.run(_waits_for_async_op) == [([float(total)], False)] * world.size
