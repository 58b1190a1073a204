"""premul_sum: each rank's tensor times its own factor, then the sum; wherever a reduce op is taken."""

import pytest
import torch
import torch.distributed as dist

from comm_core import CATALOG, World, premul_sum, run
from comm_core.errors import CommError, ReduceOpError

PARAMS = {
    "all_reduce": {},
    "reduce_scatter": {"dim": 1},
    "reduce_scatter_v": {"dim": 1, "sizes": [3, 1, 2]},
    "reduce": {"dst": 1},
    "scan": {"reverse": False},
    "exscan": {"reverse": True},
}
REDUCING = sorted(name for name, entry in CATALOG.items() if "reduce_op" in entry.parameters)


def _factors(rank, kind):
    number = 0.5 + rank
    return {"number": number, "tensor": torch.tensor([number], dtype=torch.float64), "int": rank + 2}[kind]


def _op(rank, kind, ours):
    factor = _factors(rank, kind)
    return premul_sum(factor) if ours else dist._make_nccl_premul_sum(factor)


def _leaf(rank):
    return (torch.arange(12.0, dtype=torch.float64).view(2, 6) - 3 * rank).requires_grad_()


def _both(group, name, kind, ours):
    """The premultiplied sum and its gradient, and those of a product and a sum."""
    found = []
    for by_hand in (False, True):
        x = _leaf(group.rank)
        sent, op = (x * _factors(group.rank, kind), "sum") if by_hand else (x, _op(group.rank, kind, ours))
        y = run(CATALOG[name], sent, group, reduce_op=op, **PARAMS[name])
        (y * y * (group.rank + 1)).sum().backward()
        found += [y.detach(), x.grad]
    return torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])


def _everywhere(group):
    return {(name, kind): _both(group, name, kind, True) for name in REDUCING for kind in ("number", "tensor")}


@pytest.mark.parametrize("name", REDUCING)
@pytest.mark.parametrize(("kind", "ours"), [("number", True), ("tensor", True), ("int", True), ("number", False)])
def test_it_is_a_product_and_a_sum(name, kind, ours):
    assert World(3).run(_both, name, kind, ours) == [True] * 3


def test_a_tensor_in_torchs_own_reduce_op():
    assert all(World(3).run(_both, "all_reduce", "tensor", False))


@pytest.mark.world(3)
def test_on_real_ranks(world):
    for found in world.run(_everywhere):
        assert [name for name, right in found.items() if not right] == []


def test_the_factor_has_a_gradient_of_its_own():
    def body(group):
        factor = torch.tensor(2.0 + group.rank, requires_grad=True)
        x = torch.tensor([1.0, 10.0])
        run(CATALOG["all_reduce"], x, group, reduce_op=premul_sum(factor)).sum().backward()
        return factor.grad.item()

    assert World(3).run(body) == [33.0] * 3


def test_dtypes_stay_as_they_are():
    def body(group, dtype):
        factor = torch.tensor(0.5, dtype=torch.float64)
        return run(CATALOG["all_reduce"], torch.ones(2, dtype=dtype), group, reduce_op=premul_sum(factor)).dtype

    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.complex64):
        assert World(2).run(body, dtype) == [dtype] * 2


@pytest.mark.parametrize("factor", ["2", None, True, torch.ones(2), [1.0]])
def test_what_is_no_factor_is_refused(factor):
    with pytest.raises(ReduceOpError, match="a number or a tensor of one element"):
        premul_sum(factor)


@pytest.mark.parametrize("x", [torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.bool), [1.0]])
def test_what_has_no_such_product_is_refused_at_the_call(x):
    def body(group):
        with pytest.raises(CommError) as caught:
            run(CATALOG["all_reduce"], x, group, reduce_op=premul_sum(2.0))
        return caught.value.where

    assert World(2).run(body) == ["all_reduce"] * 2


@pytest.mark.parametrize("factor", [2j, torch.tensor(2j)])
def test_a_complex_factor_is_for_complex_tensors(factor):
    def body(group):
        with pytest.raises(ReduceOpError, match="a complex factor"):
            run(CATALOG["all_reduce"], torch.ones(2), group, reduce_op=premul_sum(factor))
        return run(CATALOG["all_reduce"], torch.ones(2) + 0j, group, reduce_op=premul_sum(factor)).tolist()

    assert World(2).run(body) == [[4j, 4j]] * 2


def test_an_int_that_no_float_holds_is_refused_at_the_call():
    def body(group):
        with pytest.raises(ReduceOpError, match="an int of 1329 bits; need a factor that a float can hold"):
            run(CATALOG["scan"], torch.ones(2), group, reduce_op=premul_sum(10**400), reverse=False)

    World(2).run(body)


def test_the_bare_enumeration_value_says_what_to_pass():
    def body(group):
        with pytest.raises(ReduceOpError, match=r"premul_sum\(factor\)"):
            run(CATALOG["all_reduce"], torch.ones(2), group, reduce_op=dist.ReduceOp.PREMUL_SUM)

    World(1).run(body)


def _compiled(group):
    import torch._dynamo

    torch._dynamo.reset()

    def program(x):
        return run(CATALOG["all_reduce"], x, group, reduce_op=premul_sum(0.25)) * 2

    x = torch.arange(4.0) + group.rank
    return torch.equal(torch.compile(program, fullgraph=True, backend="aot_eager")(x), program(x))


@pytest.mark.world(2)
def test_compiled_equals_eager(world):
    assert world.run(_compiled) == [True, True]
