"""Traced and compiled calls over every spelling of a group, and a result that only some ranks use."""

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
