from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from comm_core import Group, World, as_group, catalog, run, transport
from comm_core.errors import GroupError
from comm_core_pytest import Ranks

ALL = pytest.mark.world(1, 2, 3)


def refusal(group: Any) -> str:
    with pytest.raises(GroupError) as caught:
        as_group(group)
    assert caught.value.where == "group"
    assert "tensor(" not in str(caught.value)
    return str(caught.value)


# Accepted


def spellings(group: Group, backend: str) -> list[bool]:
    mesh = init_device_mesh("cpu", (group.world,), mesh_dim_names=("tp",))
    default = dist.group.WORLD
    assert default is not None
    forms: list[Any] = [
        None,
        default,
        default.group_name,
        list(range(group.world)),
        tuple(range(group.world)),
        group,
        mesh,
        (mesh, 0),
        (mesh, -1),
        (mesh, "tp"),
    ]
    found = [as_group(form) for form in forms]
    return [
        isinstance(one, Group)
        and (one.rank, one.world, one.ranks, one.backend) == (dist.get_rank(), group.world, group.ranks, backend)
        and run(catalog.ALL_REDUCE, torch.ones(1), form, reduce_op="sum").item() == group.world
        for one, form in zip(found, forms, strict=True)
    ]


@ALL
def test_every_spelling_of_the_whole_world(world: Ranks) -> None:
    assert world.run(spellings, world.backend) == [[True] * 10] * world.size


def on_a_grid(group: Group) -> list[tuple[int, int, tuple[int, ...], float]]:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    found = []
    for form in [mesh, (mesh, 0), (mesh, "dp"), (mesh, 1), (mesh, "tp"), (mesh, -2), mesh["tp"], mesh]:
        on = as_group(form)  # type: ignore[arg-type]
        total = run(catalog.ALL_REDUCE, torch.tensor(float(2**group.rank)), form, reduce_op="sum")  # type: ignore[arg-type]
        found.append((on.rank, on.world, on.ranks, total.item()))
    return found


@pytest.mark.usefixtures("world_backend")
def test_a_grid_is_flattened_and_an_axis_is_chosen_by_index_or_name() -> None:
    from comm_core.testing import run_ranks

    for rank, found in enumerate(run_ranks(on_a_grid, world=4)):
        row, column = divmod(rank, 2)
        whole = (rank, 4, (0, 1, 2, 3), 15.0)
        dp = (row, 2, (column, column + 2), float(2**column + 2 ** (column + 2)))
        tp = (column, 2, (2 * row, 2 * row + 1), float(2 ** (2 * row) + 2 ** (2 * row + 1)))
        assert found == [whole, dp, dp, tp, tp, dp, tp, whole]


def in_subgroups(group: Group) -> list[Any]:
    pair = dist.new_group([0, 2])
    back = dist.new_group([1, 2])
    assert pair is not None
    found: list[Any] = []
    if group.rank in (0, 2):
        for form in (pair, pair.group_name, [0, 2], (0, 2)):
            on = as_group(form)
            found.append((on.rank, on.world, on.ranks, on.name == pair.group_name))
        found.append(run(catalog.BROADCAST, torch.tensor(group.rank), [0, 2], src=1).item())
    else:
        found += [refusal(pair), refusal([0, 2])]
    found.append(as_group(back).rank if group.rank in (1, 2) else refusal(back))
    return found


@pytest.mark.usefixtures("world_backend")
def test_a_subgroup_counts_ranks_from_its_own_first() -> None:
    from comm_core.testing import run_ranks

    zero, one, two = run_ranks(in_subgroups, world=3)
    assert zero[:5] == [(0, 2, (0, 2), True)] * 4 + [2]
    assert two[:5] == [(1, 2, (0, 2), True)] * 4 + [2]
    assert "got the placeholder that new_group() gives to ranks outside the group" in one[0]
    assert "got ranks [0, 2]; need the ranks of an existing group" in one[1]
    assert (one[2], two[5]) == (0, 1)
    assert "need a group that this rank is in" in zero[5]


def test_a_simulated_group_is_a_group() -> None:
    def body(group: Any) -> bool:
        return as_group(group) is group and as_group() is group and as_group(group.name) is group

    assert World(3).run(body) == [True] * 3


def test_a_group_is_a_value() -> None:
    one = Group("x", 0, 2, (0, 1), "gloo")
    assert one == Group("x", 0, 2, (0, 1), "gloo")
    assert len({one, Group("x", 0, 2, (0, 1), "gloo"), Group("y", 0, 2, (0, 1), "gloo")}) == 2
    with pytest.raises(AttributeError):
        one.rank = 1  # type: ignore[misc]


