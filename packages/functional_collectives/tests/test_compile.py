"""What a compiler is given: no graph breaks, one collective for each call, sizes that only the data tells."""

import functools
import inspect

import pytest
import torch
import torch.distributed as dist
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import Unsupported
from torch.fx.experimental.proxy_tensor import make_fx

import comm_core
import functional_collectives as fc
from comm_core import checking, errors

HUGE = 4096


def collectives(group):
    """Every collective as a function of a (2 * world, 4 * world) tensor."""
    n = comm_core.as_group(group).world
    shift = [(i + 1) % n for i in range(n)]
    return {
        "all_reduce": lambda x: fc.all_reduce(x, "sum", group),
        "all_reduce avg": lambda x: fc.all_reduce(x, "avg", group),
        "all_gather": lambda x: fc.all_gather_tensor(x, 0, group),
        "all_gather 1": lambda x: fc.all_gather_tensor(x, 1, group),
        "reduce_scatter": lambda x: fc.reduce_scatter_tensor(x, "sum", 0, group),
        "reduce_scatter 1": lambda x: fc.reduce_scatter_tensor(x, "avg", 1, group),
        "all_to_all": lambda x: fc.all_to_all_single(x, None, None, group),
        "all_to_all splits": lambda x: fc.all_to_all_single(x, [2] * n, [2] * n, group),
        "broadcast": lambda x: fc.broadcast(x, n - 1, group),
        "permute": lambda x: fc.permute_tensor(x, shift, group),
        "all_reduce_coalesced": lambda x: fc.all_reduce_coalesced([x, x + 1], "sum", group)[1],
        "all_gather_coalesced": lambda x: torch.cat(fc.all_gather_into_tensor_coalesced([x, x + 1], group)),
        "reduce_scatter_coalesced": lambda x: fc.reduce_scatter_tensor_coalesced([x, x + 1], "sum", [0, 1], group)[1],
        "all_reduce_inplace": lambda x: fc.all_reduce_inplace(x * 1, "sum", group),
    }


def ops_of(graph):
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def starts_in(ops):
    return [op for op in ops if "_c10d_functional" in op and "wait" not in op]


def watched(seen):
    """A backend that runs what it is given and notes the ops: one list for each graph, backward graphs too."""

    def note(graph, inputs):
        seen.append(ops_of(graph))
        return torch._functorch.aot_autograd.make_boxed_func(graph.forward)

    return aot_autograd(fw_compiler=note, bw_compiler=note)


# A world of thousands


@pytest.mark.parametrize(  # permute, which makes lists of that length itself, stands for given splits, too
    "name", [name for name in collectives(comm_core.Group("", 0, HUGE, (), "")) if name != "all_to_all splits"]
)
def test_in_a_world_of_4096_everything_traces_compiles_and_runs(name, fake_world):
    call = collectives(fake_world(HUGE))[name]
    x = torch.zeros(1, HUGE) if name == "reduce_scatter 1" else torch.zeros(2 * HUGE, 1)
    if name == "reduce_scatter_coalesced":
        x = torch.zeros(HUGE, HUGE)
    elif name.startswith("all_gather"):
        x = torch.zeros(2, 2)
    eager = fc.wait_tensor(call(x))
    graph = make_fx(call)(x)
    assert 1 <= len(starts_in(ops_of(graph))) <= 2
    assert len(ops_of(graph)) < 40  # and not some for each rank
    assert graph(x).shape == eager.shape
    seen = []
    leaf = x.clone().requires_grad_()
    compiled = torch.compile(call, fullgraph=True, backend=watched(seen))(leaf)
    assert (compiled.shape, compiled.stride()) == (eager.shape, eager.stride())
    compiled.sum().backward()
    assert leaf.grad.shape == x.shape
    forward, backward = seen
    assert 1 <= len(starts_in(forward)) <= 2
    assert 1 <= len(starts_in(backward)) <= 2


