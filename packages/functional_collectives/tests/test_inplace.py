"""Collectives into a given tensor: torch's values, autograd's rules for a write, and refusals before anything moves."""

import pytest
import torch
import torch.distributed as dist

import functional_collectives as fc
from comm_core import World, errors


def _cases(n, r):
    """What to call: name, maker of the tensors, the rest of the arguments by keyword."""
    x = torch.arange(8.0 * n * n).view(2 * n, 4 * n) * (r + 1)
    outs, ins = [i + r for i in range(n)], [r + i for i in range(n)]
    rows = torch.arange(2.0 * sum(ins)).view(-1, 2) + 100 * r
    new = torch.empty
    return {
        "all_reduce": ("all_reduce_inplace", lambda: (x.clone(),), {}),
        "all_reduce max": ("all_reduce_inplace", lambda: (x.clone(),), {"op": "max"}),
        "all_reduce strided": ("all_reduce_inplace", lambda: (x.clone().t(),), {}),
        "all_reduce ints": ("all_reduce_inplace", lambda: (x.long(),), {"op": "bxor"}),
        "all_gather": ("all_gather_tensor_inplace", lambda: (new(2 * n * n, 4 * n), x.clone()), {}),
        "all_gather 1": ("all_gather_tensor_inplace", lambda: (new(2 * n, 4 * n * n), x.clone()), {"gather_dim": 1}),
        "all_gather strided": ("all_gather_tensor_inplace", lambda: (new(4 * n, 2 * n * n).t(), x.clone()), {}),
        "reduce_scatter": ("reduce_scatter_tensor_inplace", lambda: (new(2, 4 * n), x.clone()), {}),
        "reduce_scatter 1": ("reduce_scatter_tensor_inplace", lambda: (new(2 * n, 4), x.clone()), {"scatter_dim": 1}),
        "reduce_scatter avg": ("reduce_scatter_tensor_inplace", lambda: (new(2, 4 * n), x.clone()), {"op": "avg"}),
        "all_to_all": ("all_to_all_inplace", lambda: (new(2 * n, 4 * n), x.clone()), {}),
        "all_to_all splits": (
            "all_to_all_inplace",
            lambda: (new(sum(outs), 2), rows.clone()),
            {"output_split_sizes": outs, "input_split_sizes": ins},
        ),
        "all_gather list": ("all_gather_inplace", lambda: ([new(2 * n, 4 * n) for _ in range(n)], x.clone()), {}),
        "all_gather scalars": ("all_gather_inplace", lambda: ([new(()) for _ in range(n)], x[0, 1].clone()), {}),
        "reduce_scatter list": ("reduce_scatter_inplace", lambda: (new(2, 4 * n), list(x.clone().split(2))), {}),
        "reduce_scatter strided": ("reduce_scatter_inplace", lambda: (new(4 * n, 2).t(), list(x.clone().split(2))), {}),
        "reduce_scatter scalars": ("reduce_scatter_inplace", lambda: (new(()), list(x[:n, 1].unbind())), {"op": "max"}),
    }


def _equal(ours, theirs):
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))
    return torch.equal(ours, theirs)


class ListsOfTorch:
    """What torch's module has only from 2.14 on, by `torch.distributed`."""

    __name__ = "torch.distributed"

    @staticmethod
    def reduce_scatter_inplace(output, input_list, op="sum"):
        import torch.distributed as dist

        whole = torch.empty(output.shape)  # gloo is wrong about strided ones
        dist.reduce_scatter(whole, input_list, getattr(dist.ReduceOp, op.upper()))
        return output.copy_(whole)


def _as_torch(group):
    import warnings

    import torch.distributed._functional_collectives as torchs

    warnings.simplefilter("ignore")
    wrong = []
    cases = _cases(group.world, group.rank)
    del cases["all_gather scalars"]  # gloo refuses torch's
    for case, (name, make, more) in cases.items():
        results = []
        for module in (fc, torchs if hasattr(torchs, name) else ListsOfTorch):
            tensors = make()
            result = getattr(module, name)(*tensors, **more)
            if result is not tensors[0]:
                wrong.append(f"{case}: {module.__name__} returns something else than the output")
            results.append(tensors[0])
        if not _equal(*results):
            wrong.append(case)
    return wrong