# Refused


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (3, "a int"),
        (1.5, "a float"),
        (object(), "a object"),
        (torch.ones(2), "a Tensor"),
        ({0, 1}, "a set"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_what_is_no_group_is_named_by_its_type(wrong: Any, said: str) -> None:
    message = refusal(wrong)
    assert f"got {said}" in message
    assert "need a ProcessGroup, DeviceMesh, (mesh, axis), group name, list of ranks" in message


def test_without_a_default_group_none_says_what_to_call() -> None:
    assert not dist.is_initialized()
    message = refusal(None)
    assert "torch.distributed.init_process_group()" in message
    assert "comm_core.World(n).run(fn)" in message


def wrong_forms(group: Group) -> dict[str, str]:
    mesh = init_device_mesh("cpu", (group.world,), mesh_dim_names=("tp",))
    nameless = init_device_mesh("cpu", (1, group.world))
    return {
        "name": refusal("no such group"),
        "axis name": refusal((mesh, "dp")),
        "axis index": refusal((mesh, 1)),
        "axis bool": refusal((mesh, True)),
        "axis float": refusal((mesh, 0.0)),
        "two axes": refusal((mesh, 0, 1)),
        "name of the nameless": refusal((nameless, "tp")),
        "axis tensor": refusal((mesh, torch.tensor(0))),
        "no ranks": refusal([]),
        "twice": refusal([0, 0]),
        "floats": refusal([0.0, 1.0]),
        "nested": refusal([[0, 1]]),
        "unknown ranks": refusal([0, group.world]),
    }


@ALL
def test_what_names_no_group_is_refused_with_what_would_do(world: Ranks) -> None:
    for said in world.run(wrong_forms):
        assert "got the name 'no such group'; need the name of a group; known: '" in said["name"]
        assert "got axis 'dp' of a mesh; need an index from -1 to 0 or a name of tp" in said["axis name"]
        assert "got axis 1 of a mesh" in said["axis index"]
        assert "got axis True of a mesh" in said["axis bool"]
        assert "got axis 0.0 of a mesh" in said["axis float"]
        assert "got axis 0 of a mesh and 1 more" in said["two axes"]
        assert "need an index from -2 to 1; this mesh has no axis names" in said["name of the nameless"]
        assert "of type Tensor" in said["axis tensor"]
        for kind in ("no ranks", "twice", "floats", "nested"):
            assert "need a list of different global ranks" in said[kind], kind
        assert f"new_group([0, {world.size}])" in said["unknown ranks"]


def backwards(group: Group) -> str:
    return refusal(list(range(group.world))[::-1])


@pytest.mark.usefixtures("world_backend")
def test_ranks_in_another_order_are_another_group() -> None:
    from comm_core.testing import run_ranks

    said = run_ranks(backwards, world=2)[0]
    assert "in its order" in said
    assert "results would come in the order of the group of [0, 1]" in said


def outside_the_mesh(group: Group) -> str:
    mesh = DeviceMesh("cpu", [0, 1])
    return refusal(mesh) if group.rank == 2 else str(as_group(mesh).world)


@pytest.mark.usefixtures("world_backend")
def test_a_mesh_without_this_rank_is_refused() -> None:
    from comm_core.testing import run_ranks

    first, second, third = run_ranks(outside_the_mesh, world=3)
    assert (first, second) == ("2", "2")
    assert "need a group that this rank is in" in third


def after_the_end(group: Group) -> str:
    name = group.name
    dist.destroy_process_group()
    return refusal(name) + refusal(None)


@pytest.mark.usefixtures("world_backend")
def test_a_group_that_is_gone_is_refused() -> None:
    from comm_core.testing import run_ranks

    (said,) = run_ranks(after_the_end, world=1)
    assert "known: none" in said
    assert "no default group" in said


def test_as_group_starts_nothing() -> None:
    before = dict(os.environ)
    refusal("anything")
    assert not dist.is_initialized()
    assert dict(os.environ) == before


def made_again(group: Any) -> list[Any]:
    """Another group under an old one's name: what was parsed of the old one must not be served."""
    first = dist.new_group([group.rank], use_local_synchronization=True)
    old = as_group(first)
    same = as_group(first) is old
    wire = transport(old)
    dist.destroy_process_group(first)
    said = []
    for use in (lambda: old.process_group, lambda: wire.all_reduce(torch.ones(1), "sum")):
        with pytest.raises(GroupError) as caught:
            use()
        said.append("has been destroyed" in str(caught.value))
    second = dist.new_group([group.rank], use_local_synchronization=True)
    new = as_group(second)
    return [same, new is not old, run(catalog.ALL_REDUCE, torch.ones(1), second, reduce_op="sum").item(), *said]


@ALL
def test_what_is_kept_of_a_group_ends_with_it(world: Ranks) -> None:
    assert world.run(made_again) == [[True, True, 1.0, True, True]] * world.size


def forgotten(group: Any) -> bool:
    import gc
    import weakref

    made = dist.new_group([group.rank], use_local_synchronization=True)
    run(catalog.ALL_REDUCE, torch.ones(1), made, reduce_op="sum")
    alive = weakref.ref(made)
    dist.destroy_process_group(made)
    del made
    gc.collect()
    return alive() is None


@ALL
def test_what_is_kept_of_a_group_does_not_keep_the_group(world: Ranks) -> None:
    assert world.run(forgotten) == [True] * world.size


def told_apart(group: Group) -> list[Any]:
    """Two groups of the same ranks, and how each is found again; and what a list of ranks does where none fits."""
    ranks = list(range(group.world))
    one, other = dist.new_group(ranks), dist.new_group(ranks)
    before = len(dist.distributed_c10d._world.pg_map)
    found = [as_group(spelling).name for spelling in (one, one.group_name, other, other.group_name)]
    try:
        as_group([*ranks, 99])
    except GroupError as error:
        found.append(error.hint)
    names = [one.group_name, one.group_name, other.group_name, other.group_name]
    made = len(dist.distributed_c10d._world.pg_map) - before
    return [
        found[:4] == names,
        one.group_name != other.group_name,
        "new_group" in found[4],
        made,
        as_group(ranks).ranks,
    ]


@pytest.mark.world(1, 3)
def test_groups_of_the_same_ranks_are_told_apart_without_tags_and_none_is_made(world: Ranks) -> None:
    assert world.run(told_apart) == [[True, True, True, 0, tuple(range(world.size))]] * world.size