def every_function(group):
    """Every public function, some in several cases, as a function of a (2 * world, 2) tensor."""
    n = comm_core.as_group(group).world
    up, right, left = n - 2, 1, n - 1
    nothing, two = [0] * n, [0, 2, *[0] * (n - 2)]
    return {
        "all_gather_inplace": lambda x: fc.all_gather_inplace([x[:1] * 0 for _ in range(n)], x[:1], group)[1],
        "all_gather_into_tensor_coalesced": lambda x: fc.all_gather_into_tensor_coalesced([x, x], group)[1],
        "all_gather_tensor": lambda x: fc.all_gather_tensor(x[:2], 1, group),
        "all_gather_tensor_inplace": lambda x: fc.all_gather_tensor_inplace(x.new_zeros(2 * n, 2), x[:2], group),
        "all_gather_v": lambda x: fc.all_gather_v(x[:2], 0, group, sizes=[2] * n),
        "all_gather_v 1": lambda x: fc.all_gather_v(x.t()[:, :2], 1, group, sizes=[2] * n),
        "all_reduce": lambda x: fc.all_reduce(x, "avg", group),
        "all_reduce_coalesced": lambda x: fc.all_reduce_coalesced([x, x + 1], "sum", group)[1],
        "all_reduce_inplace": lambda x: fc.all_reduce_inplace(x * 1, "sum", group),
        "all_to_all_inplace": lambda x: fc.all_to_all_inplace(x * 1, x, None, None, group),
        "all_to_all_single": lambda x: fc.all_to_all_single(x, None, None, group),
        "all_to_all_single to receive alone": lambda x: fc.all_to_all_single(x[:0], two, nothing, group),
        "batch_p2p": lambda x: fc.batch_p2p([fc.Send(x, right), fc.Receive(x, left)], group)[1],
        "batch_p2p_ops_inplace": lambda x: fc.batch_p2p_ops_inplace(
            ["isend", "irecv"], [right, left], [0, 0], [x, x * 1], group
        )[1],
        "broadcast": lambda x: fc.broadcast(x, up, group),
        "exscan": lambda x: fc.exscan(x, "product", group),
        "gather": lambda x: fc.gather(x, 0, 0, group),
        "gather 1": lambda x: fc.gather(x.t(), 0, 1, group),
        "gather elsewhere": lambda x: fc.gather(x, up, 0, group),
        "irecv": lambda x: fc.irecv(x, up, group),
        "irecv_inplace": lambda x: fc.irecv_inplace(x * 1, up, 0, group),
        "isend": lambda x: fc.isend(x, up, group),
        "isend_inplace": lambda x: fc.isend_inplace(x, up, 0, group),
        "permute_tensor": lambda x: fc.permute_tensor(x, [*range(1, n), 0], group),
        "permute_tensor to receive alone": lambda x: fc.permute_tensor(x, [-1, 0, *[-1] * (n - 2)], group),
        "permute_tensor to send alone": lambda x: fc.permute_tensor(x, [1, *[-1] * (n - 1)], group),
        "reduce": lambda x: fc.reduce(x, "max", up, group),
        "reduce_scatter_tensor": lambda x: fc.reduce_scatter_tensor(x, "sum", 0, group),
        "reduce_scatter_tensor_coalesced": lambda x: fc.reduce_scatter_tensor_coalesced(
            [x, x.t()], "sum", [0, 1], group
        )[1],
        "reduce_scatter_inplace": lambda x: fc.reduce_scatter_inplace(
            x.new_zeros(2, 2), list(x.split(2)), "sum", group
        ),
        "reduce_scatter_tensor_inplace": lambda x: fc.reduce_scatter_tensor_inplace(x[:2] * 1, x, "sum", group),
        "reduce_scatter_v": lambda x: fc.reduce_scatter_v(x, "sum", 0, group),
        "reduce_scatter_v 1": lambda x: fc.reduce_scatter_v(x.t(), "max", 1, group),
        "reduce_scatter_v 1, shares that differ": lambda x: fc.reduce_scatter_v(x.t()[:, 3:], "sum", 1, group),
        "scan": lambda x: fc.scan(x, "sum", group),
        "scan reversed": lambda x: fc.scan(x, "min", group, reverse=True),
        "scatter": lambda x: fc.scatter(x, 0, 0, group),
        "scatter 1": lambda x: fc.scatter(x.t(), 0, 1, group),
        "scatter elsewhere": lambda x: fc.scatter(x, up, 0, group),
        "wait_tensor": lambda x: fc.wait_tensor(x),
    }


