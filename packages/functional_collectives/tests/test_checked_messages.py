"""Checked mode of messages: who waits for one hears that its other end refused its call, or which rank is late."""

import pytest
import torch

import functional_collectives as fc
from comm_core.errors import CommError, RankTimeoutError


def refused_messages(group):
    """What the last rank refuses, and how the other end of its messages waits for it."""
    last, x = group.world - 1, torch.ones(3)
    mine = {
        "isend of a list": lambda: fc.isend([1.0], 0, group),
        "isend with a tag below 0": lambda: fc.isend(x, 0, group, -1),
        "irecv into no tensor": lambda: fc.irecv(None, 0, group),
        "a batch of other things": lambda: fc.batch_p2p([x], group),
        "a batch with a wrong op": lambda: fc.batch_p2p([fc.Send(x, 0), fc.Receive("x", 0)], group),
        "a batch with a wrong rank": lambda: fc.batch_p2p([fc.Send(x, 0), fc.Send(x, 99)], group),
        "isend_inplace to nobody": lambda: fc.isend_inplace(x, group=group),
        "irecv_inplace of a list": lambda: fc.irecv_inplace([1.0], 0, group=group),
        "a batch in place of other lists": lambda: fc.batch_p2p_ops_inplace(["isend"], [0, 0], [0], [x], group),
    }
    receives = {
        "irecv into no tensor": lambda tag: fc.isend(torch.ones(1 << 21), last, group, tag),
        "irecv_inplace of a list": lambda tag: fc.isend_inplace(torch.ones(1 << 21), last, tag, group),
    }
    return mine, receives, lambda tag: fc.irecv(torch.empty(3), last, group, tag)


def messages_refused(group):
    said, (mine, receives, receive) = {}, refused_messages(group)
    with fc.checked(timeout_s=30):
        for tag, name in enumerate(mine):
            try:
                if group.rank == group.world - 1:
                    mine[name]()
                elif group.rank == 0:
                    fc.wait_tensor(receives.get(name, receive)(100 + tag))
            except CommError as error:
                said[name] = type(error).__name__, str(error)
            fc.barrier(group)
            if group.rank == group.world - 1:
                fc.wait_tensor(fc.isend(torch.full((3,), float(tag)), 0, group))
            elif group.rank == 0:
                said[name] += (fc.irecv(torch.empty(3), group.world - 1, group)[0].item(),)
    return said


@pytest.mark.world(2, 3, timeout=120.0)
def test_a_refused_message_is_told_to_its_other_end(world):
    first, *_, last = world.run(messages_refused)
    assert first.keys() == last.keys()
    assert len(first) == 9
    for tag, (name, (kind, words, after)) in enumerate(first.items()):
        assert kind == "MismatchError", (name, words)
        assert f"rank {world.size - 1} refused the call: {last[name][1]}, at " in words
        assert "test_checked_messages.py:" in words
        assert after == tag


def late_message(group):
    if group.rank == 0:
        with fc.checked(timeout_s=0.2), pytest.raises(RankTimeoutError) as caught:
            fc.wait_tensor(fc.irecv(torch.empty(2), group.world - 1, group))
        return str(caught.value)


@pytest.mark.world(2, 3)
def test_the_other_end_of_a_late_message_is_named(world):
    words = world.run(late_message)[0]
    assert words.startswith(f"batch_p2p: got no end of the messages with rank {world.size - 1} within 0.2 s")