@pytest.mark.world(1, 2, 3)
def test_values_are_torchs_and_the_output_is_returned(world):
    assert world.run(_as_torch) == [[]] * world.size


def _as_functional(group):
    """In the simulator: every case against the function without _inplace."""
    plain = {
        "all_reduce_inplace": lambda x, op="sum": fc.all_reduce(x, op, group),
        "all_gather_tensor_inplace": lambda _, x, gather_dim=0: fc.all_gather_tensor(x, gather_dim, group),
        "reduce_scatter_tensor_inplace": lambda _, x, op="sum", scatter_dim=0: fc.reduce_scatter_tensor(
            x, op, scatter_dim, group
        ),
        "all_to_all_inplace": lambda _, x, output_split_sizes=None, input_split_sizes=None: fc.all_to_all_single(
            x, output_split_sizes, input_split_sizes, group
        ),
        "all_gather_inplace": lambda _, x: list(fc.all_gather_tensor(x.unsqueeze(0), 0, group).unbind(0)),
        "reduce_scatter_inplace": lambda _, xs, op="sum": fc.reduce_scatter_tensor(torch.stack(xs), op, 0, group)[0],
    }
    wrong = []
    for case, (name, make, more) in _cases(group.world, group.rank).items():
        if not _equal(getattr(fc, name)(*make(), group=group, **more), plain[name](*make(), **more)):
            wrong.append(case)
    return wrong


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_in_the_simulator_values_are_those_of_the_functional_form(size):
    assert World(size).run(_as_functional) == [[]] * size


def _gradients(group):
    """D loss / dx through each in-place form, and through the functional one; the output has a history itself."""
    n = group.world
    wrong = []

    def loss(y):
        return (y * y * (group.rank + 1)).sum()

    for name, shape, inplace, plain in (
        (
            "all_reduce",
            (n, n),
            lambda out, x: fc.all_reduce_inplace(x, "sum", group),
            lambda x: fc.all_reduce(x, "sum", group),
        ),
        (
            "all_gather",
            (n * n, n),
            lambda out, x: fc.all_gather_tensor_inplace(out, x, group),
            lambda x: fc.all_gather_tensor(x, 0, group),
        ),
        (
            "reduce_scatter",
            (1, n),
            lambda out, x: fc.reduce_scatter_tensor_inplace(out, x, "sum", group),
            lambda x: fc.reduce_scatter_tensor(x, "sum", 0, group),
        ),
        (
            "reduce_scatter list",
            (n,),
            lambda out, x: fc.reduce_scatter_inplace(out, list(x), "sum", group),
            lambda x: fc.reduce_scatter_tensor(x, "sum", 0, group)[0],
        ),
        (
            "all_to_all",
            (n, n),
            lambda out, x: fc.all_to_all_inplace(out, x, group=group),
            lambda x: fc.all_to_all_single(x, None, None, group),
        ),
    ):
        x = (torch.arange(1.0 * n * n).view(n, n) + group.rank).requires_grad_()
        old = torch.ones(shape, requires_grad=True)
        (expected,) = torch.autograd.grad(loss(plain(x * 2)), x)
        for out in (torch.zeros(shape), old * 3):
            got, rest = torch.autograd.grad(loss(inplace(out, x * 2)), [x, old], allow_unused=True)
            if not torch.equal(got, expected) or (rest is not None and rest.any()):
                wrong.append(name)
    return wrong


@pytest.mark.world(1, 2, 3)
def test_gradients_are_those_of_the_functional_form(world):
    assert world.run(_gradients) == [[]] * world.size
    assert world.simulate(_gradients) == [[]] * world.size


def _behind_autograds_back(group):
    """A write that autograd cannot undo must be noticed in backward, not give a wrong gradient."""
    said = []
    n = group.world
    for write in (
        lambda y: fc.all_reduce_inplace(y),
        lambda y: fc.all_gather_tensor_inplace(y, torch.ones(1, 2)),
        lambda y: fc.reduce_scatter_tensor_inplace(y, torch.ones(n * n, 2)),
        lambda y: fc.all_to_all_inplace(y, torch.ones(n, 2)),
        lambda y: fc.all_gather_inplace([y[place] for place in range(n)], torch.ones(2)),
    ):
        x = torch.ones(n, 2, requires_grad=True)
        y = x * 1
        z = y * y
        with torch.no_grad():
            write(y)
        try:
            z.sum().backward()
        except RuntimeError as error:
            said.append("modified by an inplace operation" in str(error))
    return said