NO_GRAPH = {  # public functions that a graph has nothing of
    "allow_inflight_collective_as_graph_input_ctx": "a context",
    "barrier": "eager code alone has it: a graph keeps no order to wait in",
    "checked": "a context",
    "inflight": "a question",
    "premul_sum": "a reduce op",
    "remapped": "a context",
}
GROWS = {  # functions whose graph has some nodes for each rank
    "all_gather_inplace": "it writes a tensor for each rank",
    "reduce_scatter_inplace": "it reads a tensor for each rank",
}
NO_GRADIENT = {"batch_p2p_ops_inplace", "irecv_inplace", "isend_inplace"}


def test_the_list_of_every_function_is_whole():
    known = {name.split(" ")[0] for name in every_function(comm_core.Group("", 0, 4, (), ""))}
    functions = {name for name in fc.__all__ if inspect.isfunction(getattr(fc, name))}
    aliases = {name for name in functions if getattr(fc, name).__name__ != name}
    assert known | set(NO_GRAPH) == functions - aliases | {"premul_sum"}
    assert {getattr(fc, name).__name__ for name in aliases} <= known | {"premul_sum"}
    assert set(GROWS) | NO_GRADIENT <= known


def slope(call, x):
    return torch.autograd.grad(call(x).sum(), x)[0]


@pytest.mark.parametrize("name", list(every_function(comm_core.Group("", 0, 4, (), ""))))
def test_a_graph_does_not_grow_with_the_world_and_runs_on_a_fake_group(name, fake_world):
    counts = []
    for n in (8, HUGE):
        if n == HUGE and name in GROWS:
            continue
        call = every_function(fake_world(n))[name]
        x = torch.zeros(2 * n, 2)
        eager = fc.wait_tensor(call(x))
        graph = make_fx(call)(x)
        assert graph(x).shape == eager.shape
        counts.append(len(graph.graph.nodes))
        if name in NO_GRADIENT:
            continue
        leaf = x.clone().requires_grad_()
        call(leaf).sum().backward()
        assert leaf.grad.shape == x.shape
        backward = make_fx(functools.partial(slope, call))(x.clone().requires_grad_())
        assert backward(x).shape == x.shape
        counts[-1] += len(backward.graph.nodes)
    assert counts[-1] <= counts[0] < 90


ALIKE = {
    "gather": lambda x, group, n: fc.gather(x, 0, 0, group),
    "gather elsewhere": lambda x, group, n: fc.gather(x, 1, 0, group),
    "gather along dim 1": lambda x, group, n: fc.gather(x, 0, 1, group),
    "gather of given sizes": lambda x, group, n: fc.gather(x[:4], 0, 0, group, sizes=[4] * n),
    "scatter": lambda x, group, n: fc.scatter(x.repeat(n, 1), 0, 0, group),
    "scatter from elsewhere": lambda x, group, n: fc.scatter(x.repeat(n, 1), 1, 0, group),
    "all_gather_v": lambda x, group, n: fc.all_gather_v(x[:4], 0, group, sizes=[4] * n),
    "all_gather_v along dim 1": lambda x, group, n: fc.all_gather_v(x[:, :3], 1, group, sizes=[3] * n),
    "reduce_scatter_v": lambda x, group, n: fc.reduce_scatter_v(x.repeat(n, 1), "sum", 0, group),
    "permute": lambda x, group, n: fc.permute_tensor(x, [*range(1, n), 0], group),
}


