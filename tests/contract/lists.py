"""What each collective computes, a third time: differentiable, in one process that has all ranks' tensors in a list.

`reference.py` says it in NumPy, for values; this says it in torch's own ops, so that torch's autograd and `torch.func`
differentiate through the whole world. Nothing here looks at comm_core. A definition takes the list of all ranks'
tensors and the list of all ranks' parameters and returns the list of all ranks' results.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

Tensors = list[torch.Tensor]
Params = Sequence[dict[str, Any]]
GRADUAL = ("sum", "avg", "product", "min", "max")  # the reduce ops that have a derivative


def reduced(xs: Sequence[torch.Tensor], op: str) -> torch.Tensor:
    """Reduce over ranks; amax and amin share a tie evenly, as our convention says.

    `prod` would not do: in torch 2.13 its derivative is wrong where zeros are and it is taken forward twice.
    """
    if op == "product":
        return functools.reduce(torch.mul, xs)
    stack = torch.stack(list(xs))
    ops = {"sum": stack.sum, "avg": stack.mean, "min": stack.amin, "max": stack.amax}
    return ops[op](0)


def nothing_before(like: torch.Tensor, op: str) -> torch.Tensor:
    """What a rank gets from an exscan when no rank is before it."""
    value = {"product": 1.0, "min": float("inf"), "max": -float("inf")}.get(op, 0.0)
    return torch.full_like(like, value)


def all_reduce(xs: Tensors, params: Params) -> Tensors:
    return [reduced(xs, of["reduce_op"]) for of in params]


def reduce(xs: Tensors, params: Params) -> Tensors:
    total = reduced(xs, params[0]["reduce_op"])
    return [total if rank == of["dst"] else torch.zeros_like(total) for rank, of in enumerate(params)]


def all_gather(xs: Tensors, params: Params) -> Tensors:
    return [torch.cat(xs, of["dim"]) for of in params]


def gather(xs: Tensors, params: Params) -> Tensors:
    whole = torch.cat(xs, params[0]["dim"])
    return [whole if r == of["dst"] else whole.narrow(of["dim"], 0, 0) for r, of in enumerate(params)]


def scatter(xs: Tensors, params: Params) -> Tensors:
    return list(xs[params[0]["src"]].split(list(params[0]["sizes"]), params[0]["dim"]))


def reduce_scatter(xs: Tensors, params: Params) -> Tensors:
    dim = params[0]["dim"]
    return list(reduced(xs, params[0]["reduce_op"]).split([xs[0].shape[dim] // len(xs)] * len(xs), dim))


def reduce_scatter_v(xs: Tensors, params: Params) -> Tensors:
    return list(reduced(xs, params[0]["reduce_op"]).split(list(params[0]["sizes"]), params[0]["dim"]))


def all_to_all(xs: Tensors, params: Params) -> Tensors:
    even = [[x.shape[0] // len(xs)] * len(xs) for x in xs]
    sent = [x.split(of["input_splits"] or like) for x, of, like in zip(xs, params, even, strict=True)]
    return [torch.cat([blocks[rank] for blocks in sent]) for rank in range(len(xs))]


def broadcast(xs: Tensors, params: Params) -> Tensors:
    return [xs[of["src"]] for of in params]


def permute(xs: Tensors, params: Params) -> Tensors:
    to = list(params[0]["destinations"])
    return [xs[to.index(rank)] if rank in to else torch.zeros_like(x) for rank, x in enumerate(xs)]


def prefix(xs: Tensors, params: Params, own: int) -> Tensors:
    op, back = params[0]["reduce_op"], params[0]["reverse"]
    ordered = xs[::-1] if back else xs
    ys = [reduced(ordered[: i + own], op) if i + own else nothing_before(xs[0], op) for i in range(len(xs))]
    return ys[::-1] if back else ys


def scan(xs: Tensors, params: Params) -> Tensors:
    return prefix(xs, params, 1)


def exscan(xs: Tensors, params: Params) -> Tensors:
    return prefix(xs, params, 0)


def batch_p2p(xs: Tensors, params: Params) -> Tensors:
    mail: dict[tuple[int, int, int], Tensors] = {}
    for sender, (x, of) in enumerate(zip(xs, params, strict=True)):
        for (to, _, tag), part in zip(of["sends"], x.split([rows for _, rows, _ in of["sends"]]), strict=False):
            mail.setdefault((sender, to, tag), []).append(part)
    return [
        torch.cat([x[:0], *(mail[sender, rank, tag].pop(0) for sender, _, tag in of["receives"])])
        for rank, (x, of) in enumerate(zip(xs, params, strict=True))
    ]


def unchanged(xs: Tensors, params: Params) -> Tensors:
    return list(xs)


def multiplied_first(name: str, xs: Tensors, params: Params) -> Tensors:
    """What a collective computes where a reduce op may say what each rank's tensor is multiplied by and then summed."""
    factors = [getattr(of.get("reduce_op"), "factor", None) for of in params]
    if all(factor is None for factor in factors):
        return LISTS[name](xs, params)
    of_sum = [{**of, "reduce_op": "sum"} for of in params]
    return LISTS[name]([x if by is None else x * by for x, by in zip(xs, factors, strict=True)], of_sum)


LISTS: dict[str, Callable[[Tensors, Params], Tensors]] = {
    "all_reduce": all_reduce,
    "all_gather": all_gather,
    "reduce_scatter": reduce_scatter,
    "all_to_all": all_to_all,
    "broadcast": broadcast,
    "reduce": reduce,
    "gather": gather,
    "scatter": scatter,
    "all_gather_v": all_gather,
    "reduce_scatter_v": reduce_scatter_v,
    "scan": scan,
    "exscan": exscan,
    "permute": permute,
    "batch_p2p": batch_p2p,
    "barrier": unchanged,
    "wait": unchanged,
}
