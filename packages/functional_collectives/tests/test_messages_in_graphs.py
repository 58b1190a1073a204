"""Messages of compiled code: sent without waiting for who receives, kept until received, and what fails is said."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import functional_collectives as fc
from comm_core.testing import RankPool, RanksFailedError, run_ranks


def _rings(group, backend):
    """A ring of an `isend` and an `irecv`, forward and backward, against the same in eager code."""
    right, left = (group.rank + 1) % group.world, (group.rank - 1) % group.world

    def ring(x):
        receipt = fc.isend(x * 2, right, group)
        y = fc.irecv(x, left, group)
        return (y * torch.arange(1.0, 4.0) * (group.rank + 1)).sum() + receipt.sum()

    found = []
    for call in (ring, torch.compile(ring, fullgraph=True, backend=backend)):
        for turn in range(3):
            x = (torch.arange(3.0) + 10 * group.rank + turn).requires_grad_()
            loss = call(x)
            loss.backward()
            found.append((loss.item(), x.grad.tolist()))
    return found[:3], found[3:]


@pytest.mark.world(2, 3, timeout=60.0)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_ring_that_sends_before_it_receives_is_no_deadlock(world, backend):
    for eager, compiled in world.run(_rings, backend):
        assert compiled == eager


def _received_first(group):
    """Rings that receive first; the second has a view of what arrives when it sends."""
    right, left = (group.rank + 1) % group.world, (group.rank - 1) % group.world
    found = []
    for early in (False, True):
        x = (torch.arange(3.0) + group.rank).requires_grad_()
        y = fc.irecv(x, left, group)
        part = y.view(-1, 1) if early else y  # which waits for nothing
        receipts = [fc.isend(x * 2, right, group), fc.isend(x * 3, right, group)]
        z = fc.irecv(x, left, group)
        (5 * part.sum() + 7 * z.sum() + sum(map(torch.sum, receipts))).backward()
        found.append((y.tolist(), z.tolist(), x.grad.tolist()))
    return found


@pytest.mark.world(2, 3, timeout=30.0)
def test_backward_of_a_ring_that_receives_first_sends_before_it_waits(world):
    for rank, found in enumerate(world.run(_received_first)):
        at = torch.arange(3.0) + (rank - 1) % world.size
        assert found == [((at * 2).tolist(), (at * 3).tolist(), [2 * 5.0 + 3 * 7.0] * 3)] * 2


def _many_first(group):
    """The receive is the oldest node, and there are more messages; in a thread that has made no node before."""
    other = 1 - group.rank
    x = torch.arange(3.0).requires_grad_()
    y = fc.irecv(x, other, group, 99)
    receipts = [fc.isend(x * (tag + 1), other, group, tag if tag < 40 else 99) for tag in range(41)]
    z = [fc.irecv(x, other, group, tag) for tag in range(40)]
    (5 * y.sum() + sum(map(torch.sum, receipts)) + sum(map(torch.sum, z))).backward()
    return x.grad.tolist()


def _in_two_threads(group):
    with ThreadPoolExecutor(1) as pool:
        return [pool.submit(_many_first, group).result(), _many_first(group)]


@pytest.mark.world(2, timeout=30.0)
def test_waits_come_last_however_many_messages_there_are(world):
    assert world.run(_in_two_threads) == [[[5.0 * 41 + sum(range(1, 41))] * 3] * 2] * 2


def _mixed_kinds(group, compiled):
    """A batch that sends and receives, then one more message of the same tag."""
    other, like = 1 - group.rank, torch.zeros(3, requires_grad=True)
    x, w = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)

    def body(x, w, like):
        sent, y = fc.batch_p2p([fc.Send(x, other), fc.Receive(like, other)], group)
        if group.rank == 0:
            return sent.sum() + y.sum() + fc.isend(w, other, group).sum()
        z = fc.irecv(like, other, group)
        return sent.sum() + 5 * y.sum() + 7 * z.sum()

    call = torch.compile(body, fullgraph=True, backend="aot_eager") if compiled == group.rank else body
    call(x, w, like).backward()
    return x.grad.tolist(), None if w.grad is None else w.grad.tolist()


@pytest.mark.world(2, timeout=60.0)
@pytest.mark.parametrize("compiled", [None, 0, 1])
def test_what_comes_back_belongs_to_the_message_that_was_sent(world, compiled):
    first, second = world.run(_mixed_kinds, compiled)
    assert first == ([5.0] * 3, [7.0] * 3)
    assert second[0] == [1.0] * 3


def _of_one_tag(group, batched, compiled):
    """Two messages of one tag: one rank names them in a batch, the other one by one; then the gradient's gradient."""
    other, sends = 1 - group.rank, group.rank == 0

    def body(one, two):
        if group.rank == batched:
            kind = fc.Send if sends else fc.Receive
            return fc.batch_p2p([kind(one, other), kind(two, other)], group)
        return [fc.isend(x, other, group) if sends else fc.irecv(x, other, group) for x in (one, two)]

    call = torch.compile(body, fullgraph=True, backend="aot_eager") if compiled else body
    one, two = (torch.tensor([number], requires_grad=True) for number in (2.0, 3.0))
    first, second = call(one, two)
    loss = (first.sum() + second.sum()) if sends else (5 * first**2 + 7 * second**3).sum()
    grads = torch.autograd.grad(loss, (one, two), create_graph=not compiled)
    if compiled:
        return [grad.tolist() for grad in grads]
    # what rank 1 has sent back is 10 a and 21 b**2; the loss of its gradient is zero and brings the messages with it
    further = torch.autograd.grad(sum(100 * grad.sum() for grad in grads), (one, two))
    return [grad.tolist() for grad in (*grads, *further)]


