"""Checked mode of messages: who waits for one hears that its other end refused its call, or which rank is late."""

import threading

import pytest
import torch

import functional_collectives as fc
from comm_core import checking
from comm_core.errors import CommError, RankTimeoutError
from comm_core.notices import End, Notices, Watched


def refused_messages(group, tag):
    """What the last rank refuses, and how the other end of its messages waits for it."""
    last, x = group.world - 1, torch.ones(3)
    mine = {
        "isend of a list": lambda: fc.isend([1.0], 0, group, tag),
        "isend with a tag below 0": lambda: fc.isend(x, 0, group, -1),
        "irecv into no tensor": lambda: fc.irecv(None, 0, group, tag),
        "a batch of other things": lambda: fc.batch_p2p([x, fc.Send(x, 0, tag)], group),
        "a batch with a wrong op": lambda: fc.batch_p2p([fc.Send(x, 0, tag), fc.Receive("x", 0)], group),
        "a batch with a wrong rank": lambda: fc.batch_p2p([fc.Send(x, 0, tag), fc.Send(x, 99)], group),
        "isend_inplace of a list": lambda: fc.isend_inplace([1.0], 0, tag, group),
        "irecv_inplace of a list": lambda: fc.irecv_inplace([1.0], 0, tag, group),
        "a batch in place of a list": lambda: fc.batch_p2p_ops_inplace(["isend"], [0], [tag], [[1.0]], group),
    }
    receives = {
        "irecv into no tensor": lambda: fc.isend(torch.ones(1 << 21), last, group, tag),
        "irecv_inplace of a list": lambda: fc.isend_inplace(torch.ones(1 << 21), last, tag, group),
    }
    return mine, receives, lambda: fc.irecv(torch.empty(3), last, group, tag)


def messages_refused(group):
    said, names = {}, list(refused_messages(group, 0)[0])
    with fc.checked(timeout_s=30):
        for place, name in enumerate(names):
            mine, receives, receive = refused_messages(group, 100 + place)
            try:
                if group.rank == group.world - 1:
                    mine[name]()
                elif group.rank == 0:
                    fc.wait_tensor(receives.get(name, receive)())
            except CommError as error:
                said[name] = type(error).__name__, str(error)
            fc.barrier(group)
            if group.rank == group.world - 1:
                fc.wait_tensor(fc.isend(torch.full((3,), float(place)), 0, group))
            elif group.rank == 0:
                said[name] += (fc.irecv(torch.empty(3), group.world - 1, group)[0].item(),)
    return said


@pytest.mark.world(2, 3, timeout=120.0)
def test_a_refused_message_is_told_to_its_other_end(world):
    first, *_, last = world.run(messages_refused)
    assert first.keys() == last.keys()
    assert len(first) == 9
    for place, (name, (kind, words, after)) in enumerate(first.items()):
        assert kind == "MismatchError", (name, words)
        assert f"rank {world.size - 1} refused the call: {last[name][1]}, at " in words
        assert "test_checked_messages.py:" in words
        assert after == place


def innocent(group):
    """Rank 1 refuses a receive from rank 0 and a send to it, then sends to rank 2, and to rank 0 with another tag."""
    import torch.distributed as dist

    store = dist.distributed_c10d._get_default_store()
    with fc.checked(timeout_s=30):
        if group.rank == 1:
            for call in (lambda: fc.irecv([1.0], 0, group, 7), lambda: fc.isend([1.0], 0, group, 8)):
                with pytest.raises(CommError):
                    call()
            store.wait(["looked 0", "looked 2"])
            return [fc.wait_tensor(fc.isend(torch.ones(3), to, group, 7)).numel() for to in (0, 2)]
        result = fc.irecv(torch.empty(3), 1, group, 7)
        notices = checking._notices(group)
        seen = [notices.take(End(1, True, 7)), notices.take(End(1, True, 9))]
        store.set(f"looked {group.rank}", "1")
        return seen, result.tolist()


@pytest.mark.world(3)
def test_a_notice_is_for_one_message(world):
    assert world.run(innocent) == [(["", ""], [1.0] * 3), [0, 0], (["", ""], [1.0] * 3)]


def waited_for_twice(group):
    """The second time the same error comes at once, and no other thread waits."""
    if group.rank == 0:
        with fc.checked(timeout_s=0.2):
            result = fc.irecv(torch.empty(2), 1, group)
        said = []
        for _ in range(2):
            before = threading.active_count()
            with pytest.raises(RankTimeoutError) as caught:
                fc.wait_tensor(result)
            said.append((str(caught.value), threading.active_count() - before))
        return said[0][0] == said[1][0], said[1][1]


@pytest.mark.world(2)
def test_a_second_wait_has_the_error_of_the_first(world):
    assert world.run(waited_for_twice)[0] == (True, 0)


class Gone:
    """A store whose rank has ended."""

    def set(self, *_):
        raise torch.distributed.DistNetworkError("gone")

    get = check = set


def test_a_message_goes_on_where_the_store_is_gone():
    told = threading.Event()
    notices, end = Notices(0, Gone()), End(1, True, 0)
    notices.leave([end], "words")
    notices.withdraw([end])
    assert notices.take(end) == ""
    watched = Watched(told, notices, [end], 30.0)
    threading.Timer(0.05, told.set).start()
    watched.wait()


def late_message(group):
    if group.rank == 0:
        with fc.checked(timeout_s=0.2), pytest.raises(RankTimeoutError) as caught:
            fc.wait_tensor(fc.irecv(torch.empty(2), group.world - 1, group))
        return str(caught.value)


@pytest.mark.world(2, 3)
def test_the_other_end_of_a_late_message_is_named(world):
    words = world.run(late_message)[0]
    assert words.startswith(f"batch_p2p: got no end of the messages with rank {world.size - 1} within 0.2 s")
