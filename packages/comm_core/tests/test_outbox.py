"""Messages that nobody waits for: kept until received, in one thread, and what fails is said once."""

import gc
import os
import subprocess
import sys
import threading
import weakref

import pytest
import torch

from comm_core.errors import TransportError
from comm_core.outbox import Outbox, Sent, finished
from comm_core.pending import Pending


class Received:
    """A work that ends when it is told to, well or with an error."""

    def __init__(self):
        self.told, self.error = threading.Event(), None

    def wait(self):
        self.told.wait(30.0)
        if self.error is not None:
            raise self.error


def sent(work, group="a", keep=None):
    return Sent(torch.empty(0), work, keep, group, f"the transport of {group}")


def test_a_message_is_kept_until_it_is_received_and_no_longer():
    outbox, work, payload = Outbox(), Received(), torch.ones(3)
    kept = weakref.ref(payload)
    outbox.add(sent(work, keep=payload))
    del payload
    gc.collect()
    assert outbox.unreceived(0.0) == ["a"]
    assert kept() is not None
    work.told.set()
    assert outbox.unreceived(30.0) == []
    assert kept() is None


def test_a_failure_is_said_once_by_its_own_transport_and_the_others_go_on():
    outbox, works = Outbox(), [Received() for _ in range(4)]
    for work, group in zip(works, "abac", strict=True):
        outbox.add(sent(work, group))
    works[0].error = RuntimeError("connection closed")
    for work in works[:3]:
        work.told.set()
    left = [outbox.unreceived(0.01) for _ in range(1000) if len(outbox.unreceived(0.0)) > 1]
    assert outbox.unreceived(0.0) == ["c"], left  # which holds nobody up
    assert len(outbox.unsaid()) == 1
    outbox.raise_failed("the transport of b")
    with pytest.raises(TransportError, match=r"a message sent before: connection closed"):
        outbox.raise_failed("the transport of a")
    outbox.raise_failed("the transport of a")
    assert outbox.unsaid() == []
    works[3].told.set()
    assert outbox.unreceived(30.0) == []


def test_only_what_is_sent_is_left_to_the_thread():
    assert finished(Pending(torch.ones(2))).tolist() == [1.0, 1.0]
    before = threading.active_count()
    assert finished(sent(None)).numel() == 0
    assert threading.active_count() == before


AT_EXIT = """
import sys, time, torch
from comm_core import outbox
from comm_core.errors import TransportError

class Never:
    def wait(self):
        import threading
        threading.Event().wait()

class Fails:
    def wait(self):
        raise TransportError("batch_p2p", "rank 1, which is gone")

outbox.AT_EXIT_S = float(sys.argv[1])
for work in (Never(), Fails()):
    outbox.finished(outbox.Sent(torch.empty(0), work, None, "7", "a transport"))
while len(outbox.OUTBOX.unsaid()) == 0:
    pass
if sys.argv[2] == "error":
    raise ValueError
"""


@pytest.mark.parametrize(("limit_s", "ends"), [("0", "well"), ("1000", "error")])
def test_a_program_that_ends_before_a_message_is_received_says_so_and_ends(limit_s, ends):
    """After an error at once: others may wait for this rank to end."""
    words = [sys.executable, "-c", AT_EXIT, limit_s, ends]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (ends == "error")
    assert "a message on group 7 has not been received; batch_p2p: got rank 1, which is gone" in done.stderr


def test_a_forked_process_has_none_of_its_parents_messages():
    from comm_core.outbox import OUTBOX

    work = Received()
    OUTBOX.add(sent(work))
    child = os.fork()
    if child == 0:
        own = Received()
        own.told.set()
        before = OUTBOX.unreceived(0.0)
        OUTBOX.add(sent(own))
        os._exit(0 if before == [] and OUTBOX.unreceived(30.0) == [] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert OUTBOX.unreceived(0.0) == ["a"]
    work.told.set()
    assert OUTBOX.unreceived(30.0) == []
