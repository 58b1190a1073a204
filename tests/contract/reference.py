"""What each collective computes, written a second time, in NumPy and from the sentences of its documentation.

Nothing here looks at comm_core, so that no rule of the catalogue is held against itself. A definition takes the list
of all ranks' arrays and the list of all ranks' parameters and returns the list of all ranks' results. Numbers are kept
in the widest type of their kind (`int64`, `float64`, `complex128`, `bool`), so the tests choose small integers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

Arrays = list[np.ndarray]
Params = Sequence[dict[str, Any]]
BEYOND = 2**62


def combine(op: str, arrays: Arrays) -> np.ndarray:
    """Reduce over ranks; on bool a sum is "any" and a product is "all", as in arithmetic with saturation."""
    if arrays[0].dtype == np.bool_:
        words = {"sum": "any", "max": "any", "bor": "any", "product": "all", "min": "all", "band": "all"}
        if op == "bxor":
            return np.stack(arrays).sum(0) % 2 == 1
        return getattr(np, words[op])(np.stack(arrays), axis=0)
    if op == "avg":
        return np.stack(arrays).sum(0) / len(arrays)
    steps: dict[str, Callable[..., np.ndarray]] = {
        "sum": np.add,
        "product": np.multiply,
        "min": np.minimum,
        "max": np.maximum,
        "band": np.bitwise_and,
        "bor": np.bitwise_or,
        "bxor": np.bitwise_xor,
    }
    return reduce(steps[op], arrays)


def all_reduce(inputs: Arrays, params: Params) -> Arrays:
    return [combine(of["reduce_op"], inputs) for of in params]


def all_gather(inputs: Arrays, params: Params) -> Arrays:
    return [np.concatenate(inputs, axis=of["dim"]) for of in params]


def reduce_scatter(inputs: Arrays, params: Params) -> Arrays:
    world = len(inputs)
    results = []
    for rank, of in enumerate(params):
        axis = of["dim"]
        share = inputs[0].shape[axis] // world
        mine = np.arange(rank * share, (rank + 1) * share)
        results.append(combine(of["reduce_op"], [x.take(mine, axis=axis) for x in inputs]))
    return results


def all_to_all(inputs: Arrays, params: Params) -> Arrays:
    world = len(inputs)
    sent: list[Arrays] = []
    for x, of in zip(inputs, params, strict=True):
        sizes = of["input_splits"] or [x.shape[0] // world] * world
        ends = np.cumsum(sizes)
        sent.append([x[end - size : end] for size, end in zip(sizes, ends, strict=True)])
    return [np.concatenate([sent[source][rank] for source in range(world)]) for rank in range(world)]


def broadcast(inputs: Arrays, params: Params) -> Arrays:
    return [inputs[of["src"]].copy() for of in params]


def gather(inputs: Arrays, params: Params) -> Arrays:
    results = []
    for rank, of in enumerate(params):
        joined = np.concatenate(inputs, axis=of["dim"])
        results.append(joined if rank == of["dst"] else joined.take([], axis=of["dim"]))
    return results


def scatter(inputs: Arrays, params: Params) -> Arrays:
    results = []
    for rank, of in enumerate(params):
        start = sum(of["sizes"][:rank])
        mine = np.arange(start, start + of["sizes"][rank])
        results.append(inputs[of["src"]].take(mine, axis=of["dim"]))
    return results


def reduce_scatter_v(inputs: Arrays, params: Params) -> Arrays:
    results = []
    for rank, of in enumerate(params):
        start = sum(of["sizes"][:rank])
        mine = np.arange(start, start + of["sizes"][rank])
        results.append(combine(of["reduce_op"], [x.take(mine, axis=of["dim"]) for x in inputs]))
    return results


def neutral(op: str, like: np.ndarray) -> np.ndarray:
    """What changes nothing; of integers beyond all dtypes, to be cut down to the dtype's own limits."""
    if like.dtype == np.bool_:
        return np.full_like(like, op in ("product", "min", "band"))
    most = np.inf if like.dtype.kind == "f" else BEYOND
    return np.full_like(like, {"product": 1, "band": -1, "min": most, "max": -most}.get(op, 0))


