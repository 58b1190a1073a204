"""Calls of torch.distributed inside compiled code that are started and waited for later, and those with a root."""

import pytest
import torch
import torch.distributed as dist
from torch._dynamo.exc import Unsupported

import functional_collectives as fc

BACKENDS = ("eager", "aot_eager", "inductor")


def _calls(group):
    """Each call as a function of a (2 * world, 3) tensor, which returns its work and what that writes."""
    n, r, pg = group.world, group.rank, group.process_group
    sizes = [1 + (r + i) % 2 for i in range(n)]
    last = n - 1
    new = torch.zeros

    def into(make, call):
        def started(x, **words):
            outs = make(x)
            return call(outs, x * 2, **words), outs

        return started

    def on(call):
        def started(x, **words):
            y = x * 2
            return call(y, **words), y

        return started

    def rows(x):
        return [new(2, 3) for _ in range(n)]

    def listed(x):
        return list(x.chunk(n)) if r == last else None

    return {
        "all_reduce": on(dist.all_reduce),
        "all_reduce avg": on(lambda y, **w: dist.all_reduce(y, dist.ReduceOp.AVG, pg, **w)),
        "all_reduce max": on(lambda y, **w: dist.all_reduce(y, op=dist.ReduceOp.MAX, **w)),
        "reduce": on(lambda y, **w: dist.reduce(y, last, **w)),
        "reduce max": on(lambda y, **w: dist.reduce(y, op=dist.ReduceOp.MAX, group=pg, group_dst=0, **w)),
        "broadcast": on(lambda y, **w: dist.broadcast(y, last, **w)),
        "barrier": on(lambda y, **w: dist.barrier(**w)),
        "gather": into(
            lambda x: rows(x) if r == last else None, lambda out, x, **w: dist.gather(x[:2], out, last, **w)
        ),
        "gather, root 0": into(
            lambda x: rows(x) if r == 0 else None, lambda out, x, **w: dist.gather(x[2 * r : 2 * r + 2], out, **w)
        ),
        "scatter": into(lambda x: new(2, 3), lambda out, x, **w: dist.scatter(out, listed(x), last, pg, **w)),
        "scatter, place in the group": into(
            lambda x: new(2, 3), lambda out, x, **w: dist.scatter(out, listed(x), group=pg, group_src=last, **w)
        ),
        "all_gather": into(lambda x: [new(2 * n, 3) for _ in range(n)], dist.all_gather),
        "all_gather_into_tensor": into(lambda x: new(2 * n * n, 3), dist.all_gather_into_tensor),
        "reduce_scatter": into(
            lambda x: new(2, 3), lambda out, x, **w: dist.reduce_scatter(out, list(x.chunk(n)), **w)
        ),
        "reduce_scatter_tensor": into(lambda x: new(2, 3), dist.reduce_scatter_tensor),
        "all_to_all_single": into(lambda x: new(2 * n, 3), dist.all_to_all_single),
        "all_to_all_single, splits": into(
            lambda x: new(sum(sizes), 3),
            lambda o, x, **w: dist.all_to_all_single(o, x[: sum(sizes)], sizes, sizes, **w),
        ),
    }


def _row(outs):
    return torch.cat([torch.zeros(0), *(x.reshape(-1) for x in outs)]) if not isinstance(outs, torch.Tensor) else outs


def _ran(group, backend):
    """The names of the calls that do not write, compiled, what they write in eager code: ended at once, and later."""
    import functional_collectives as fc

    calls = _calls(group)
    defined = {"reduce": group.world - 1, "reduce max": 0}  # of the others' tensors c10d says nothing

    def ended(x):
        results = []
        for call in calls.values():
            _, outs = call(x)
            results.append(_row(() if outs is None else outs))
        return results

    def later(x):
        started = [call(x, async_op=True) for call in calls.values()]
        y = x * 3
        for work, _ in reversed(started):
            assert work.wait()
            assert work.wait()
        return [_row(() if outs is None else outs) for _, outs in started], y

    x = torch.arange(6.0 * group.world).view(-1, 3) + 100 * group.rank
    eager = ended(x)
    torch.compiler.reset()
    with fc.remapped():
        first = torch.compile(ended, fullgraph=True, backend=backend)(x)
        second, y = torch.compile(later, fullgraph=True, backend=backend)(x)
    wrong = [] if torch.equal(y, x * 3) else ["what stands between"]
    for name, want, *got in zip(calls, eager, first, second, strict=True):
        if defined.get(name, group.rank) != group.rank:
            want = x * 2
        wrong += [name for one in got if not torch.equal(one, want)]
    return wrong


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.world(1, 2, 3, timeout=300.0)
def test_a_call_writes_what_it_writes_in_eager_code_ended_at_once_or_later(world, backend):
    assert world.run(_ran, backend) == [[]] * world.size


