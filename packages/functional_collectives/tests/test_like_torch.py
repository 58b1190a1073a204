"""Differential: on real gloo ranks, every function gives what torch's own function of that name gives."""

import inspect

import pytest
import torch

import functional_collectives as fc

NOT_HERE: dict[str, str] = {}  # a public name of torch's module, or "name.parameter" of one: why it is missing here


def torchs_functions():
    """What torch's module defines for users: no underscore, and no rule of another function's gradient."""
    import torch.distributed._functional_collectives as torchs

    return {
        name: found
        for name, found in vars(torchs).items()
        if (inspect.isfunction(found) or inspect.isclass(found))
        and found.__module__ == torchs.__name__
        and not name.startswith("_")
        and not name.endswith(("_backward", "_setup_context"))
    }


@pytest.mark.parametrize("name", sorted(torchs_functions()))
def test_every_name_of_torchs_module_is_here_with_its_parameters_in_their_places(name):
    theirs = torchs_functions()[name]
    assert name in fc.__all__ or name in NOT_HERE
    if name in NOT_HERE or inspect.isclass(theirs):
        return
    wanted = [known for known in inspect.signature(theirs).parameters if f"{name}.{known}" not in NOT_HERE]
    ours = inspect.signature(getattr(fc, name)).parameters
    assert [p.name for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD] == wanted
    for known, parameter in inspect.signature(theirs).parameters.items():
        if known in wanted and parameter.default is not parameter.empty:  # a call that is right there is right here
            assert ours[known].default == parameter.default


def test_a_result_in_flight_has_every_public_attribute_of_torchs():
    theirs = torchs_functions()["AsyncCollectiveTensor"]
    known = {name for name in vars(theirs) if not name.startswith("_")} | set(theirs.__annotations__)
    assert known
    assert {name for name in known if not hasattr(fc.AsyncCollectiveTensor, name)} == set()


def test_every_reason_is_of_something_that_is_missing():
    assert not set(NOT_HERE) & {*fc.__all__}


def _compare(group):
    """Run ours and torch's on the same inputs; return the names of the cases that differ."""
    import warnings

    import torch.distributed as dist
    import torch.distributed._functional_collectives as torchs

    import functional_collectives as fc

    warnings.simplefilter("ignore")
    n, r, pg = group.world, group.rank, dist.group.WORLD
    x = torch.arange(12.0 * n * n).view(2 * n, 3, 2 * n) * (r + 1)
    shift = [(i + 1) % n for i in range(n)]
    outs, ins = [i + r for i in range(n)], [r + i for i in range(n)]
    rows = torch.arange(float(sum(ins)) * 2).view(-1, 2) + 100 * r
    cases = {
        **{f"all_reduce {op}": ("all_reduce", x, op) for op in ("sum", "avg", "min", "max", "product")},
        "all_reduce bxor": ("all_reduce", x.long(), "bxor"),
        **{f"all_gather {d}": ("all_gather_tensor", x, d) for d in (0, 1, 2, -1)},
        **{f"reduce_scatter {d}": ("reduce_scatter_tensor", x, "sum", d) for d in (0, 2, -1)},
        "reduce_scatter avg": ("reduce_scatter_tensor", x, "avg", 0),
        "all_to_all even": ("all_to_all_single", x, None, None),
        "all_to_all splits": ("all_to_all_single", rows, outs, ins),
        "broadcast": ("broadcast", x, n - 1),
        "permute": ("permute_tensor", x[:, 0, 0].contiguous(), shift),
        "all_reduce strided": ("all_reduce", x.transpose(0, 2), "sum"),
        "all_gather strided": ("all_gather_tensor", x.transpose(0, 2), 0),
        "all_gather empty": ("all_gather_tensor", x[:0].contiguous(), 0),
    }
    wrong = []
    for case, (name, tensor, *rest) in cases.items():
        ours = fc.wait_tensor(getattr(fc, name)(tensor, *rest, pg))
        theirs = torchs.wait_tensor(getattr(torchs, name)(tensor, *rest, pg))
        same = ours.dtype == theirs.dtype and ours.shape == theirs.shape and torch.equal(ours, theirs)
        if not same or not ours.is_contiguous():
            wrong.append(case)
    return wrong


@pytest.mark.world(1, 2, 3)
def test_values_shapes_and_dtypes_are_torchs(world):
    assert world.run(_compare) == [[]] * world.size


def _gradients(group):
    import warnings

    import torch.distributed as dist
    import torch.distributed._functional_collectives as torchs

    import functional_collectives as fc

    warnings.simplefilter("ignore")
    n, r, pg = group.world, group.rank, dist.group.WORLD
    wrong = []
    for name, *rest in (
        ("all_reduce", "sum"),
        ("all_gather_tensor", 1),
        ("reduce_scatter_tensor", "sum", 1),
        ("all_to_all_single", None, None),
    ):
        x = (torch.arange(8.0 * n * n).view(2 * n, 4 * n) + r).requires_grad_()
        pair = []
        for module in (fc, torchs):
            y = getattr(module, name)(x * 2, *rest, pg)
            pair.append(torch.autograd.grad((y * y * (r + 1)).sum(), x)[0])
        if not torch.equal(*pair):
            wrong.append(name)
    return wrong


@pytest.mark.world(1, 2, 3)
def test_gradients_of_sum_are_torchs(world):
    assert world.run(_gradients) == [[]] * world.size