def scan(inputs: Arrays, params: Params) -> Arrays:
    results = []
    for rank, of in enumerate(params):
        results.append(combine(of["reduce_op"], inputs[rank:] if of["reverse"] else inputs[: rank + 1]))
    return results


def exscan(inputs: Arrays, params: Params) -> Arrays:
    results = []
    for rank, of in enumerate(params):
        earlier = inputs[rank + 1 :] if of["reverse"] else inputs[:rank]
        results.append(combine(of["reduce_op"], earlier) if earlier else neutral(of["reduce_op"], inputs[0]))
    return results


def permute(inputs: Arrays, params: Params) -> Arrays:
    results = [np.zeros_like(x) for x in inputs]
    for source, of in enumerate(params):
        if of["destinations"][source] >= 0:
            results[of["destinations"][source]] = inputs[source].copy()
    return results


def reduce_to_one(inputs: Arrays, params: Params) -> Arrays:
    total = combine(params[0]["reduce_op"], inputs)
    return [total if rank == of["dst"] else np.zeros_like(total) for rank, of in enumerate(params)]


def batch_p2p(inputs: Arrays, params: Params) -> Arrays:
    mail: dict[tuple[int, int, int], Arrays] = {}
    for sender, (x, of) in enumerate(zip(inputs, params, strict=True)):
        start = 0
        for to, rows, tag in of["sends"]:
            mail.setdefault((sender, to, tag), []).append(x[start : start + rows])
            start += rows
    return [
        np.concatenate([x[:0], *(mail[sender, rank, tag].pop(0) for sender, _, tag in of["receives"])])
        for rank, (x, of) in enumerate(zip(inputs, params, strict=True))
    ]


def barrier(inputs: Arrays, params: Params) -> Arrays:
    return [x.copy() for x in inputs]


def wait(inputs: Arrays, params: Params) -> Arrays:
    return [x.copy() for x in inputs]


DEFINITIONS: dict[str, Callable[[Arrays, Params], Arrays]] = {
    "all_reduce": all_reduce,
    "all_gather": all_gather,
    "reduce_scatter": reduce_scatter,
    "all_to_all": all_to_all,
    "broadcast": broadcast,
    "gather": gather,
    "scatter": scatter,
    "all_gather_v": all_gather,
    "reduce_scatter_v": reduce_scatter_v,
    "scan": scan,
    "exscan": exscan,
    "barrier": barrier,
    "reduce": reduce_to_one,
    "batch_p2p": batch_p2p,
    "permute": permute,
    "wait": wait,
}


def crossings(name: str, shapes: Sequence[tuple[int, ...]], params: Params) -> list[float]:
    """Count, for every rank, its share of the elements that must cross between ranks at least.

    The model: ranks exchange messages between two ends. An element that one rank has and another wants crosses once.
    An element that is the reduction of `n` ranks' elements and is wanted by `r` ranks, all among the `n`, needs
    `n - 1` crossings to come together on one of them and `r - 1` to reach the others; on the way to the last of them
    the reductions of the ranks before may be had as well. Elements that are moved are
    counted at the rank that has them; elements that are reduced, or that every rank wants alike, are counted in even
    shares, as a schedule that keeps all links busy sends them.

    Who wants what is found by running the definition on the elements' own names.
    """
    world = len(shapes)
    if name in ("all_reduce", "reduce_scatter", "reduce", "scan", "exscan"):
        wanted_by = world if name == "all_reduce" else 1
        elements = int(np.prod(shapes[0]))
        return [elements * ((world - 1) + (wanted_by - 1)) / world] * world
    if name == "reduce_scatter_v":  # a rank sends what others want of it
        rows = int(np.prod(shapes[0])) / (sum(params[0]["sizes"]) or 1)
        return [rows * (sum(of["sizes"]) - of["sizes"][rank]) for rank, of in enumerate(params)]
    starts = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    named = [np.arange(starts[r], starts[r + 1]).reshape(shape) + 1 for r, shape in enumerate(shapes)]
    sent = [0.0] * world
    for receiver, got in enumerate(DEFINITIONS[name](named, params)):
        for element in got.ravel():
            owner = int(np.searchsorted(starts, element - 1, side="right")) - 1
            if element and owner != receiver:
                sent[owner] += 1
    return [sum(sent) / world] * world if name == "broadcast" else sent
