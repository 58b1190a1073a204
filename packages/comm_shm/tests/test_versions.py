"""What a call writes, autograd knows to have been written: what it had saved of it is refused in backward."""

import pytest
import torch
import torch.distributed as dist

pytestmark = [pytest.mark.needs_shm, pytest.mark.world(1, 2, 3, backend="shm")]


def calls(me, n):
    """By name: tensors that the call writes on this rank, those that it only reads, and the call."""
    last, pg = n - 1, dist.group.WORLD

    def x(*shape):
        return torch.full(shape, me + 1.0)

    found = {}

    def note(name, written, read, call):
        found[name] = written, read, call

    one, root, total, wide = x(3), x(3), x(3), torch.ones(3, 4)[:, ::2]
    note("all_reduce", [one], [], lambda w: dist.all_reduce(one, async_op=w))
    note("all_reduce, strided", [wide], [], lambda w: dist.all_reduce(wide, async_op=w))
    rooted = ([], [root]) if me == last else ([root], [])
    note("broadcast", *rooted, lambda w: dist.broadcast(root, last, async_op=w))
    reduced = ([total], []) if me == last else ([], [total])
    note("reduce", *reduced, lambda w: dist.reduce(total, last, async_op=w))
    whole, part = x(3 * n), x(3)
    note("all_gather_into_tensor", [whole], [part], lambda w: dist.all_gather_into_tensor(whole, part, async_op=w))
    outs, given = [x(3) for _ in range(n)], x(3)
    note("all_gather", outs, [given], lambda w: dist.all_gather(outs, given, async_op=w))
    kept, rows = x(3), x(3 * n)
    note("reduce_scatter_tensor", [kept], [rows], lambda w: dist.reduce_scatter_tensor(kept, rows, async_op=w))
    mine, lists = x(3), [x(3) for _ in range(n)]
    note("reduce_scatter", [mine], lists, lambda w: dist.reduce_scatter(mine, lists, async_op=w))
    came, sent = x(2 * n), x(2 * n)
    note("all_to_all_single", [came], [sent], lambda w: dist.all_to_all_single(came, sent, async_op=w))
    fetched, brought = [x(2) for _ in range(n)], [x(2) for _ in range(n)]
    note("all_to_all", fetched, brought, lambda w: dist.all_to_all(fetched, brought, async_op=w))
    gathered, own = [x(3) for _ in range(n)] if me == last else [], x(3)
    note("gather", gathered, [own], lambda w: dist.gather(own, gathered or None, last, async_op=w))
    got, pieces = x(3), [x(3) for _ in range(n)] if me == last else []
    note("scatter", [got], pieces, lambda w: dist.scatter(got, pieces or None, last, async_op=w))
    both = [x(2), x(3)]
    note("allreduce_coalesced", both, [], lambda w: pg.allreduce_coalesced(both))
    return found


@pytest.mark.parametrize("later", [False, True])
def test_what_is_written_counts_and_what_is_read_does_not(world, later):
    def body(group):
        wrong = []
        for name, (written, read, call) in calls(group.rank, group.world).items():
            before = [x._version for x in (*written, *read)]
            work = call(later)
            if work is not None:
                work.wait()
            after = [x._version for x in (*written, *read)]
            counted = [b > a for a, b in zip(before, after, strict=True)]
            if counted != [True] * len(written) + [False] * len(read):
                wrong.append((name, counted))
        return wrong

    assert world.run(body) == [[]] * world.size


def test_backward_refuses_what_a_call_has_overwritten(world):
    def body(group):
        told = []
        for call in (
            lambda saved: dist.all_gather_into_tensor(saved, torch.ones(3)),
            lambda saved: dist.reduce_scatter_tensor(saved, torch.ones(3 * group.world**2)),
            dist.all_reduce,
            lambda saved: dist.all_reduce(saved, async_op=True).wait(),
        ):
            saved, leaf = torch.ones(3 * group.world), torch.ones(3 * group.world, requires_grad=True)
            product = (saved * leaf).sum()
            call(saved)
            try:
                product.backward()
            except RuntimeError as error:
                told.append("modified by an inplace operation" in str(error))
        return told

    assert world.run(body) == [[True] * 4] * world.size


def test_a_received_message_counts(world):
    def body(group):
        after, before = (group.rank + 1) % group.world, (group.rank - 1) % group.world
        out, x = torch.zeros(3), torch.ones(3)
        for work in (dist.group.WORLD.send([x], after, 0), dist.group.WORLD.recv([out], before, 0)):
            work.wait()
        return out._version > 0, x._version

    assert world.run(body) == [(True, 0)] * world.size


def test_inference_tensors_have_no_count(world):
    def body(group):
        with torch.inference_mode():
            x, whole = torch.ones(3), torch.zeros(3 * group.world)
        dist.all_reduce(x)
        dist.all_gather_into_tensor(whole, x)
        with torch.inference_mode():
            dist.all_reduce(x, async_op=True).wait()
        return x.tolist(), whole.tolist()

    n = float(world.size)
    assert world.run(body) == [([n * n] * 3, [n] * 3 * world.size)] * world.size


def test_symmetric_memory_counts(world):
    def body(group):
        from comm_shm import symmetric

        x, out = symmetric.empty((2 * group.world,), torch.float32).fill_(1.0), torch.zeros(2 * group.world)
        buffer = symmetric.rendezvous(x)
        before = x._version
        buffer.one_shot_all_reduce(out=out)
        buffer.two_shot_all_reduce()
        return out._version, x._version - before

    assert world.run(body) == [(1, 1)] * world.size
