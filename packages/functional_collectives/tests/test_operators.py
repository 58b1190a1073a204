"""Operators on a result in flight: ops of the plain result, which take no way through Python's dispatch."""

import sys

import pytest
import torch

import functional_collectives as fc
from comm_core import Pending, World
from comm_core.errors import TransportError, UnwaitedWarning
from functional_collectives import AsyncCollectiveTensor
from functional_collectives.flight import in_flight


def _operators(x):
    """Every operator of one and of two tensors, with a number and with a tensor on either side."""
    import operator as op

    two = (op.add, op.sub, op.mul, op.truediv, op.floordiv, op.mod, op.pow, op.eq, op.ne, op.lt, op.le, op.gt, op.ge)
    other = torch.tensor([2.0, 3.0])
    results = [f(x, 2.0) for f in two] + [f(x, other) for f in two] + [f(other, x) for f in two]
    results += [2.0 + x, 2.0 - x, 2.0 * x, 2.0 / x, 2.0 // x, 2.0 % x, 2.0**x, x @ other, other @ x, x + x, -x, abs(x)]
    return results


def _in_flight(values):
    return AsyncCollectiveTensor.over_buffer(Pending(values, _Waits()))


class _Waits:
    def wait(self):
        return None


def test_an_operator_is_one_of_the_plain_result_with_no_dispatch_through_python(monkeypatch):
    values = torch.tensor([1.0, 4.0])
    expected = _operators(values)
    dispatched = []
    through = AsyncCollectiveTensor.__torch_dispatch__
    monkeypatch.setattr(
        AsyncCollectiveTensor,
        "__torch_dispatch__",
        classmethod(lambda cls, *args: dispatched.append(args) or through(*args)),
    )
    results = _operators(_in_flight(values.clone()))
    assert len(results) == len(expected)
    assert all(torch.equal(*both) for both in zip(results, expected, strict=True))
    assert {type(one) for one in results} == {torch.Tensor}
    assert dispatched == []  # Python asks the subclass first, also where it stands on the right


def test_an_operator_on_integers_and_bools_waits():
    bits = _in_flight(torch.tensor([5, 6]))
    assert [(bits & 4).tolist(), (bits | 1).tolist(), (bits ^ 3).tolist(), (~bits).tolist()] == [
        [4, 4],
        [5, 7],
        [6, 5],
        [-6, -7],
    ]
    assert [(4 & bits).tolist(), (1 | bits).tolist(), (3 ^ bits).tolist()] == [[4, 4], [5, 7], [6, 5]]
    assert len({bits: 1}) == 1


def test_an_operator_keeps_history_and_tangents():
    x = torch.tensor([2.0], requires_grad=True)
    y = World(1).run(lambda group: fc.all_reduce(x * 3, "sum", group))[0]
    (y * y + 3 - y).backward()
    assert x.grad.item() == (2 * 6 - 1) * 3
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(_in_flight(torch.tensor([2.0])), torch.tensor([1.0]))
        assert torch.autograd.forward_ad.unpack_dual(dual * dual).tangent.item() == 4.0


def test_what_is_gone_failed_or_was_waited_for_is_noted_no_more():
    from comm_core import pending

    class Fails:
        def wait(self):
            raise RuntimeError("reset")

    def noted(one, number):
        pending.note(one, (number, compile("0", "here", "eval"), 0))
        return one

    before = dict(pending._notes)
    kept = noted(Pending(torch.ones(1), _Waits()), -1)
    for _ in range(100):
        noted(Pending(torch.ones(1), _Waits()), -2).wait()
    with pytest.raises(TransportError):
        noted(Pending(torch.ones(1), Fails()), -3).wait()
    with pytest.warns(UnwaitedWarning):
        noted(Pending(torch.ones(1), _Waits()), -4)
    assert pending._notes.keys() - before.keys() == {-1}
    assert [one for one in pending.noted() if one is kept]
    kept.wait()
    assert not [one for one in pending.noted() if one is kept]


def test_who_calls_in_flight_itself_is_who_started_it():
    line = sys._getframe().f_lineno + 1
    y = in_flight(Pending(torch.ones(1), _Waits(), what="of this test"))
    [one] = [one for one in fc.inflight() if one.name == "of this test"]
    y.wait()
    assert one.where == f"{__file__}:{line}"