@pytest.mark.parametrize("name", ALIKE)
def test_a_graph_of_symbolic_sizes_does_not_grow_with_the_world(name, fake_world):
    counts, seen = [], []
    for n in (4, 64):
        group = fake_world(n)
        call = functools.partial(ALIKE[name], group=group, n=n)
        counts.append(len(make_fx(call, tracing_mode="symbolic")(torch.ones(6, 3)).graph.nodes))
        torch._dynamo.reset()
        compiled = torch.compile(
            call, fullgraph=True, dynamic=True, backend=lambda graph, _: seen.append(graph) or graph
        )
        assert compiled(torch.ones(6, 3)).shape == call(torch.ones(6, 3)).shape
    assert counts[1] <= counts[0]
    assert len(seen[1].graph.nodes) <= len(seen[0].graph.nodes)


GIVEN = {
    "gather": lambda x, sizes, group: fc.gather(x[: sizes[0]], 0, 0, group, sizes=sizes),
    "scatter": lambda x, sizes, group: fc.scatter(x, 0, 0, group, sizes=sizes),
    "all_gather_v": lambda x, sizes, group: fc.all_gather_v(x[: sizes[0]], 0, group, sizes=sizes),
    "all_gather_v along dim 1": lambda x, sizes, group: fc.all_gather_v(x.t()[:, : sizes[0]], 1, group, sizes=sizes),
    "reduce_scatter_v": lambda x, sizes, group: fc.reduce_scatter_v(x, "sum", 0, group, sizes=sizes),
}


@pytest.mark.parametrize("name", GIVEN)
def test_sizes_that_meet_need_no_other_graph(name, fake_world):
    call = functools.partial(GIVEN[name], group=fake_world(4))
    graphs = []
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend=lambda graph, _: graphs.append(graph) or graph)
    for sizes in ([6, 7, 8, 9], [6, 6, 8, 9], [7, 6, 6, 9], [8, 8, 8, 8], [9, 9, 6, 6]):
        x = torch.ones(sum(sizes), 3)
        assert compiled(x, sizes).shape == fc.wait_tensor(call(x, sizes)).shape
    assert len(graphs) == 1


# Sizes that only the data tells


def routed(x, sent, received, group):
    """Tokens to experts, as many to each rank as a tensor says."""
    return fc.all_to_all_single(x * 1, received.tolist(), sent.tolist(), group)


@pytest.fixture
def sizes_from_data():
    with torch._dynamo.config.patch(capture_scalar_outputs=True, capture_dynamic_output_shape_ops=True):
        yield


def _routed_on_ranks(group, backend):
    """Eager and compiled results and gradients of two calls of one compiled function, with other sizes."""
    import torch._dynamo

    import functional_collectives as fc

    def body(x, sent, received):
        y = fc.all_to_all_single(x * 1, received.tolist(), sent.tolist(), group)
        return y * (1 + torch.arange(y.numel()).view(y.shape))

    said = []
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        compiled = torch.compile(body, fullgraph=True, dynamic=True, backend=backend)
        for step in (1, 2, 0):
            sent = torch.tensor([(group.rank + step * to) % 4 for to in range(group.world)])
            received = torch.tensor([(of + step * group.rank) % 4 for of in range(group.world)])
            x = torch.arange(2.0 * int(sent.sum())).view(-1, 2)
            pair = []
            for f in (body, compiled):
                leaf = x.clone().requires_grad_()
                y = f(leaf, sent, received)
                y.square().sum().backward()
                pair.append((y.detach(), leaf.grad))
            said += [torch.equal(one, other) for one, other in zip(*pair, strict=True)]
    return said


@pytest.mark.world(1, 3, timeout=180.0)
def test_splits_from_data_compile_without_a_break_forward_and_backward(world):
    for backend in ("aot_eager",) if world.size == 1 else ("eager", "aot_eager", "inductor"):
        assert world.run(_routed_on_ranks, backend) == [[True] * 6] * world.size, backend


def test_splits_from_data_that_do_not_fit_are_an_error_when_the_graph_runs(fake_world, sizes_from_data):
    group = fake_world(2)
    compiled = torch.compile(routed, fullgraph=True, dynamic=True, backend="aot_eager")
    x = torch.ones(6, 2)
    assert compiled(x, torch.tensor([2, 4]), torch.tensor([2, 1]), group).shape == (3, 2)
    for sent, received in (([2, 5], [2, 1]), ([2, 4], [3, 1]), ([7, -1], [7, 1])):
        with pytest.raises(RuntimeError, match="Runtime assertion failed"):
            compiled(x, torch.tensor(sent), torch.tensor(received), group)