@pytest.mark.world(1, 3)
def test_a_write_without_gradient_is_seen_by_autograd(world):
    assert world.run(_behind_autograds_back) == [[True] * 5] * world.size


def _no_copy(group):
    """Where the transport is told to write, for each form; run on real ranks, whose transport is watched."""
    import comm_core
    from comm_core.transports import ProcessGroupTransport

    addresses = []

    class Watched(ProcessGroupTransport):
        def _start(self, what, out, *rest):
            addresses.append(out.data_ptr())
            return super()._start(what, out, *rest)

    n, plain = group.world, comm_core.transport
    outs = [torch.zeros(n), torch.zeros(n * n), torch.zeros(1), torch.zeros(n)]
    comm_core.transport = Watched
    try:
        fc.all_reduce_inplace(outs[0], "sum", group)
        fc.all_gather_tensor_inplace(outs[1], torch.ones(n), group)
        fc.reduce_scatter_tensor_inplace(outs[2], torch.ones(n), "sum", group)
        fc.all_to_all_inplace(outs[3], torch.ones(n), group=group)
    finally:
        comm_core.transport = plain
    return [address == out.data_ptr() for address, out in zip(addresses, outs, strict=True)]


@pytest.mark.world(1, 3)
def test_without_gradient_the_transport_writes_into_the_output(world):
    assert world.run(_no_copy) == [[True] * 4] * world.size


def _shared_storage(group):
    n, r = group.world, group.rank
    whole = torch.zeros(2 * n)
    whole[2 * r : 2 * r + 2] = r + 1.0
    fc.all_gather_tensor_inplace(whole, whole[2 * r : 2 * r + 2])
    both = torch.ones(n)
    fc.reduce_scatter_tensor_inplace(both[r : r + 1], both)
    swapped = torch.arange(float(n)) + 10 * r
    fc.all_to_all_inplace(swapped, swapped)
    flying = fc.all_reduce(torch.ones(2), "sum")
    fc.all_reduce_inplace(flying)
    return whole.tolist(), both[r].item(), swapped.tolist(), flying.tolist()


@pytest.mark.world(1, 3)
def test_input_and_output_may_share_storage_and_be_in_flight(world):
    n = world.size
    assert world.run(_shared_storage) == [
        ([r + 1.0 for r in range(n) for _ in (0, 1)], float(n), [10.0 * s + r for s in range(n)], [float(n * n)] * 2)
        for r in range(n)
    ]


def _compiled(group):
    import torch._dynamo

    wrong = []
    for case, (name, make, more) in _cases(group.world, group.rank).items():
        torch._dynamo.reset()

        def call(tensors, name=name, more=more):
            y = getattr(fc, name)(*tensors, group=group, **more)
            return [t + 1 for t in y] if isinstance(y, list) else y + 1

        eager, graph = make(), make()
        results = call(eager), torch.compile(call, fullgraph=True, backend="aot_eager")(graph)
        if not _equal(*results) or not _equal(eager[0], graph[0]):
            wrong.append(case)
    return wrong


@pytest.mark.world(1, 3, timeout=180)
def test_compiled_fullgraph_equals_eager_and_writes_the_output(world):
    assert world.run(_compiled) == [[]] * world.size