@pytest.mark.world(2, timeout=60.0)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("batched", [0, 1, None])
def test_a_batch_of_one_tag_gives_each_message_its_own_gradient(world, batched, compiled):
    first, second = world.run(_of_one_tag, batched, compiled)
    assert first == [[10 * 2.0], [21 * 9.0], [10 * 100.0], [42 * 3.0 * 100.0]][: 2 if compiled else 4]
    assert second[:2] == [[0.0], [0.0]]


def _clipped(group):
    """The gradient of what was received is scaled in place before the sender asks for it."""
    import torch.distributed as dist

    store = dist.distributed_c10d._get_default_store()
    if group.rank == 0:
        x = torch.zeros(1 << 20, requires_grad=True)
        receipt = fc.wait_tensor(fc.isend(x, 1, group))
        store.get("rank 1 has clipped")
        receipt.sum().backward()
        return x.grad.unique().tolist()
    bias = torch.zeros(1 << 20, requires_grad=True)
    y = fc.irecv(torch.zeros(1 << 20, requires_grad=True), 0, group)
    ((y + bias) * 4).sum().backward()
    torch.nn.utils.clip_grad_norm_([bias], 1.0)
    store.set("rank 1 has clipped", "1")
    return bias.grad.unique().tolist()


@pytest.mark.parametrize("backend", ["gloo", "shm"])
def test_a_gradient_under_way_is_a_copy(backend):
    first, second = run_ranks(_clipped, 2, backend=backend, timeout=60.0)
    assert first == [4.0]
    assert second[0] < 0.01


def _large(group):
    """Both ranks send what no buffer on the way holds, write over it, and receive."""
    other = 1 - group.rank

    def swap(x):
        fc.isend(x, other, group)
        fc.isend(x + 1, other, group, 5)
        x.zero_()
        second = fc.irecv(torch.empty_like(x), other, group, 5)
        return fc.irecv(torch.empty_like(x), other, group), second

    one, two = torch.compile(swap, fullgraph=True, backend="aot_eager")(torch.full((1 << 21,), float(group.rank)))
    return [float(x.min()) for x in (one, two)] + [float(x.max()) for x in (one, two)]


@pytest.mark.world(2, timeout=60.0)
def test_what_was_sent_may_be_written(world):
    assert world.run(_large) == [[1.0, 2.0, 1.0, 2.0], [0.0, 1.0, 0.0, 1.0]]


def _sender_leaves(group):
    """Rank 0 sends and destroys its groups; rank 1 receives when that is done, or under way: shm waits for it there."""
    import torch.distributed as dist

    store = dist.distributed_c10d._get_default_store()
    if group.rank == 0:
        torch.compile(lambda x: fc.isend(x, 1, group), fullgraph=True, backend="aot_eager")(torch.arange(1 << 21))
        steps = [dist.destroy_process_group, lambda: store.set("rank 0 leaves", "1")]
        for step in steps[:: 1 if group.backend == "gloo" else -1]:
            step()
        return None
    store.get("rank 0 leaves")
    return int(fc.irecv(torch.empty(1 << 21, dtype=torch.int64), 0, group)[-1])


@pytest.mark.parametrize("backend", ["gloo", "shm"])
def test_a_message_is_received_after_its_sender_has_destroyed_the_group(backend):
    assert run_ranks(_sender_leaves, 2, backend=backend, timeout=60.0) == [None, (1 << 21) - 1]


def _receiver_ends(group):
    """Rank 1 ends when rank 0 has sent to it; what failed is said by the next message, once."""
    import os

    import torch.distributed as dist

    from comm_core.errors import CommError
    from comm_core.outbox import OUTBOX

    store = dist.distributed_c10d._get_default_store()
    if group.rank == 1:
        store.get("rank 0 has sent")
        os._exit(3)
    of_others = OUTBOX.unsaid()  # what another test's group in this process has not said
    send = torch.compile(lambda x: fc.isend(x, 1, group), fullgraph=True, backend="aot_eager")
    send(torch.ones(1 << 21))
    store.set("rank 0 has sent", "1")
    told = OUTBOX.unreceived(within_s=30.0) == [] and len(OUTBOX.unsaid()) == len(of_others) + 1
    try:
        send(torch.ones(1))
    except CommError as error:
        left = [each for each in OUTBOX.unsaid() if each not in of_others]
        raise AssertionError(f"{told} {left} {error}") from None


@pytest.mark.parametrize("backend", ["gloo", "shm"])
def test_what_failed_is_said_by_the_next_message(backend):
    with RankPool(grace=60.0) as pool, pytest.raises(RanksFailedError) as caught:  # a rank that compiles may take long
        pool.run(_receiver_ends, 2, backend=backend, timeout=60.0)
    words = str(caught.value.errors[0])
    assert "AssertionError: True [] " in words
    assert "a message sent before: " in words