@pytest.mark.parametrize("name", list(collectives(comm_core.Group("", 0, 4, (), ""))))
def test_a_number_of_rows_that_only_the_data_tells(name, fake_world, sizes_from_data):
    call = collectives(fake_world(4))[name]
    if name == "all_to_all splits":
        pytest.skip("its splits are numbers")

    def chosen(x, which):
        return call((x * 2)[which.nonzero().squeeze(1)])

    compiled = torch.compile(chosen, fullgraph=True, dynamic=True, backend="aot_eager")
    for count in (8, 4):
        x = torch.ones(10, 16, requires_grad=True)
        which = torch.arange(10) < count
        y = compiled(x, which)
        assert y.shape == fc.wait_tensor(chosen(x, which)).shape
        y.sum().backward()
        assert x.grad.shape == x.shape


@pytest.mark.parametrize("name", list(collectives(comm_core.Group("", 0, 4, (), ""))))
def test_one_graph_serves_many_sizes(name, fake_world):
    call = collectives(fake_world(4))[name]
    if name == "all_to_all splits":
        pytest.skip("its splits are numbers")
    seen = []
    compiled = torch.compile(lambda x: call(x * 1), fullgraph=True, dynamic=True, backend=watched(seen))
    for rows in (8, 12, 16):
        x = torch.ones(rows, 16, requires_grad=True)
        y = compiled(x)
        assert y.shape == fc.wait_tensor(call(x * 1)).shape
        y.sum().backward()
    assert len(seen) == 2


# Under torch.func


TRANSFORMS = {
    "vmap": (lambda f: torch.vmap(f, in_dims=1), (8, 3, 16), 1),
    "vmap of vmap": (lambda f: torch.vmap(torch.vmap(f, in_dims=2), in_dims=1), (8, 2, 16, 3), 1),
    "grad": (lambda f: torch.func.grad(lambda x: f(x).sum()), (8, 16), 2),
    "vmap of grad": (lambda f: torch.vmap(torch.func.grad(lambda x: f(x).sum())), (3, 8, 16), 2),
    "jvp": (lambda f: lambda x: torch.func.jvp(f, (x,), (x,))[1], (8, 16), 2),
}
PLAIN = ["all_reduce", "all_gather 1", "reduce_scatter 1", "all_to_all", "broadcast", "permute"]


@pytest.mark.parametrize(
    ("name", "transform"),
    [(name, "vmap of grad") for name in PLAIN] + [("reduce_scatter 1", transform) for transform in TRANSFORMS],
)
def test_a_transform_in_compiled_code_makes_as_many_collectives_as_without_a_batch(name, transform, fake_world):
    call = collectives(fake_world(4))[name]
    make, shape, count = TRANSFORMS[transform]
    seen = []
    x = torch.zeros(shape)
    compiled = torch.compile(make(call), fullgraph=True, backend=watched(seen))
    assert compiled(x).shape == make(call)(x).shape
    (ops,) = seen
    assert 1 <= len(starts_in(ops)) <= count
    assert "aten.stack.default" not in ops  # of one result for each sample