LEAF = {
    "leaf": lambda n: torch.ones(n, requires_grad=True),
    "view of a leaf": lambda n: torch.ones(2 * n, requires_grad=True)[:n],
}
BAD = {
    "async_op": (
        errors.ArgumentError,
        lambda g: fc.all_reduce_inplace(torch.ones(2), "sum", g, True),
        "_inplace",
    ),
    "tag": (errors.ArgumentError, lambda g: fc.all_reduce_inplace(torch.ones(2), "sum", g, False, "tag"), "tag"),
    "reduce op": (errors.ReduceOpError, lambda g: fc.all_reduce_inplace(torch.ones(2), "summ", g), "summ"),
    "shape": (
        errors.ShapeError,
        lambda g: fc.all_gather_tensor_inplace(torch.ones(3), torch.ones(2), g),
        r"shape \(3,\); need one of shape \(4,\)",
    ),
    "shape that copy_ would broadcast": (
        errors.ShapeError,
        lambda g: fc.reduce_scatter_tensor_inplace(torch.ones(3, 1), torch.ones(2), "sum", g),
        "need one of shape",
    ),
    "dtype that copy_ would cast": (
        errors.DtypeError,
        lambda g: fc.all_gather_tensor_inplace(torch.ones(4).int(), torch.ones(2), g),
        "torch.int32",
    ),
    "no output": (errors.DtypeError, lambda g: fc.all_to_all_inplace(None, torch.ones(2), group=g), "NoneType"),
    "list too short": (
        errors.ArgumentError,
        lambda g: fc.all_gather_inplace([torch.ones(2)], torch.ones(2), g),
        "a list of 2",
    ),
    "no list": (errors.ArgumentError, lambda g: fc.all_gather_inplace(torch.ones(2, 2), torch.ones(2), g), "no list"),
    "too many inputs": (
        errors.ArgumentError,
        lambda g: fc.reduce_scatter_inplace(torch.ones(2), [torch.ones(2)] * 3, "sum", g),
        "a list of 2",
    ),
    "uneven inputs": (
        errors.ShapeError,
        lambda g: fc.reduce_scatter_inplace(torch.ones(2), [torch.ones(2), torch.ones(3)], "sum", g),
        "one of shape",
    ),
    "uneven list": (
        errors.ShapeError,
        lambda g: fc.all_gather_inplace([torch.ones(2), torch.ones(3)], torch.ones(2), g),
        "need one of shape",
    ),
    **{
        f"{what} that requires grad, {name}": (
            errors.GradientError,
            lambda g, call=call, make=make: call(make, g),
            "no_grad",
        )
        for what, make in LEAF.items()
        for name, call in {
            "all_reduce": lambda make, g: fc.all_reduce_inplace(make(2), "sum", g),
            "all_gather": lambda make, g: fc.all_gather_tensor_inplace(make(4), torch.ones(2), g),
            "list": lambda make, g: fc.all_gather_inplace([torch.ones(2), make(2)], torch.ones(2), g),
            "inputs": lambda make, g: fc.reduce_scatter_inplace(make(2), [torch.ones(2)] * 2, "sum", g),
        }.items()
    },
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_work_is_refused_at_the_call(what):
    kind, call, words = BAD[what]

    def body(group):
        with pytest.raises(kind, match=words):
            call(group)
        return fc.all_reduce(torch.ones(1), "sum", group).item()

    assert World(2).run(body) == [2.0, 2.0]


def _conventions(group, backward):
    """D loss / dx through each in-place form and through the functional one, both under one convention."""
    n, how = group.world, {"backward": backward}
    wrong = []

    def grad(call):
        x = (torch.arange(4.0 * n * n).view(2 * n, 2 * n) + group.rank).requires_grad_()
        y = call(x * 1)
        (y * y * (group.rank + 1)).sum().backward()
        return x.grad

    new = torch.empty
    for name, inplace, plain in (
        (
            "all_reduce",
            lambda x: fc.all_reduce_inplace(x, "avg", group, **how),
            lambda x: fc.all_reduce(x, "avg", group, **how),
        ),
        (
            "all_gather",
            lambda x: fc.all_gather_tensor_inplace(new(2 * n * n, 2 * n), x, group, **how),
            lambda x: fc.all_gather_tensor(x, 0, group, **how),
        ),
        (
            "reduce_scatter",
            lambda x: fc.reduce_scatter_tensor_inplace(new(2, 2 * n), x, "sum", group, **how),
            lambda x: fc.reduce_scatter_tensor(x, "sum", 0, group, **how),
        ),
        (
            "all_to_all",
            lambda x: fc.all_to_all_inplace(torch.empty_like(x), x, group=group, **how),
            lambda x: fc.all_to_all_single(x, None, None, group, **how),
        ),
        (
            "reduce_scatter list",
            lambda x: fc.reduce_scatter_inplace(new(2, 2 * n), list(x.split(2)), "sum", group, **how),
            lambda x: fc.reduce_scatter_tensor(x, "sum", 0, group, **how),
        ),
        (
            "all_gather list",
            lambda x: torch.cat(fc.all_gather_inplace([torch.empty_like(x) for _ in range(n)], x, group, **how)),
            lambda x: fc.all_gather_tensor(x, 0, group, **how),
        ),
    ):
        if not torch.equal(grad(inplace), grad(plain)):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("backward", ["adjoint", "identity"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_both_conventions_have_the_gradients_of_the_functional_form(size, backward):
    assert World(size).run(_conventions, backward) == [[]] * size


def _conjugated(group):
    n, one = group.world, torch.tensor([1j]) * (group.rank + 1)
    gathered, summed = torch.zeros(n, dtype=torch.complex64).conj(), one.clone().conj()
    largest = torch.tensor([1j * (group.rank + 1)]).conj().imag
    fc.all_gather_tensor_inplace(gathered, one)
    fc.all_reduce_inplace(summed, "sum")
    fc.all_reduce_inplace(largest, "max")
    received, again = torch.zeros(1, dtype=torch.complex64).conj(), torch.zeros(1, dtype=torch.complex64).conj()
    right, left = (group.rank + 1) % n, (group.rank - 1) % n
    fc.batch_p2p_ops_inplace(["isend", "irecv"], [right, left], [0, 0], [one.conj(), received])[1].wait()
    if n > 1:  # no rank sends to itself alone
        sent = fc.isend_inplace(one, right)
        fc.irecv_inplace(again, left).wait()
        sent.wait()
    return gathered.tolist(), summed.item(), largest.item(), received.item(), again.item() if n > 1 else one.item()


@pytest.mark.world(1, 3)
def test_an_output_that_is_conjugated_or_negated_gets_the_values(world):
    n = world.size
    ranks, total = [1j * (rank + 1) for rank in range(n)], 1j * (n * (n + 1) // 2)
    for rank, made in enumerate(world.run(_conjugated)):
        assert made == (ranks, -total, -1.0, -ranks[rank - 1], ranks[rank - 1])


def _over_its_input(group, op, where):
    """Gradients through results that are written over what backward looks at, and those of the functional forms."""
    import torch._dynamo

    torch._dynamo.reset()
    pg, n = group.process_group, group.world

    def in_place(x):
        y, z = x * 1, x * 2
        fc.all_reduce_inplace(y, op, group)
        fc.reduce_scatter_tensor_inplace(z[:1], z, op, group)
        return y.sum() + z.sum()

    def beside(x):
        z = x * 2
        return fc.all_reduce(x, op, group).sum() + fc.reduce_scatter_tensor(z, op, 0, group).sum() + z[1:].sum()

    def called(x):
        y, z = x * 1, x * 2
        dist.all_reduce(y, getattr(dist.ReduceOp, op.upper()), group=pg)
        work = dist.reduce(z, op=getattr(dist.ReduceOp, op.upper()), group=pg, group_dst=0, async_op=True)
        work.wait()
        return y.sum() + z.sum()

    def beside_called(x):
        z = fc.reduce(x * 2, op, 0, group).sum()
        return fc.all_reduce(x, op, group).sum() + z + (x * 2).sum() * (group.rank > 0)

    def grad(call):
        x = (torch.arange(1.0 * n).add(group.rank + 1)).requires_grad_()
        return torch.autograd.grad(call(x), x)[0].tolist()

    if where == "eager":
        return grad(in_place) == grad(beside)
    if where == "func":
        x = torch.arange(1.0 * n).add(group.rank + 1)
        return torch.func.grad(in_place)(x).tolist() == grad(beside)
    with fc.remapped():
        made = [grad(torch.compile(call, fullgraph=True, backend=where)) for call in (in_place, called)]
    return made == [grad(beside), grad(beside_called)]


@pytest.mark.parametrize("where", ["eager", "func", "aot_eager"])
@pytest.mark.parametrize("op", ["max", "product"])
@pytest.mark.parametrize("size", [1, 3])
def test_a_result_written_over_its_input_has_the_gradient_of_what_the_input_was(size, op, where):
    assert World(size).run(_over_its_input, op, where) == [True] * size


def _times_a_factor(group):
    """Gradients of the factor of each rank, and of what it multiplies, of the functional form and of those in place."""

    def functional(x, f):
        return fc.all_reduce(x, fc.premul_sum(f), group)

    def in_place(x, f):
        return fc.all_reduce_inplace(x, fc.premul_sum(f), group)

    def of_a_view(x, f):
        fc.all_reduce_inplace(x.view(2, 2)[:], fc.premul_sum(f), group)
        return x

    def scattered_onto_itself(x, f):
        return fc.reduce_scatter_tensor_inplace(x[: 4 // group.world], x, fc.premul_sum(f), group) * 1

    def scattered(x, f):
        return fc.reduce_scatter_tensor(x, fc.premul_sum(f), 0, group)

    def gradients(call, compiled):
        x, f = torch.arange(4.0, requires_grad=True), torch.tensor(2.0 + group.rank, requires_grad=True)

        def loss(x, f):
            y = call(x * 1, f)
            return (y * torch.arange(1.0 + group.rank, 1.0 + group.rank + len(y))).sum()

        (torch.compile(loss, backend="aot_eager", fullgraph=True) if compiled else loss)(x, f).backward()
        return x.grad.tolist(), f.grad.item()

    ways = [False] if group.is_simulated else [False, True]
    reduced = [gradients(call, how) for call in (functional, in_place, of_a_view) for how in ways]
    return reduced, [gradients(call, how) for call in (scattered, scattered_onto_itself) for how in ways]


@pytest.mark.world(1, 2)
def test_a_factor_that_requires_grad_may_be_that_of_a_result_written_over_what_it_multiplies(world):
    n = world.size
    weights = [sum(place + rank + 1.0 for rank in range(n)) for place in range(4)]
    own = [place % (4 // n) + place // (4 // n) + 1.0 for place in range(4)]
    for rank, found in enumerate(world.run(_times_a_factor)):
        for gradients, weight in zip(found, (weights, own), strict=True):
            want = [w * (2.0 + rank) for w in weight], sum(place * w for place, w in enumerate(weight))
            assert gradients == [want] * len(gradients)


def test_the_two_conventions_differ_by_the_size_of_the_group():
    def body(group):
        grads = []
        for backward in ("adjoint", "identity"):
            x = torch.ones(2, requires_grad=True)
            fc.all_reduce_inplace(x * 1, "sum", group, backward=backward).sum().backward()
            grads.append(x.grad.tolist())
        return grads

    assert World(3).run(body) == [[[3.0, 3.0], [1.0, 1.0]]] * 3


def _given_in_flight(group):
    """Outputs and inputs that are results in flight, of this package and of torch."""
    import warnings

    import torch.distributed as dist
    import torch.distributed._functional_collectives as torchs

    import functional_collectives as fc

    warnings.simplefilter("ignore")
    results = []
    for make in (
        lambda: fc.all_reduce(torch.ones(2), "sum"),
        lambda: torchs.all_reduce(torch.ones(2), "sum", dist.group.WORLD),
    ):
        n = group.world
        into = fc.all_gather_tensor_inplace(torch.zeros(2 * n), make())
        out = torch.cat([make()] * n)
        fc.all_gather_tensor_inplace(out, make())
        first = make()
        written = fc.all_reduce_inplace(first, "sum")
        places = fc.all_gather_inplace([make() for _ in range(n)], make())
        listed = fc.all_reduce_coalesced([make(), make()], "sum")
        results.append(
            [
                into.tolist() == [n] * 2 * n,
                out.tolist() == [n] * 2 * n,
                written is first and first.tolist() == [n * n] * 2,
                [(place + 0).tolist() for place in places] == [[n, n]] * n,
                [(one + 0).tolist() for one in listed] == [[n * n] * 2] * 2,
            ]
        )
    return results


@pytest.mark.world(1, 3)
def test_results_in_flight_of_either_class_may_be_inputs_and_outputs(world):
    assert world.run(_given_in_flight) == [[[True] * 5] * 2] * world.size
