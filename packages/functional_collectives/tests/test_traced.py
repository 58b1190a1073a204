"""Traced and compiled calls over every spelling of a group, and a result that only some ranks use."""

import itertools
import warnings

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import functional_collectives as fc


def ops_of(graph):
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def _summed_over(group):
    return lambda x: fc.all_reduce(x, "sum", group)


def _spelled(group):
    """Trace an all_reduce on ones for each spelling, run the graph on other data: its ops, and what it gives."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    found = {}
    for label, spelling in {
        "None": None,
        "name": dist.group.WORLD.group_name,
        "group": dist.group.WORLD,
        "ranks": [0, 1, 2, 3],
        "mesh": mesh,
        "axis by index": (mesh, 0),
        "axis from the back": (mesh, -1),
        "axis by name": (mesh, "dp"),
        "mesh of an axis": mesh["tp"],
    }.items():
        graph = make_fx(_summed_over(spelling))(torch.ones(2))
        found[label] = ops_of(graph), graph(torch.full((2,), 10.0**group.rank)).tolist()
    return found


@pytest.mark.world(4)
def test_an_all_reduce_is_traced_as_one_op_and_one_wait_for_every_spelling_of_its_group(world):
    ops = ["_c10d_functional.all_reduce.default", "_c10d_functional.wait_tensor.default"]
    for rank, found in enumerate(world.run(_spelled)):
        dp = float(10 ** (rank % 2) + 10 ** (rank % 2 + 2))
        tp = float(10 ** (rank // 2 * 2) + 10 ** (rank // 2 * 2 + 1))
        totals = dict.fromkeys(("None", "name", "group", "ranks", "mesh"), 1111.0)
        totals |= dict.fromkeys(("axis by index", "axis by name"), dp)
        totals |= dict.fromkeys(("axis from the back", "mesh of an axis"), tp)
        assert found == {label: (ops, [total] * 2) for label, total in totals.items()}


def _by_lists(group, dynamic):
    """Of one compiled function, the sums in groups by lists of ranks whose numbers change, on rank 1 alone too."""
    import torch.distributed as dist

    for rank in range(group.world):
        dist.new_group([rank])
    lists = [[0, 1], [group.rank], (1,) if group.rank else (0,), [0, 1]]
    torch._dynamo.reset()
    call = torch.compile(
        lambda x, ranks: fc.all_reduce(x, "sum", ranks), fullgraph=True, backend="eager", dynamic=dynamic
    )
    found = [call(torch.ones(1), ranks).item() for ranks in lists]
    try:
        call(torch.ones(1), [-1 - group.rank, 1])
    except Exception as error:
        return found, f"ranks {[-1 - group.rank, 1]}" in str(error)
    return found, "nothing"


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.world(2, timeout=120.0)
def test_a_list_of_ranks_may_change_in_compiled_code(world, dynamic):
    assert world.run(_by_lists, dynamic) == [([2.0, 1.0, 1.0, 2.0], True)] * 2


def _used_on_one_rank(group, backend):
    """Only rank 0 uses what it receives; the others' compilers see a result that nobody reads."""

    def program(x, used):
        received = fc.permute_tensor(x, [(rank + 1) % group.world for rank in range(group.world)], group)
        return received if used else x * 5

    torch._dynamo.reset()
    compiled = torch.compile(program, fullgraph=True, backend=backend)
    return [compiled(torch.full((3,), float(group.rank + turn)), group.rank == 0).tolist() for turn in range(2)]


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.world(2, timeout=120.0)
def test_a_rank_that_drops_its_result_still_takes_part(world, backend):
    """Were the call removed there as dead code, rank 0 would wait for ever."""
    assert world.run(_used_on_one_rank, backend) == [[[1.0] * 3, [2.0] * 3], [[5.0] * 3, [10.0] * 3]]