def _gradients(group):
    """A call that is ended later has the gradient of one ended at once; reduce and max have those of the functions."""
    import functional_collectives as fc

    calls = _calls(group)
    wrong = []
    for name in (
        "all_reduce",
        "all_reduce avg",
        "all_reduce max",
        "reduce",
        "reduce_scatter_tensor",
        "all_to_all_single",
    ):
        grads = []
        for later in (False, True):

            def loss(x, call=calls[name], later=later):
                work, y = call(x, async_op=True) if later else call(x)
                if later:
                    work.wait()
                return (y * y * (group.rank + 1)).sum()

            torch.compiler.reset()
            x = (torch.arange(6.0 * group.world).view(-1, 3) + group.rank).requires_grad_()
            with fc.remapped():
                torch.compile(loss, fullgraph=True, backend="aot_eager")(x).backward()
            grads.append(x.grad)
        if name == "reduce":
            x = (torch.arange(6.0 * group.world).view(-1, 3) + group.rank).requires_grad_()
            total = fc.reduce(x * 2, "sum", group.world - 1, group)
            y = total if group.rank == group.world - 1 else x * 2 + total
            (y * y * (group.rank + 1)).sum().backward()
            grads.append(x.grad)
        if name == "all_reduce max":
            x = (torch.arange(6.0 * group.world).view(-1, 3) + group.rank).requires_grad_()
            y = fc.all_reduce(x * 2, "max", group)
            (y * y * (group.rank + 1)).sum().backward()
            grads.append(x.grad)
        held = name != "all_reduce max" or group.rank == group.world - 1  # who holds the largest
        wrong += [name for grad in grads if not torch.equal(grad, grads[0]) or grad.any() != held]
    return wrong


@pytest.mark.world(1, 3, timeout=120.0)
def test_gradients_are_alike_ended_at_once_or_later(world):
    assert world.run(_gradients) == [[]] * world.size


def _both_under_way(group):
    """Two calls on two groups that ranks wait for in different orders, and a message between them."""
    import functional_collectives as fc

    other = dist.new_group(list(range(group.world)))

    def call(x, out):
        first, second = dist.all_reduce(x, async_op=True), dist.reduce(out, 0, group=other, async_op=True)
        works = [first, second] if group.rank else [second, first]
        for work in works:
            work.wait()
        return x

    with fc.remapped():
        x, out = torch.ones(2), torch.ones(2)
        y = torch.compile(call, fullgraph=True, backend="aot_eager")(x, out)
    return y.tolist(), x.tolist(), out.tolist()


@pytest.mark.world(1, 3, timeout=120.0)
def test_works_may_be_waited_for_in_any_order(world):
    n = float(world.size)
    assert world.run(_both_under_way) == [([n, n], [n, n], [1.0 if rank else n] * 2) for rank in range(world.size)]


def test_the_ops_stand_where_they_are_started_and_the_waits_where_they_are_waited_for(fake_world):
    fake_world(2)
    ops = []

    def backend(graph, inputs):
        ops.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    def call(x):
        y = x * 2
        work = dist.all_reduce(y, async_op=True)
        z = x + 3
        work.wait()
        return y, z

    with fc.remapped():
        torch.compile(call, fullgraph=True, backend=backend)(torch.ones(2))
    places = [
        next(i for i, op in enumerate(ops) if word in op) for word in ("all_reduce", "built-in function add", "wait")
    ]
    assert places == sorted(places)


def test_a_work_may_leave_the_graph(fake_world):
    fake_world(2)

    def start(x):
        y = x * 2
        return dist.broadcast(y, 0, async_op=True), y

    with fc.remapped():
        work, y = torch.compile(start, fullgraph=True, backend="eager")(torch.ones(2))
    assert work.wait()
    assert y.tolist() == [2.0, 2.0]


def test_a_mistake_with_a_root_is_told_in_our_words(fake_world):
    fake_world(2)
    mistakes = {
        "no gather_list on the destination": lambda x: dist.gather(x * 1, None, 0),
        "a gather_list on another rank than the destination": lambda x: dist.gather(x * 1, [x, x], 1),
        "1 tensors": lambda x: dist.gather(x * 1, [x * 1], 0),
        "no scatter_list on the source": lambda x: dist.scatter(x * 1),
        "a scatter_list on another rank than the source": lambda x: dist.scatter(x * 1, [x, x], 1),
        "an output of shape (2,)": lambda x: dist.scatter(x * 1, [x, x[:2]], 0),
        "rank None and group rank None": lambda x: dist.reduce(x * 1),
        "rank 5 and group rank None": lambda x: dist.reduce(x * 1, 5),
    }
    for words, call in mistakes.items():
        torch._dynamo.reset()
        with fc.remapped(), pytest.raises(Unsupported) as caught:
            torch.compile(call, fullgraph=True, backend="eager")(torch.ones(3))
        assert words in str(caught.value)


def test_outside_torch_breaks_the_graph_at_a_call_that_is_started(fake_world):
    fake_world(2)

    def call(x):
        dist.all_reduce(x, async_op=True)
        return x

    with fc.remapped():
        pass
    with pytest.raises(Unsupported, match="async_op=True"):
        torch.compile(call, fullgraph=True, backend="eager")(torch.ones(2))
