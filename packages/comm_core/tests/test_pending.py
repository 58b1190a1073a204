from __future__ import annotations

import concurrent.futures
import sys
import threading

import pytest
import torch

from comm_core.callsite import caller, place
from comm_core.errors import ArgumentError, MismatchError, TransportError, UnwaitedWarning
from comm_core.pending import Pending, note


class Work:
    """Counts its waits, and fails at each of them if it is given an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.waits = 0
        self.error = error

    def wait(self) -> object:
        self.waits += 1
        if self.error is not None:
            raise self.error
        return True


def test_waiting_waits_once_and_then_gives_the_same_tensor() -> None:
    work, buffer = Work(), torch.ones(2)
    pending = Pending(buffer, work)
    assert not pending.done
    assert pending.wait() is buffer
    assert pending.wait() is buffer
    assert pending.done
    assert work.waits == 1


def test_threads_that_are_first_together_get_one_result() -> None:
    class Together:
        def __init__(self) -> None:
            self.all_here = threading.Barrier(4)

        def wait(self) -> object:
            return self.all_here.wait(60)

    def finish(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 2) * 2  # of what is finished already it would be 4

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            for _ in range(200):
                x = torch.ones(4)
                pending = Pending(torch.ones(4), Together()).then(finish, (2, 2))
                pending.sends(x)
                results = [thread.result() for thread in [threads.submit(pending.wait) for _ in range(4)]]
                assert all(result is results[0] for result in results)
                assert results[0].tolist() == [[2.0, 2.0]] * 2
    finally:
        sys.setswitchinterval(before)


def test_without_work_it_is_done() -> None:
    buffer = torch.ones(2)
    assert Pending(buffer).done
    assert Pending(buffer).wait() is buffer
    assert Pending(buffer).tensor is buffer


def test_steps_run_once_in_order_after_the_work() -> None:
    work, order = Work(), []

    def first(x: torch.Tensor) -> torch.Tensor:
        order.append(("first", work.waits))
        return x.reshape(4)

    def second(x: torch.Tensor) -> torch.Tensor:
        order.append(("second", tuple(x.shape)))
        return x[:3] * 2

    pending = Pending(torch.ones(2, 2), work).then(first, (4,)).then(second, (3,))
    assert pending.shape == (3,)
    assert order == []
    result = pending.wait()
    assert result.tolist() == [2.0] * 3
    assert pending.wait() is result
    assert order == [("first", 1), ("second", (4,))]


def test_the_shape_is_known_before_the_wait() -> None:
    assert Pending(torch.ones(2, 3), Work()).shape == (2, 3)


def test_a_failure_of_the_transport_is_said_with_its_first_line() -> None:
    cause = RuntimeError("connection reset\nby peer at line 7")
    pending = Pending(torch.ones(2), Work(cause), what="all_gather")
    with pytest.raises(TransportError, match=r"all_gather: got connection reset .*another rank failed") as caught:
        pending.wait()
    assert caught.value.__cause__ is cause
    assert "line 7" not in str(caught.value)


def test_an_empty_failure_is_an_error_too() -> None:
    with pytest.raises(TransportError):
        Pending(torch.ones(2), Work(RuntimeError(""))).wait()


def test_an_error_of_ours_comes_through_as_it_is() -> None:
    ours = MismatchError("all_reduce", got="two calls")
    with pytest.raises(MismatchError) as caught:
        Pending(torch.ones(2), Work(ours)).wait()
    assert caught.value is ours


def test_after_a_failed_wait_nobody_gets_the_unfinished_buffer() -> None:
    pending = Pending(torch.ones(2), Work(RuntimeError("reset")))
    for _ in range(2):
        with pytest.raises(TransportError):
            pending.wait()
        assert not pending.done


def test_after_a_failed_step_nobody_gets_the_raw_buffer() -> None:
    def step(x: torch.Tensor) -> torch.Tensor:
        raise MemoryError("no room")

    pending = Pending(torch.ones(2), Work()).then(step, (2,))
    for _ in range(2):
        with pytest.raises(MemoryError):
            pending.wait()


def test_an_input_that_was_written_while_it_was_sent_is_refused_each_time() -> None:
    x = torch.ones(2)
    pending = Pending(torch.zeros(2), Work(), keep=x, what="all_gather")
    pending.sends(x)
    x.add_(1)
    for _ in range(2):
        with pytest.raises(ArgumentError, match=r"all_gather: got an input that was written"):
            pending.wait()


def test_an_input_that_was_written_after_the_wait_is_no_matter() -> None:
    x = torch.ones(2)
    pending = Pending(torch.zeros(2), Work(), keep=x)
    pending.sends(x)
    first = pending.wait()
    x.add_(1)
    assert pending.wait() is first


def test_the_input_is_kept_until_the_work_is_done_and_then_let_go() -> None:
    import weakref

    class Kept:
        pass

    kept = Kept()
    alive = weakref.ref(kept)
    pending = Pending(torch.ones(2), Work(), keep=kept)
    del kept
    assert alive() is not None
    pending.wait()
    assert alive() is None


def started(work: Work | None) -> Pending:
    pending = Pending(torch.ones(2), work, what="all_gather")
    note(pending, caller())
    return pending


def test_a_result_dropped_before_its_wait_is_reported_with_the_line_that_started_it() -> None:
    pending = started(Work())
    line = pending.where
    assert line.partition(":")[0] == __file__
    with pytest.warns(UnwaitedWarning, match="all_gather: the result, started at .* was dropped") as seen:
        del pending
    assert line in str(seen[0].message)


def test_code_of_no_module_is_a_place_outside_of_ours() -> None:
    scope = {"caller": caller}
    exec(compile("\nfound = [caller() for _ in range(2)]", "typed in", "exec"), scope)
    assert "__name__" not in scope
    assert [place(one) for one in scope["found"]] == ["typed in:2"] * 2  # type: ignore[attr-defined]


def test_what_was_waited_for_has_failed_or_has_no_work_is_dropped_in_silence() -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        started(None)
        started(Work()).wait()
        Pending(torch.ones(2), Work())  # nobody noted a start: it is not for users
        with pytest.raises(TransportError):
            started(Work(RuntimeError("reset"))).wait()


def test_a_write_to_the_input_names_the_line_of_the_start() -> None:
    x, pending = torch.ones(2), started(Work())
    pending.sends(x)
    x.add_(1)
    with pytest.raises(ArgumentError) as caught:
        pending.wait()
    assert f"after the start at {__file__}:" in str(caught.value)


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64, torch.float8_e5m2, torch.int16])
def test_a_write_to_a_part_that_is_sent_is_told_from_one_beside_it_where_parts_are_watched(
    watched: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pending, "watches_parts", watched)
    for written, seen in ((slice(0, 1), True), (slice(3, 4), True), (slice(4, 8), False)):
        whole = torch.zeros(8).to(dtype)
        pending = Pending(torch.zeros(4), Work(), what="batch_p2p")
        pending.sends(whole[:4])
        whole[written] = torch.ones(1).to(dtype)
        if seen and watched:
            with pytest.raises(ArgumentError, match=r"batch_p2p: got an input that was written"):
                pending.wait()
        else:
            assert pending.wait().tolist() == [0.0] * 4


def test_a_part_that_is_watched_may_hold_nan_or_be_a_single_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pending, "watches_parts", True)
    for of in (torch.full((4,), torch.nan)[1:3], torch.arange(4.0)[2], torch.arange(4.0)[4:]):
        pending = Pending(torch.zeros(2), Work())
        pending.sends(of)
        of.copy_(of.clone())  # the same again
        assert pending.wait().tolist() == [0.0, 0.0]
