"""Where the system gives no further thread, what would be started says so, and the group goes on."""

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import CommError, TransportError

pytestmark = [pytest.mark.needs_shm, pytest.mark.world(1, 2, backend="shm")]


class NoThread:
    """The C core, in a process that gets no further thread."""

    def __init__(self, native):
        self.native = native

    def __getattr__(self, name):
        if name in ("launch", "launch_late", "post", "tell", "refuse"):
            return self._none
        return getattr(self.native, name)

    def _none(self, *given):
        raise BlockingIOError(11, "Resource temporarily unavailable")


def attempt(call):
    try:
        call()
    except CommError as error:
        return type(error), str(error)
    return None, ""


def test_a_call_that_is_started_says_that_there_is_no_thread_and_can_be_made_again(world):
    def body(group):
        x, pg = torch.ones(3), dist.group.WORLD
        work = dist.all_reduce(x, async_op=True)
        calls = {
            "all_reduce": lambda: dist.all_reduce(x, async_op=True).wait(),
            "send": lambda: pg.send([x], group.rank, 0).wait(),
            "recv": lambda: pg.recv([x], group.rank, 0).wait(),
        }
        native, pg._native = pg._native, NoThread(pg._native)
        try:
            told = {name: attempt(call) for name, call in calls.items()}
            own = attempt(lambda: dist.all_gather_into_tensor(torch.ones(1), x, async_op=True))
        finally:
            pg._native = native
        work.wait()
        return told, own, attempt(calls["all_reduce"]), x.tolist()

    for told, own, again, x in world.run(body):
        for name, (kind, said) in told.items():
            assert kind is TransportError, name
            assert said.startswith(f"{name}: got no thread to finish what is started: ")
            assert "pids.max" in said
        assert "need an output of" in own[1]
        assert again == (None, "")
        assert x == [float(world.size) ** 2] * 3