def _on_meta(group):
    """The forms that write into given tensors, and those of several tensors: their results on meta."""
    n, x = group.world, torch.empty(2 * group.world, 3, device="meta")
    return [
        tuple(y.shape) if y.is_meta else y.device.type
        for y in (
            fc.all_reduce(x, "sum", group),
            fc.all_reduce_inplace(x, "max", group),
            fc.all_gather_tensor_inplace(torch.empty(2 * n * n, 3, device="meta"), x, group),
            fc.reduce_scatter_tensor_inplace(torch.empty(2, 3, device="meta"), x, "sum", group),
            *fc.all_reduce_coalesced([x, x[:1]], "avg", group),
            *fc.all_gather_into_tensor_coalesced([x, x[:1]], group),
            *fc.reduce_scatter_tensor_coalesced([x, x], "sum", [0, 0], group),
        )
    ]


@pytest.mark.world(1, 3)
def test_tensors_on_meta_give_tensors_on_meta(world):
    n = world.size
    whole, part = (2 * n, 3), (2, 3)
    wanted = [whole, whole, (2 * n * n, 3), part, whole, (1, 3), (2 * n * n, 3), (n, 3), part, part]
    assert world.run(_on_meta) == [wanted] * n


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_dynamo_walks_no_loop_over_the_ranks_of_a_permutation(fake_world, monkeypatch, backend):
    """So that compiling one of 4,096 ranks takes what Dynamo itself takes for a list of so many numbers."""
    from torch._dynamo.symbolic_convert import InstructionTranslatorBase

    steps, step = [], InstructionTranslatorBase.step
    monkeypatch.setattr(InstructionTranslatorBase, "step", lambda tracer: steps.append(tracer) or step(tracer))
    counts = []
    for world in (4, 4, 64):
        group, x = fake_world(world), torch.ones(3, requires_grad=True)
        shift = [*range(1, world), 0]
        for destinations in (shift, [-1] * world):
            torch._dynamo.reset()
            steps.clear()

            def permuted(x, to, group=group):
                return fc.permute_tensor(x, to, group)

            y = torch.compile(permuted, fullgraph=True, backend=backend)(x, destinations)
            y.sum().backward()
            counts.append(len(steps))
    first, *_ = counts
    assert first > 0
    assert counts[2:4] == counts[4:6] == counts[:2]


def _permuted_anew(group):
    """One compiled function, called with a permutation after the other, of which Dynamo makes symbols."""
    import functional_collectives as fc

    compiled = torch.compile(lambda x, to: fc.permute_tensor(x, to, group), fullgraph=True, backend="aot_eager")
    n = group.world
    results = []
    for to in ([*range(1, n), 0], [*range(n)], [*reversed(range(n))], [-1] * n):
        x = torch.tensor([1.0 + group.rank], requires_grad=True)
        y = compiled(x, to)
        y.sum().backward()
        results.append((y.item(), x.grad.item()))
    return results


@pytest.mark.world(1, 3, timeout=120.0)
def test_a_permutation_may_change_from_call_to_call(world):
    n = world.size
    for rank, (shifted, kept, turned, nowhere) in enumerate(world.run(_permuted_anew)):
        assert (shifted, kept, turned) == ((1.0 + (rank - 1) % n, 1.0), (1.0 + rank, 1.0), (float(n - rank), 1.0))
        assert nowhere == (0.0, 0.0)


def test_dynamo_warns_of_nothing_whatever_names_the_group(fake_world, monkeypatch):
    """A look-up by name is a builtin, which it would warn of where a graph breaks and our code runs as eager code."""
    import torch._dynamo.utils
    import torch.distributed as dist

    import comm_core
    from comm_core.errors import ReduceOpError

    fake_world(2)
    for group in (dist.group.WORLD, dist.group.WORLD.group_name, comm_core.as_group(None), None, [0, 1]):

        def broken(x, group=group):
            y = fc.all_reduce(x, "sum", group)
            torch._dynamo.graph_break()
            return fc.reduce(y, "sum", 0, group) * comm_core.as_group(group).world

        def wrong(x, group=group):
            torch._dynamo.graph_break()
            return fc.all_reduce(x, "summ", group)

        torch._dynamo.reset()
        monkeypatch.setattr(torch._dynamo.utils, "warn_once_cache", set())
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            assert torch.compile(broken, backend="eager")(torch.ones(2)).tolist() == [2.0, 2.0]
            with pytest.raises(ReduceOpError, match="summ"):
                torch.compile(wrong, backend="eager")(torch.ones(2))


