"""Differential: on real gloo ranks, every function gives what torch's own function of that name gives."""

import inspect

import pytest
import torch

import functional_collectives as fc

NAMES = [
    "all_reduce",
    "all_gather_tensor",
    "reduce_scatter_tensor",
    "all_to_all_single",
    "broadcast",
    "permute_tensor",
    "wait_tensor",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_have_torchs_names_and_places(name):
    import torch.distributed._functional_collectives as torchs

    ours = inspect.signature(getattr(fc, name)).parameters.values()
    theirs = inspect.signature(getattr(torchs, name)).parameters
    assert [p.name for p in ours if p.kind is p.POSITIONAL_OR_KEYWORD] == list(theirs)


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