def _numbers(group):
    """Calls with numpy's integers for ours and torch's, and lists that are none; the names of the cases that differ."""
    import warnings

    import numpy
    import torch.distributed as dist
    import torch.distributed._functional_collectives as torchs

    import functional_collectives as fc

    warnings.simplefilter("ignore")
    n, pg = group.world, dist.group.WORLD
    x = torch.arange(4.0 * n * n).view(2 * n, 2 * n) + group.rank
    one, ones, last = numpy.int64(1), list(numpy.full(n, 2)), numpy.int32(n - 1)
    pairs = {
        "gather_dim": ("all_gather_tensor", (x, one)),
        "scatter_dim": ("reduce_scatter_tensor", (x, "sum", one)),
        "src": ("broadcast", (x, last)),
        "splits": ("all_to_all_single", (x, ones, ones)),
        "destinations": ("permute_tensor", (x[0], list(numpy.roll(numpy.arange(n), 1)))),
    }
    wrong = []
    for case, (name, given) in pairs.items():
        plain = [int(v) if hasattr(v, "dtype") and not torch.is_tensor(v) else v for v in given]
        plain = [list(map(int, v)) if isinstance(v, list) else v for v in plain]
        ours = fc.wait_tensor(getattr(fc, name)(*given, pg))
        theirs = torchs.wait_tensor(getattr(torchs, name)(*plain, pg))
        if not torch.equal(ours, theirs):
            wrong.append(case)
    beyond = {
        "sizes": fc.all_gather_v(x, one, pg, sizes=list(numpy.full(n, 2 * n))),
        "dst": fc.gather(x, numpy.int64(0), 0, pg).sum() + 0 * x.sum(),
        "peer": fc.batch_p2p([fc.Send(x, numpy.int64(group.rank)), fc.Receive(x, numpy.int64(group.rank))], pg)[1],
    }
    if not torch.equal(beyond["sizes"], fc.all_gather_tensor(x, 1, pg)) or not torch.equal(beyond["peer"], x):
        wrong.append("beyond torch")
    for case, call in {
        "a generator": lambda module: module.all_reduce_coalesced((v for v in (x, x + 1)), "sum", pg),
        "a list": lambda module: module.all_reduce_coalesced([x, x + 1], "sum", pg),
    }.items():
        if not all(torch.equal(ours, theirs) for ours, theirs in zip(call(fc), call(torchs), strict=True)):
            wrong.append(case)
    return wrong


@pytest.mark.world(1, 2, 3)
def test_whole_numbers_of_any_kind_and_lists_of_any_kind_are_taken(world):
    assert world.run(_numbers) == [[]] * world.size


def _each_takes_the_others(group):
    """Return where a function, ours or torch's, makes of the other's result in flight not what it makes of a tensor."""
    import torch.distributed as dist
    import torch.distributed._functional_collectives as torchs

    n, pg = group.world, dist.group.WORLD
    right, left, shift = (group.rank + 1) % n, (group.rank - 1) % n, [(rank + 1) % n for rank in range(n)]
    plain = torch.full((n, n), float(n))
    ours = {
        "all_reduce": lambda x: fc.all_reduce(x, "max"),
        "all_reduce by a factor": lambda x: fc.all_reduce(x, fc.premul_sum(2.0)),
        "all_gather": lambda x: fc.all_gather_tensor(x, 1),
        "reduce_scatter": lambda x: fc.reduce_scatter_tensor(x, "sum", 1),
        "all_to_all": lambda x: fc.all_to_all_single(x, [1] * n, [1] * n),
        "broadcast": lambda x: fc.broadcast(x, 0),
        "permute": lambda x: fc.permute_tensor(x, shift),
        "wait": fc.wait_tensor,
        "gather": lambda x: fc.gather(x, 0),
        "scatter": lambda x: fc.scatter(x, 0),
        "reduce": lambda x: fc.reduce(x, "sum", 0),
        "all_gather_v": lambda x: fc.all_gather_v(x, 0),
        "reduce_scatter_v": lambda x: fc.reduce_scatter_v(x, "sum", 0),
        "scan": lambda x: fc.scan(x, "sum"),
        "exscan": lambda x: fc.exscan(x, "sum"),
        "batch_p2p": lambda x: fc.batch_p2p([fc.Send(x, right), fc.Receive(x, left)])[1],
        "coalesced": lambda x: fc.reduce_scatter_tensor_coalesced([x, x], "sum", [0, 1])[1],
        "in place": lambda x: fc.all_to_all_inplace(torch.zeros(n, n), x),
        "messages in place": lambda x: fc.batch_p2p_ops_inplace(
            ["isend", "irecv"], [right, left], [0, 0], [x, torch.zeros(n, n)]
        )[1],
        "vmap": torch.vmap(lambda v: fc.all_reduce(v, "sum")),
    }
    theirs = {
        "all_reduce": lambda x: torchs.all_reduce(x, "max", pg),
        "all_gather": lambda x: torchs.all_gather_tensor(x, 0, pg),
        "reduce_scatter": lambda x: torchs.reduce_scatter_tensor(x, "sum", 0, pg),
        "all_to_all": lambda x: torchs.all_to_all_single(x, None, None, pg),
        "broadcast": lambda x: torchs.broadcast(x, 0, pg),
        "wait": torchs.wait_tensor,
        "coalesced": lambda x: torchs.all_reduce_coalesced([x, x], "sum", pg)[1],
        "in place": lambda x: torchs.all_gather_tensor_inplace(torch.zeros(n * n, n), x, pg),
    }
    wrong = []
    for of, calls, other in (("ours", ours, torchs), ("theirs", theirs, fc)):
        for name, call in calls.items():
            want = fc.wait_tensor(call(plain.clone()))
            got = fc.wait_tensor(call(other.all_reduce(torch.ones(n, n), "sum", pg)))
            wrong += [] if torch.equal(got, want) else [(of, name)]
    return wrong


@pytest.mark.world(2, 3)
def test_each_takes_the_others_results_in_flight(world):
    assert world.run(_each_takes_the_others) == [[]] * world.size
