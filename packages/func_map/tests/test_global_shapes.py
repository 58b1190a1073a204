"""Global shapes of outputs: assembled from sizes, refused where a DTensor has no such layout, learned once."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor

from comm_core import Group
from comm_core.errors import ShapeError
from comm_core.extents import chunk_sizes
from comm_core.testing import run_ranks
from func_map import local_map
from func_map.boundary import uneven_axes, with_global_stride
from func_map.global_shapes import agree, assemble

S0, S1, R, P = Shard(0), Shard(1), Replicate(), Partial()


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("size", range(8))
def test_pieces_of_torch_chunk_make_up_the_whole(size: int, world: int) -> None:
    sizes = chunk_sizes(size, world)
    column = torch.tensor([[2, s, 5] for s in sizes])
    assert assemble(column, (S0,), "y") == (None if len(set(sizes)) == 1 else (size, 5))


def test_a_dim_sharded_over_two_axes() -> None:
    sizes = [[3, 2], [2, 2]]  # 9 over 2 is 5 and 4; 5 over 2 is 3 and 2, 4 is 2 and 2
    column = torch.tensor([[[1, s] for s in row] for row in sizes])
    assert assemble(column, (S0, S0), "y") == (9,)


@pytest.mark.parametrize(
    ("column", "spec", "said"),
    [
        ([[1, 1], [1, 2]], (S0,), "got pieces of sizes [1, 2] along dim 0 over mesh axis 0; need [2, 1]"),
        ([[1, 2], [1, 1], [1, 1]], (S0,), "got pieces of sizes [2, 1, 1] along dim 0 over mesh axis 0; need [2, 2, 0]"),
        ([[1, 2], [1, 1]], (R,), "got sizes [1, 2] along dim 0 on different ranks, placed [Replicate()]"),
        ([[2, 2, 3], [2, 1, 4]], (S0,), "got sizes [3, 4] along dim 1"),
        ([[1, 2], [2, 1]], (P,), "got a different number of dims"),
    ],
)
def test_pieces_that_are_no_dtensor(column: Any, spec: Any, said: str) -> None:
    with pytest.raises(ShapeError) as caught:
        assemble(torch.tensor(column), spec, "output[1]")
    assert str(caught.value).startswith("output[1]: ")
    assert said in str(caught.value)


def test_strides_follow_the_order_of_the_piece() -> None:
    y, stride = with_global_stride(torch.ones(2, 3).t(), (3, 5))
    assert (y.stride(), stride) == ((1, 3), (1, 3))
    y, stride = with_global_stride(torch.ones(1).expand(2, 3), (4, 3))
    assert (y.is_contiguous(), stride) == (True, (3, 1))


def ragged(group: Group) -> dict[str, Any]:
    """Bodies whose pieces differ between ranks, from inputs that do not, and from inputs that do."""
    mesh = DeviceMesh.from_group(group.process_group, "cpu")
    whole = distribute_tensor(torch.arange(10.0).reshape(5, 2), mesh, [R]).requires_grad_()
    pick = local_map(lambda x: (*x.chunk(group.world), *[x[:0]] * 4)[group.rank], [S0])
    picked = [pick(whole) for _ in range(2)]
    (picked[1].full_tensor() * torch.arange(10.0).reshape(5, 2)).sum().backward()
    uneven = distribute_tensor(torch.arange(10.0).reshape(5, 2), mesh, [S0])
    turned = local_map(lambda x: x.t(), [S1])(uneven)
    bad = local_map(lambda x: x.new_ones(group.rank + 1, 2), [S0])
    try:
        bad(whole)
        said = "nothing"
    except ShapeError as error:
        said = str(error)
    return {
        "picked": [(tuple(y.shape), y.full_tensor().detach()) for y in picked],
        "grad": whole.grad.full_tensor(),
        "turned": (tuple(turned.shape), turned.stride(), turned.full_tensor()),
        "bad": said,
        "axes": uneven_axes(uneven),
    }


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_uneven_pieces(world: int) -> None:
    x = torch.arange(10.0).reshape(5, 2)
    for seen in run_ranks(ragged, world=world):
        for shape, y in seen["picked"]:
            assert shape == (5, 2)
            assert torch.equal(y, x)
        assert torch.equal(seen["grad"], x)
        assert seen["turned"][:2] == ((2, 5), (1, 2))
        assert torch.equal(seen["turned"][2], x.t())
        assert seen["axes"] == (() if world == 1 else (0,))
        assert seen["bad"].startswith("nothing" if world == 1 else "local_map(<lambda>), output: got pieces of sizes")


def calls(group: Group) -> list[int]:
    """Count the exchanges of sizes in three calls each, on evenly and on unevenly sharded inputs."""
    mesh = DeviceMesh.from_group(group.process_group, "cpu")
    module = local_map.__globals__["global_shapes"].__globals__  # the very module that local_map uses
    counts: list[int] = []

    def counting(*args: Any) -> Any:
        counts[-1] += 1
        return agree(*args)

    with mock.patch.dict(module, agree=counting):
        mapped = local_map(lambda x: x * 2, [S0])
        for size in (12, 5, 24):
            x = distribute_tensor(torch.ones(size, 2), mesh, [S0])
            counts.append(0)
            for _ in range(3):
                mapped(x)
    return counts


@pytest.mark.usefixtures("world_backend")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_sizes_are_exchanged_once_where_inputs_are_even(world: int) -> None:
    for counts in run_ranks(calls, world=world):
        assert counts == [1, 0 if world == 1 else 3, 0]