def _transformed(group):
    """Compare compiled transforms with eager ones; return what differs."""
    import torch._dynamo

    import functional_collectives as fc

    def loss(x):
        y = fc.all_gather_tensor(fc.all_reduce(x, "avg", group), 1, group)
        return (y * y).sum()

    def result(x):
        return fc.reduce_scatter_tensor(x * x, "sum", 0, group)

    def waited(x):
        return fc.wait_tensor(fc.all_reduce(x * x, "sum", group))

    x = torch.arange(24.0 * group.world).view(2, 3 * group.world, 4) + group.rank
    made = {
        "vmap": torch.vmap(result),
        "vmap of grad": torch.vmap(torch.func.grad(loss)),
        "grad of vmap": torch.func.grad(lambda x: torch.vmap(loss)(x).sum()),
        "jvp of vmap": lambda x: torch.func.jvp(torch.vmap(result), (x,), (x,))[1],
        "grad of wait": torch.func.grad(lambda x: waited(x).sum()),
        "vmap of wait": torch.vmap(waited),
        "jvp of wait": lambda x: torch.func.jvp(waited, (x,), (x,))[1],
    }
    for name, call in {
        "all_reduce": lambda x: fc.all_reduce(x * x, "max", group),
        "scan": lambda x: fc.scan(x * x, "max", group),
        "exscan": lambda x: fc.exscan(x * x, "product", group),
    }.items():
        made[f"vmap of {name}"] = torch.vmap(call)
        made[f"jvp of {name}"] = lambda x, call=call: torch.func.jvp(call, (x,), (x,))[1]
        made[f"grad of {name}"] = torch.func.grad(lambda x, call=call: call(x).sum())
    wrong = []
    for name, f in made.items():
        torch._dynamo.reset()
        if not torch.equal(torch.compile(f, fullgraph=True, backend="aot_eager")(x), f(x)):
            wrong.append(name)
    torch._dynamo.reset()
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    for f, leaf in zip((torch.vmap(loss), torch.compile(torch.vmap(loss), fullgraph=True)), leaves, strict=True):
        f(leaf).sum().backward()
    return wrong if torch.equal(leaves[0].grad, leaves[1].grad) else [*wrong, "backward of vmap"]


@pytest.mark.world(1, 3, timeout=180.0)
def test_transforms_in_compiled_code_give_what_they_give_in_eager_code(world):
    assert world.run(_transformed) == [[]] * world.size


# Export


class Model(torch.nn.Module):
    def __init__(self, group):
        super().__init__()
        self.group = group
        self.weight = torch.nn.Parameter(torch.arange(6.0).view(2, 3))

    def forward(self, x):
        y = fc.all_reduce(x @ self.weight, "sum", self.group)
        return fc.all_gather_tensor(y, 0, self.group) + 1


def _exported(group):
    model = Model(group.name)
    x = torch.ones(4, 2) * (group.rank + 1)
    found = []
    for strict in (False, True):
        rows = torch.export.Dim("rows", min=2, max=64)
        program = torch.export.export(model, (x,), dynamic_shapes=({0: rows},), strict=strict)
        graphs = [module for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
        ops = [op for graph in graphs for op in ops_of(graph)]  # strict export wraps each in a graph of its own
        found.append([op for op in ops if "c10d" in op])
        for size in (4, 6):
            other = torch.ones(size, 2) * (group.rank + 2)
            found.append(torch.equal(program.module()(other), model(other)))
    return found


@pytest.mark.world(1, 3)
def test_an_exported_program_has_torchs_ops_and_runs_on_other_sizes(world):
    ops = ["all_reduce", "wait_tensor", "all_gather_into_tensor", "wait_tensor"]
    wanted = [[f"_c10d_functional.{op}.default" for op in ops], True, True]
    assert world.run(_exported) == [wanted * 2] * world.size


# Groups in compiled code


def compiled_on(group):
    """A compiled function of its own code, so that each has its own cache."""
    space = {"fc": fc, "group": group}
    exec("def gathered(x):\n    return fc.all_gather_tensor(x, 0, group)", space)
    return torch.compile(space["gathered"], fullgraph=True, backend="eager")


def test_every_spelling_of_a_group_compiles_and_follows_into_another_world(fake_world):
    fake_world(2)
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,), mesh_dim_names=("all",))
    lasting = {"name": "0", "None": None, "mesh": mesh, "axis by index": (mesh, 0), "axis by name": (mesh, "all")}
    bound = {"Group": comm_core.as_group(), "ranks": [0, 1]}
    compiled = {label: compiled_on(group) for label, group in {**lasting, **bound}.items()}
    x = torch.zeros(3)
    assert {label: f(x).shape for label, f in compiled.items()} == dict.fromkeys(compiled, (6,))
    fake_world(4)
    assert {label: compiled[label](x).shape for label in lasting} == dict.fromkeys(lasting, (12,))
    for label, words in (("Group", "group '0', which has been destroyed"), ("ranks", r"ranks \[0, 1\]")):
        with pytest.raises(Unsupported, match=words):
            compiled[label](x)


