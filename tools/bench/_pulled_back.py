"""The backward passes whose memory `copies.py` counts."""

from __future__ import annotations

from typing import Any

ROWS = 480  # what groups of 1 to 6 ranks split evenly
BACKWARD = "backward"  # how the variants begin whose result is a gradient


def nearly_even(world: int) -> list[int]:
    """Return shares of the rows of which the first is a little larger than the mean, and the last smaller."""
    share = ROWS // world
    return [share + 8, *[share] * (world - 2), share - 8] if world > 1 else [ROWS]


def backward(group: Any) -> dict[tuple[str, str], tuple[Any, int]]:
    """Return the backward passes of calls."""
    found = {**backward_of_reductions(group), **backward_of_moves(group)}
    return {(name, BACKWARD + variant): pulled_back(*each) for (name, variant), each in found.items()}


def backward_of_reductions(group: Any) -> dict[tuple[str, str], tuple[Any, list[Any]]]:
    """Return the calls that reduce, with the tensors whose gradient is wanted."""
    import torch

    import functional_collectives as fc

    x, shares = torch.ones(ROWS, ROWS).requires_grad_(), nearly_even(group.world)
    large = torch.ones(ROWS, 60 * ROWS).requires_grad_()  # beside which the room for a piece of its rows is not seen
    several, factor = [x, x.detach().clone().requires_grad_()], torch.tensor(0.5, requires_grad=True)
    by_number, by_tensor = fc.premul_sum(0.5), fc.premul_sum(factor)
    return {
        ("all_reduce", ""): (lambda: fc.all_reduce(x, "sum", group), [x]),
        ("all_reduce", " of avg"): (lambda: fc.all_reduce(x, "avg", group), [x]),
        ("all_reduce", " of max"): (lambda: fc.all_reduce(x, "max", group), [x]),
        ("all_reduce", " of product"): (lambda: fc.all_reduce(x, "product", group), [x]),
        ("all_reduce", " of premul_sum"): (lambda: fc.all_reduce(x, by_number, group), [x]),
        ("all_reduce", " of premul_sum, by a tensor"): (lambda: fc.all_reduce(x, by_tensor, group), [x, factor]),
        ("all_reduce", ", coalesced"): (lambda: fc.all_reduce_coalesced(several, "sum", group), several),
        ("reduce_scatter", ""): (lambda: fc.reduce_scatter_tensor(x, "sum", 0, group), [x]),
        ("reduce_scatter", " of avg"): (lambda: fc.reduce_scatter_tensor(x, "avg", 0, group), [x]),
        ("reduce_scatter", " of avg, dim 1"): (lambda: fc.reduce_scatter_tensor(x, "avg", 1, group), [x]),
        ("reduce_scatter", " of premul_sum, dim 1"): (lambda: fc.reduce_scatter_tensor(x, by_number, 1, group), [x]),
        ("reduce_scatter", " of min, dim 1"): (lambda: fc.reduce_scatter_tensor(x, "min", 1, group), [x]),
        ("reduce_scatter", " of product"): (lambda: fc.reduce_scatter_tensor(x, "product", 0, group), [x]),
        ("reduce_scatter", ", coalesced"): (
            lambda: fc.reduce_scatter_tensor_coalesced(several, "sum", [0, 1], group),
            several,
        ),
        ("reduce_scatter_v", " of avg"): (lambda: fc.reduce_scatter_v(x, "avg", 0, group, sizes=shares), [x]),
        ("reduce_scatter_v", " of avg, dim 1"): (lambda: fc.reduce_scatter_v(x, "avg", 1, group, sizes=shares), [x]),
        ("reduce_scatter_v", " of max, dim 1"): (lambda: fc.reduce_scatter_v(x, "max", 1, group, sizes=shares), [x]),
        ("reduce", " of avg"): (lambda: fc.reduce(x, "avg", 0, group), [x]),
        ("reduce", " of max"): (lambda: fc.reduce(x, "max", 0, group), [x]),
        ("reduce", " of product"): (lambda: fc.reduce(x, "product", 0, group), [x]),
        ("scan", ""): (lambda: fc.scan(x, "sum", group), [x]),
        ("scan", " of avg"): (lambda: fc.scan(x, "avg", group), [x]),
        ("scan", " of premul_sum"): (lambda: fc.scan(x, by_number, group), [x]),
        ("scan", " of max"): (lambda: fc.scan(large, "max", group), [large]),
        ("exscan", " of product"): (lambda: fc.exscan(large, "product", group), [large]),
    }


def backward_of_moves(group: Any) -> dict[tuple[str, str], tuple[Any, list[Any]]]:
    """Return the calls that only move, with the tensors whose gradient is wanted."""
    import torch

    import functional_collectives as fc

    x, n = torch.ones(ROWS, ROWS).requires_grad_(), group.world
    even, shares, shift = [ROWS] * n, nearly_even(n), [(rank + 1) % n for rank in range(n)]
    left, right, like = (group.rank - 1) % n, (group.rank + 1) % n, x.detach()
    several = [x, like.clone().requires_grad_()]
    one, two = ([*(fc.Send(y, right) for y in ys), *(fc.Receive(like, left) for _ in ys)] for ys in ([x], several))
    return {
        ("all_gather", ""): (lambda: fc.all_gather_tensor(x, 0, group), [x]),
        ("all_gather", ", dim 1"): (lambda: fc.all_gather_tensor(x, 1, group), [x]),
        ("all_gather", ", coalesced"): (lambda: fc.all_gather_into_tensor_coalesced(several, group), several),
        ("all_gather_v", ", dim 1"): (lambda: fc.all_gather_v(x, 1, group, sizes=even), [x]),
        ("all_to_all", ""): (lambda: fc.all_to_all_single(x, None, None, group), [x]),
        ("broadcast", ""): (lambda: fc.broadcast(x, n - 1, group), [x]),
        ("permute", ""): (lambda: fc.permute_tensor(x, shift, group), [x]),
        ("gather", ", dim 1"): (lambda: fc.gather(x, 0, 1, group), [x]),
        ("scatter", ", dim 1"): (lambda: fc.scatter(x, 0, 1, group, sizes=shares), [x]),
        ("batch_p2p", ""): (lambda: fc.batch_p2p(one, group)[1], [x]),
        ("batch_p2p", " of two"): (lambda: fc.batch_p2p(two, group)[2:], several),
    }


def pulled_back(call: Any, by: list[Any]) -> tuple[Any, int]:
    """Return what runs the backward of a call, and the bytes of its payload."""
    import torch

    import functional_collectives as fc

    given = call()
    results = [fc.wait_tensor(y) for y in (given if isinstance(given, list) else [given])]
    cotangents = [torch.ones_like(y) for y in results]
    payload = max(sum(x.nbytes for x in by), sum(y.nbytes for y in results))

    def run() -> list[Any]:
        return [fc.wait_tensor(of) for of in torch.autograd.grad(results, by, cotangents, retain_graph=True)]

    return run, payload
