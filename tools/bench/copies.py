"""Claim: a call takes room for its result and for at most one more copy of its payload, and so does its backward.

What torch's allocator gives out while a call runs and is waited for is counted, on rank 0 (the root, where there is
one) of c10d's fake group, which moves nothing and takes nothing itself. A payload is the larger of what the call is
given and what it gives back. Backward is that of the call's result by its tensor, for a cotangent that is there:

    python tools/bench/copies.py [--json docs/assets/bench/copies.json]

Both are counted: the most that is there at one time, and all that is given out, freed again or not. Where backward
computes more than it moves, or several tensors travel in one message, `MORE` says what it is given one after the other.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _pulled_back import ROWS, backward, nearly_even

from comm_core.testing import run_ranks
from comm_core.testing.allocations import allocated

WORLDS = (2, 3, 4)
LIMIT = 1.0  # copies, to two decimals
IN_PLACE = "in place"  # how the variants begin whose result takes no room
MORE = {
    ("all_reduce", "backward of max"): 3.25,  # who holds it, as bools and as numbers, how many hold it, and the sum
    ("all_reduce", "backward of product"): 3.0,  # a share of all ranks' factors, what it makes, and the sum
    ("reduce", "backward of max"): 4.25,  # the extremum as well, which only the root had
    ("reduce", "backward of product"): 3.0,
    (
        "reduce_scatter",
        "backward of min, dim 1",
    ): 5.25,  # the extrema as well, put in their places as the sum is
    ("reduce_scatter", "backward of product"): 3.0,
    ("reduce_scatter", "backward, coalesced"): 1.5,  # the row of the cotangents, and that of the gradients
    ("reduce_scatter_v", "backward of max, dim 1"): 5.25,
    ("scan", "backward of max"): 4.5,  # a share of all ranks' tensors and of their cotangents, the rest piece by piece
    ("exscan", "backward of product"): 2.0,
}
"""The most copies that a backward is given which is given more than one, with the reason."""


def calls(group: Any) -> dict[tuple[str, str], tuple[Any, int]]:
    """Return each call with the bytes it is given, by the name of its entry in the catalogue and its variant."""
    of_floats = {**even(group), **uneven(group), **reductions(group), **coalesced(group), **in_place(group)}
    return {**of_floats, **multiplied(group), **conjugated(group), **narrow(group), **backward(group)}


def stepped(rows: int) -> Any:
    """Return a square that is not contiguous, and whose copy takes torch no room beside the copy."""
    import torch

    return torch.ones(rows, 2 * rows)[:, ::2]


def even(group: Any) -> dict[tuple[str, str], tuple[Any, int]]:
    """Return the calls that treat all ranks alike."""
    import torch

    import functional_collectives as fc

    x, view, wait = torch.ones(ROWS, ROWS), stepped(ROWS), fc.wait_tensor
    w, shift = x.clone().requires_grad_(), [(rank + 1) % group.world for rank in range(group.world)]
    left, right = (group.rank - 1) % group.world, (group.rank + 1) % group.world
    messages = [fc.Send(x, right), fc.Receive(x, left)]
    of_views = [fc.Send(view, right), fc.Receive(view, left)]
    learnt = [fc.Send(stepped(ROWS).requires_grad_(), right), fc.Receive(view, left)]
    found = {
        ("all_reduce", ""): lambda: wait(fc.all_reduce(x, "sum", group)),
        ("all_reduce", "of a view"): lambda: wait(fc.all_reduce(view, "sum", group)),
        ("all_reduce", "with a gradient"): lambda: wait(fc.all_reduce(w, "sum", group)),
        ("all_gather", ""): lambda: wait(fc.all_gather_tensor(x, 0, group)),
        ("all_gather", "dim 1"): lambda: wait(fc.all_gather_tensor(x, 1, group)),
        ("all_gather", "dim 1 of a view"): lambda: wait(fc.all_gather_tensor(view, 1, group)),
        ("all_gather", "with a gradient"): lambda: wait(fc.all_gather_tensor(w, 0, group)),
        ("reduce_scatter", ""): lambda: wait(fc.reduce_scatter_tensor(x, "sum", 0, group)),
        ("reduce_scatter", "dim 1"): lambda: wait(fc.reduce_scatter_tensor(x, "sum", 1, group)),
        ("reduce_scatter", "of a view"): lambda: wait(fc.reduce_scatter_tensor(view, "sum", 0, group)),
        ("reduce_scatter", "with a gradient"): lambda: wait(fc.reduce_scatter_tensor(w, "sum", 0, group)),
        ("all_to_all", ""): lambda: wait(fc.all_to_all_single(x, None, None, group)),
        ("all_to_all", "of a view"): lambda: wait(fc.all_to_all_single(view, None, None, group)),
        ("broadcast", ""): lambda: wait(fc.broadcast(x, 0, group)),
        ("permute", ""): lambda: wait(fc.permute_tensor(x, shift, group)),
        ("permute", "of a view"): lambda: wait(fc.permute_tensor(view, shift, group)),
        ("reduce", ""): lambda: wait(fc.reduce(x, "sum", 0, group)),
        ("scan", ""): lambda: wait(fc.scan(x, "sum", group)),
        ("scan", "of a view"): lambda: wait(fc.scan(view, "sum", group)),
        ("scan", "avg in reverse"): lambda: wait(fc.scan(x, "avg", group, reverse=True)),
        ("scan", "max, with a gradient"): lambda: wait(fc.scan(w, "max", group)),
        ("exscan", "product, with a gradient"): lambda: wait(fc.exscan(w, "product", group)),
        ("exscan", ""): lambda: wait(fc.exscan(x, "max", group)),
        ("exscan", "of a view"): lambda: wait(fc.exscan(view, "max", group)),
        ("batch_p2p", ""): lambda: [wait(y) for y in fc.batch_p2p(messages, group)],
        ("batch_p2p", "of views"): lambda: [wait(y) for y in fc.batch_p2p(of_views, group)],
        ("batch_p2p", "of views, with a gradient"): lambda: [wait(y) for y in fc.batch_p2p(learnt, group)],
    }
    return {name: (call, x.nbytes) for name, call in found.items()}


def uneven(group: Any) -> dict[tuple[str, str], tuple[Any, int]]:
    """Return the calls in which ranks hold or get blocks of their own size, or only one has a whole tensor."""
    import torch

    import functional_collectives as fc

    x, view, wait, n = torch.ones(ROWS, ROWS), stepped(ROWS), fc.wait_tensor, group.world
    shares, alike = nearly_even(n), [ROWS] * n
    found = {
        ("all_gather_v", ""): lambda: wait(fc.all_gather_v(x, 0, group, sizes=alike)),
        ("all_gather_v", "dim 1"): lambda: wait(fc.all_gather_v(x, 1, group, sizes=alike)),
        ("all_gather_v", "dim 1 of a view"): lambda: wait(fc.all_gather_v(view, 1, group, sizes=alike)),
        ("gather", ""): lambda: wait(fc.gather(x, 0, 0, group)),
        ("gather", "dim 1"): lambda: wait(fc.gather(x, 0, 1, group)),
        ("gather", "dim 1 of a view"): lambda: wait(fc.gather(view, 0, 1, group)),
        ("scatter", ""): lambda: wait(fc.scatter(x, 0, 0, group, sizes=shares)),
        ("scatter", "dim 1"): lambda: wait(fc.scatter(x, 0, 1, group, sizes=shares)),
        ("scatter", "dim 1 of a view"): lambda: wait(fc.scatter(view, 0, 1, group, sizes=shares)),
    }
    return {name: (call, x.nbytes) for name, call in found.items()}


def reductions(group: Any) -> dict[tuple[str, str], tuple[Any, int]]:
    """Return the reductions of which each rank keeps a block of its own size."""
    import torch

    import functional_collectives as fc

    x, view, wait, n = torch.ones(ROWS, ROWS), stepped(ROWS), fc.wait_tensor, group.world
    greedy, even, shares = [ROWS - 8 * (n - 1), *[8] * (n - 1)], [ROWS // n] * n, nearly_even(n)
    stack = x.view(2, ROWS // 2, ROWS)
    found = {
        ("reduce_scatter_v", ""): lambda: wait(fc.reduce_scatter_v(x, "avg", 0, group, sizes=shares)),
        ("reduce_scatter_v", "of a view"): lambda: wait(fc.reduce_scatter_v(view, "avg", 0, group, sizes=shares)),
        ("reduce_scatter_v", "even"): lambda: wait(fc.reduce_scatter_v(x, "avg", 0, group, sizes=even)),
        ("reduce_scatter_v", "even, of a view"): lambda: wait(fc.reduce_scatter_v(view, "avg", 0, group, sizes=even)),
        ("reduce_scatter_v", "dim 1"): lambda: wait(fc.reduce_scatter_v(x, "avg", 1, group, sizes=shares)),
        ("reduce_scatter_v", "dim 1 of a view"): lambda: wait(fc.reduce_scatter_v(view, "avg", 1, group, sizes=shares)),
        ("reduce_scatter_v", "dim 2"): lambda: wait(fc.reduce_scatter_v(stack, "max", 2, group, sizes=shares)),
        ("reduce_scatter_v", "most to one"): lambda: wait(fc.reduce_scatter_v(x, "sum", 0, group, sizes=greedy)),
        ("reduce_scatter_v", "dim 1, most to one"): lambda: wait(fc.reduce_scatter_v(x, "sum", 1, group, sizes=greedy)),
        ("reduce_scatter_v", "dim 1 behind one row"): lambda: wait(
            fc.reduce_scatter_v(x[None], "sum", 1, group, sizes=shares)
        ),
    }
    return {name: (call, x.nbytes) for name, call in found.items()}


def multiplied(group: Any) -> dict[tuple[str, str], tuple[Any, int]]:
    """Return the sums of what each rank multiplies first."""
    import torch

    import functional_collectives as fc

    x, view, wait, n = torch.ones(ROWS, ROWS), stepped(ROWS), fc.wait_tensor, group.world
    op, w, even = fc.premul_sum(0.5), x.clone().requires_grad_(), [ROWS // n] * n
    learnt = fc.premul_sum(torch.tensor(0.5, requires_grad=True))
    found = {
        ("all_reduce", "premul_sum"): lambda: wait(fc.all_reduce(x, op, group)),
        ("all_reduce", "premul_sum of a view"): lambda: wait(fc.all_reduce(view, op, group)),
        ("all_reduce", "premul_sum, with a gradient"): lambda: wait(fc.all_reduce(w, op, group)),
        ("reduce", "premul_sum"): lambda: wait(fc.reduce(x, op, 0, group)),
        ("reduce_scatter", "premul_sum"): lambda: wait(fc.reduce_scatter_tensor(x, op, 0, group)),
        ("reduce_scatter", "premul_sum, dim 1"): lambda: wait(fc.reduce_scatter_tensor(x, op, 1, group)),
        ("reduce_scatter", "premul_sum of a view"): lambda: wait(fc.reduce_scatter_tensor(view, op, 0, group)),
        ("reduce_scatter", "premul_sum, dim 1, with a gradient"): lambda: wait(
            fc.reduce_scatter_tensor(w, learnt, 1, group)
        ),
        ("reduce_scatter_v", "premul_sum"): lambda: wait(fc.reduce_scatter_v(x, op, 0, group, sizes=even)),
        ("reduce_scatter_v", "premul_sum, uneven"): lambda: wait(
            fc.reduce_scatter_v(x, op, 0, group, sizes=nearly_even(n))
        ),
        ("reduce_scatter_v", "premul_sum, dim 1"): lambda: wait(fc.reduce_scatter_v(view, op, 1, group, sizes=even)),
        ("scan", "premul_sum"): lambda: wait(fc.scan(x, op, group)),
        ("scan", "premul_sum of a view"): lambda: wait(fc.scan(view, op, group)),
        ("scan", "premul_sum, with a gradient"): lambda: wait(fc.scan(w, learnt, group)),
        ("exscan", "premul_sum"): lambda: wait(fc.exscan(x, op, group)),
    }
    counts = {name: (call, x.nbytes) for name, call in found.items()}
    counts["all_reduce", "premul_sum, coalesced"] = (
        lambda: [wait(y) for y in fc.all_reduce_coalesced([x, x], op, group)],
        2 * x.nbytes,
    )
    counts["reduce_scatter", "premul_sum, coalesced"] = (
        lambda: [wait(y) for y in fc.reduce_scatter_tensor_coalesced([x, w], op, [0, 1], group)],
        2 * x.nbytes,
    )
    counts["reduce_scatter", "coalesced, with a gradient"] = (
        lambda: [wait(y) for y in fc.reduce_scatter_tensor_coalesced([w, x], "sum", [1, 0], group)],
        2 * x.nbytes,
    )
    counts["all_reduce", f"{IN_PLACE}, premul_sum"] = (lambda: fc.all_reduce_inplace(x, op, group), x.nbytes)
    return counts


def conjugated(group: Any) -> dict[tuple[str, str], tuple[Any, int]]:
    """Return calls on a tensor whose memory holds the conjugates of its values."""
    import torch

    import functional_collectives as fc
    from comm_core import launch
    from comm_core.catalog import ALL_REDUCE

    x, wait, n = torch.ones(ROWS, ROWS, dtype=torch.complex64).conj(), fc.wait_tensor, group.world
    even, ring = [ROWS // n] * n, [fc.Send(x, (group.rank + 1) % n), fc.Receive(x, (group.rank - 1) % n)]
    found = {
        ("all_reduce", "of a conjugate"): lambda: wait(fc.all_reduce(x, "sum", group)),
        ("all_gather", "of a conjugate"): lambda: wait(fc.all_gather_tensor(x, 0, group)),
        ("all_gather", "of a conjugate, dim 1"): lambda: wait(fc.all_gather_tensor(x, 1, group)),
        ("all_gather_v", "of a conjugate, dim 1"): lambda: wait(fc.all_gather_v(x, 1, group, sizes=[ROWS] * n)),
        ("gather", "of a conjugate, dim 1"): lambda: wait(fc.gather(x, 0, 1, group)),
        ("reduce_scatter", "of a conjugate, dim 1"): lambda: wait(fc.reduce_scatter_tensor(x, "sum", 1, group)),
        ("reduce_scatter_v", "of a conjugate"): lambda: wait(fc.reduce_scatter_v(x, "sum", 0, group, sizes=even)),
        ("reduce_scatter_v", "of a conjugate, dim 1"): lambda: wait(
            fc.reduce_scatter_v(x, "sum", 1, group, sizes=even)
        ),
        ("scatter", "of a conjugate, dim 1"): lambda: wait(fc.scatter(x, 0, 1, group, sizes=nearly_even(n))),
        ("scan", "of a conjugate"): lambda: wait(fc.scan(x, "sum", group)),
        ("scan", "premul_sum of a conjugate"): lambda: wait(fc.scan(x, fc.premul_sum(2j), group)),
        ("reduce_scatter", "premul_sum of a conjugate, dim 1"): lambda: wait(
            fc.reduce_scatter_tensor(x, fc.premul_sum(0.5), 1, group)
        ),
        ("all_reduce", "of a conjugate, by `launch`"): lambda: launch(ALL_REDUCE, x, group, reduce_op="sum").wait(),
        ("batch_p2p", "of a conjugate"): lambda: [wait(y) for y in fc.batch_p2p(ring, group)],
        ("permute", "of a conjugate"): lambda: wait(fc.permute_tensor(x, [(rank + 1) % n for rank in range(n)], group)),
    }
    counts = {name: (call, x.nbytes) for name, call in found.items()}
    counts["reduce_scatter", "coalesced, of conjugates"] = (
        lambda: [wait(y) for y in fc.reduce_scatter_tensor_coalesced([x, x], "sum", [0, 1], group)],
        2 * x.nbytes,
    )
    return counts


def narrow(group: Any) -> dict[tuple[str, str], tuple[Any, int]]:
    """Return the reductions of float8, computed in float32: of 55 MB, beside which the room for that is not seen."""
    import torch

    import functional_collectives as fc

    x = torch.ones(ROWS, 240 * ROWS).to(torch.float8_e4m3fn)
    view, wait, n = torch.stack([x, x], -1)[..., 0], fc.wait_tensor, group.world
    even, greedy = [ROWS // n] * n, [ROWS - 8 * (n - 1), *[8] * (n - 1)]
    found = {
        ("scan", "of float8"): lambda: wait(fc.scan(x, "avg", group)),
        ("exscan", "of a float8 view"): lambda: wait(fc.exscan(view, "sum", group)),
        ("reduce_scatter_v", "of float8"): lambda: wait(fc.reduce_scatter_v(x, "avg", 0, group, sizes=even)),
        ("reduce_scatter_v", "of a float8 view"): lambda: wait(fc.reduce_scatter_v(view, "max", 0, group, sizes=even)),
        ("reduce_scatter_v", "of float8, dim 1"): lambda: wait(
            fc.reduce_scatter_v(x, "sum", 1, group, sizes=[240 * size for size in greedy])
        ),
    }
    return {name: (call, x.nbytes) for name, call in found.items()}


def coalesced(group: Any) -> dict[tuple[str, str], tuple[Any, int]]:
    """Return the calls that take several tensors."""
    import torch

    import functional_collectives as fc

    x, wait = torch.ones(ROWS, ROWS), fc.wait_tensor
    found = {
        ("all_reduce", "coalesced"): lambda: [wait(y) for y in fc.all_reduce_coalesced([x, x], "sum", group)],
        ("all_gather", "coalesced"): lambda: [wait(y) for y in fc.all_gather_into_tensor_coalesced([x, x], group)],
        ("reduce_scatter", "coalesced"): lambda: [
            wait(y) for y in fc.reduce_scatter_tensor_coalesced([x, x], "sum", [0, 1], group)
        ],
    }
    return {name: (call, 2 * x.nbytes) for name, call in found.items()}


def in_place(group: Any) -> dict[tuple[str, str], tuple[Any, int]]:
    """Return the calls that write into tensors they are given; their result takes no room."""
    import torch

    import functional_collectives as fc

    x, whole = torch.ones(ROWS, ROWS), torch.empty(group.world * ROWS, ROWS)
    own = torch.empty(ROWS // group.world, ROWS)
    rows, parts = list(whole.chunk(group.world)), list(x.chunk(group.world))
    return {
        ("all_reduce", IN_PLACE): (lambda: fc.all_reduce_inplace(x, "sum", group), x.nbytes),
        ("all_gather", IN_PLACE): (lambda: fc.all_gather_tensor_inplace(whole, x, group), whole.nbytes),
        ("all_gather", f"{IN_PLACE}, a list"): (lambda: fc.all_gather_inplace(rows, x, group), whole.nbytes),
        ("reduce_scatter", IN_PLACE): (lambda: fc.reduce_scatter_tensor_inplace(own, x, "sum", group), x.nbytes),
        ("reduce_scatter", f"{IN_PLACE}, a list"): (
            lambda: fc.reduce_scatter_inplace(own, parts, "sum", group),
            x.nbytes,
        ),
    }


def counted(group: Any) -> dict[tuple[str, str], tuple[float, float]]:
    """Return, for each call, the copies of its payload that it is given beside its result, and the most at one time."""
    found = {}
    for name, (call, given) in calls(group).items() if group.rank == 0 else ():
        taken = allocated(call)
        made, payload = 0 if name[1].startswith(IN_PLACE) else taken.result, max(given, taken.result, 1)
        found[name] = (taken.given_out - made) / payload, (taken.at_once - made) / payload
    return found


def copies(world: int) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the copies of each call in a group of `world` ranks, all of them and the most at one time."""
    found = run_ranks(counted, world, "fake", timeout=200.0)[0]
    return {name: (round(many, 2), round(most, 2)) for name, (many, most) in found.items()}


def over(found: dict[tuple[str, str], tuple[float, float]]) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the calls that take more than they may."""
    return {name: took for name, took in found.items() if took[0] > MORE.get(name, LIMIT) or took[1] > LIMIT}


def main() -> None:
    """Count on this machine and print the table."""
    from _machine import machine, sentence

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    found = {world: copies(world) for world in WORLDS}
    print(f"copies of the payload beside the result, all (at one time), in groups of {WORLDS} ranks")
    print(sentence(machine()))
    rows: list[dict[str, Any]] = []
    for name in found[WORLDS[0]]:
        took = {str(world): found[world][name] for world in WORLDS}
        many, most = ({world: each[place] for world, each in took.items()} for place in (0, 1))
        rows.append({"name": name[0], "variant": name[1], "copies": many, "at_once": most})
        verdict = "  more than the limit" if any(over({name: each}) for each in took.values()) else ""
        cells = "".join(f"{many[world]:>7.2f} ({most[world]:.2f})" for world in took)
        print(f"{name[0]:<18}{name[1]:<36}{cells}{verdict}")
    if arguments.json is not None:
        result = {"claim": "copies", "limit": 1, "machine": machine(), "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