def _conjugated(group, backend):
    """For each call, whether a graph sends what eager code does of a conjugated or negated view, and its gradient."""
    n = group.world
    on = {
        "all_reduce": lambda x: fc.all_reduce(x, "sum", group),
        "reduce": lambda x: fc.reduce(x, "avg", 1, group),
        "all_gather": lambda x: fc.all_gather_tensor(x, 0, group),
        "reduce_scatter_v": lambda x: fc.reduce_scatter_v(x, "sum", 0, group),
        "all_to_all": lambda x: fc.all_to_all_single(x, None, None, group),
        "permute": lambda x: fc.permute_tensor(x, list(range(n))[::-1], group),
        "gather": lambda x: fc.gather(x, 1, 0, group),
        "scatter": lambda x: fc.scatter(x, 1, 0, group),
        "scan": lambda x: fc.scan(x, "sum", group),
        "broadcast": lambda x: fc.broadcast(x, 1, group),
    }
    views = {"conj": lambda z: z.conj(), "neg": lambda z: z.conj().imag}
    found = {}
    for (name, call), (kind, view) in itertools.product(on.items(), views.items()):

        def program(z, call=call, view=view):
            y = call(view(z))
            return (y * y).real + 2 * (y * y).imag if y.is_complex() else y * y

        torch._dynamo.reset()
        pairs = []
        for fn in (program, torch.compile(program, fullgraph=True, backend=backend)):
            z = (torch.arange(2.0 * n) + group.rank + 1j).requires_grad_()
            y = fn(z)
            y.sum().backward()
            pairs.append((y.tolist(), z.grad.tolist()))
        found[name, kind] = pairs[0] == pairs[1]
    return found


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.world(2, timeout=120.0)
def test_a_view_that_is_conjugated_in_a_graph_is_sent_as_it_looks(world, backend):
    for found in world.run(_conjugated, backend):
        assert len(found) == 20
        assert all(found.values()), found


def _slope(of, x):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(of(leaf), leaf)[0].item()


def _forward_differentiated(group):
    """The gradients of calls, those of a graph of the forward, and a graph's of the gradient."""
    x, weight = torch.tensor([1.0 + group.rank]), group.rank + 1
    losses = {
        "broadcast": lambda x: fc.broadcast(x, 0, group).sum() * weight,
        "all_reduce, identity": lambda x: fc.all_reduce(x, "sum", group, backward="identity").sum() * weight,
        "all_gather": lambda x: fc.all_gather_tensor(x, 0, group).sum() * weight,
        "reduce": lambda x: fc.reduce(x, "sum", 1, group).sum() * weight,
    }
    return {
        name: (_slope(loss, x), _slope(make_fx(loss)(x), x), make_fx(torch.func.grad(loss))(x)(x).item())
        for name, loss in losses.items()
    }


@pytest.mark.world(2)
def test_a_graph_of_the_forward_has_torchs_gradients_and_one_of_the_gradient_ours(world):
    """docs/understand/gradients.md says which; it has to be changed when torch's become others."""
    first, second = world.run(_forward_differentiated)
    assert first == {
        "broadcast": (3.0, 1.0, 3.0),
        "all_reduce, identity": (1.0, 3.0, 1.0),
        "all_gather": (3.0, 3.0, 3.0),
        "reduce": (2.0, 2.0, 2.0),
    }
    assert second == {
        "broadcast": (0.0, 2.0, 0.0),
        "all_reduce, identity": (2.0, 3.0, 2.0),
        "all_gather": (3.0, 3.0, 3.0),
        "reduce": (2.0, 2.0, 2.0),
    }