# What a mistake in compiled code says


MISTAKES = {
    "a reduce op": (lambda x, g: fc.all_reduce(x, "summ", g), errors.ReduceOpError),
    "a dim": (lambda x, g: fc.all_gather_tensor(x, 3, g), errors.ShapeError),
    "a size": (lambda x, g: fc.reduce_scatter_tensor(x, "sum", 0, g), errors.ShapeError),
    "splits": (lambda x, g: fc.all_to_all_single(x, [1] * 4, [1] * 4, g), errors.ShapeError),
    "a rank": (lambda x, g: fc.broadcast(x, 4, g), errors.RankError),
    "a permutation": (lambda x, g: fc.permute_tensor(x, [0, 0, 1, 2], g), errors.RankError),
    "a group": (lambda x, g: fc.all_reduce(x, "sum", "nope"), errors.GroupError),
    "a convention": (lambda x, g: fc.all_reduce(x, "sum", g, backward="megatron"), errors.ArgumentError),
    "a tag": (lambda x, g: fc.all_reduce(x, "sum", g, "tag"), errors.ArgumentError),
    "a list": (lambda x, g: fc.all_reduce_coalesced(x, "sum", g), errors.DtypeError),
    "one of a list": (lambda x, g: fc.all_reduce_coalesced([x, x], "bor", g), errors.ReduceOpError),
    "an output": (lambda x, g: fc.all_gather_tensor_inplace(x, x, g), errors.ShapeError),
    "async": (lambda x, g: fc.all_reduce_inplace(x, "sum", g, True), errors.ArgumentError),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_in_compiled_code_is_told_in_full(what, fake_world):
    """With fullgraph in the words of Dynamo's error, and otherwise as in eager code."""
    group = fake_world(4)
    call, kind = MISTAKES[what]
    x = torch.ones(6)
    with pytest.raises(kind) as eager:
        call(x, group)
    with pytest.raises(Unsupported) as whole:
        torch.compile(lambda x: call(x, group), fullgraph=True, backend="eager")(x)
    error = eager.value
    said = str(whole.value)
    for part in (kind.__name__, error.where, error.got, error.need, error.hint):
        assert part in said.replace("\\'", "'"), part
    torch._dynamo.reset()
    with pytest.raises(kind) as broken:
        torch.compile(lambda x: call(x, group), backend="eager")(x)
    assert str(broken.value) == str(error)


def test_a_checked_block_in_compiled_code_changes_nothing_there(fake_world):
    group = fake_world(4)

    def body(x):
        with fc.checked(timeout_s=5):
            return fc.all_gather_tensor(x, 0, group) + 1

    x = torch.ones(2, requires_grad=True)
    y = torch.compile(body, fullgraph=True, backend="eager")(x)
    assert y.shape == (8,)
    y.sum().backward()
    assert x.grad.shape == (2,)
    assert checking.mode is None


def test_a_wrong_time_limit_of_a_checked_block_in_compiled_code_is_told_in_full():
    def body(x):
        with fc.checked(timeout_s=-1):
            return x + 1

    with pytest.raises(Unsupported, match=r"ArgumentError\('checked', 'timeout_s=-1', 'a positive number of seconds"):
        torch.compile(body, fullgraph=True, backend="eager")(torch.ones(2))


def test_what_runs_eagerly_in_a_checked_block_where_the_graph_breaks_is_checked(fake_world):
    fake_world(2)
    modes = []

    def body(x):
        with fc.checked(timeout_s=5):
            torch._dynamo.graph_break()
            modes.append(checking.mode)
            return x + 1

    torch.compile(body, backend="eager")(torch.ones(2))
    assert modes == [checking.Mode(5)]
    assert checking.mode is None
