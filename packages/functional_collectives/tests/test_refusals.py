"""In checked mode a mistake on one rank ends the call on every rank, at once: each parameter of each function."""

import inspect

import pytest
import torch

import functional_collectives as fc
from comm_core import errors


def _ones(n, dtype):
    return torch.ones(n, n, dtype=dtype)


# A call of each function that is right, for n ranks and a dtype. `group` is added to each.
RIGHT = {
    "all_reduce": lambda n, x: {"self": x, "reduceOp": "sum"},
    "all_gather_tensor": lambda n, x: {"self": x, "gather_dim": 0},
    "reduce_scatter_tensor": lambda n, x: {"self": x, "reduceOp": "sum", "scatter_dim": 0},
    "all_to_all_single": lambda n, x: {"self": x, "output_split_sizes": [1] * n, "input_split_sizes": [1] * n},
    "broadcast": lambda n, x: {"self": x, "src": 0},
    "permute_tensor": lambda n, x: {"self": x, "src_dst": list(range(n))},
    "all_reduce_coalesced": lambda n, x: {"self": [x], "reduceOp": "sum"},
    "all_gather_into_tensor_coalesced": lambda n, x: {"self": [x]},
    "reduce_scatter_tensor_coalesced": lambda n, x: {"inputs": [x], "reduceOp": "sum", "scatter_dim": [0]},
    "all_reduce_inplace": lambda n, x: {"tensor": x, "op": "sum"},
    "all_gather_tensor_inplace": lambda n, x: {"output_tensor": torch.cat([x] * n), "input_tensor": x, "gather_dim": 0},
    "reduce_scatter_tensor_inplace": lambda n, x: {"output": x[:1] + 0, "input": x, "op": "sum", "scatter_dim": 0},
    "all_to_all_inplace": lambda n, x: {
        "output": x + 0,
        "input": x,
        "output_split_sizes": [1] * n,
        "input_split_sizes": [1] * n,
    },
    "all_gather_inplace": lambda n, x: {"tensor_list": [x + 0 for _ in range(n)], "tensor": x},
    "reduce_scatter_inplace": lambda n, x: {"output": x + 0, "input_list": [x] * n, "op": "sum"},
    "gather": lambda n, x: {"x": x, "dst": 0, "gather_dim": 0, "sizes": [n] * n},
    "reduce": lambda n, x: {"x": x, "reduceOp": "sum", "dst": 0},
    "scatter": lambda n, x: {"x": x, "src": 0, "scatter_dim": 0},
    "all_gather_v": lambda n, x: {"x": x, "gather_dim": 0},
    "reduce_scatter_v": lambda n, x: {"x": x, "reduceOp": "sum", "scatter_dim": 0},
    "scan": lambda n, x: {"x": x, "reduceOp": "sum", "reverse": False},
    "exscan": lambda n, x: {"x": x, "reduceOp": "sum", "reverse": False},
    "barrier": lambda n, x: {},
}

# The others, and why no rank can wait for one that refuses.
NO_MEETING = {
    "isend": "only the two ends of a message know of it",
    "irecv": "only the two ends of a message know of it",
    "batch_p2p": "only the two ends of a message know of it",
    "isend_inplace": "only the two ends of a message know of it",
    "irecv_inplace": "only the two ends of a message know of it",
    "batch_p2p_ops_inplace": "only the two ends of a message know of it",
    "wait_tensor": "no other rank takes part",
    "premul_sum": "no other rank takes part",
    "inflight": "no other rank takes part",
    "checked": "no other rank takes part",
    "remapped": "no other rank takes part",
    "allow_inflight_collective_as_graph_input_ctx": "no other rank takes part",
}

_TENSORS = [3, torch.ones(2, 2).to_sparse()]
_LISTS = [torch.ones(2, 2), 3, [3]]
_DIMS = [2, -3, "0"]
_RANKS = [9, "0"]
_SIZES = [[1], [-1], 3, "sizes"]
_SPLITS = [[1], [-1], None, 3]
_OPS = ["summ", None, "band"]
_OUTPUTS = [3, torch.ones(5, 5), torch.ones(1, dtype=torch.int8)]

# What is wrong for a parameter; of a function where its own differs.
WRONG = {
    **dict.fromkeys(("self", "tensor", "input_tensor", "input", "x"), _TENSORS),
    **dict.fromkeys(("gather_dim", "scatter_dim"), _DIMS),
    **dict.fromkeys(("reduceOp", "op"), _OPS),
    **dict.fromkeys(("output_tensor", "output"), _OUTPUTS),
    **dict.fromkeys(("src", "dst"), _RANKS),
    "output_split_sizes": _SPLITS,
    "input_split_sizes": _SPLITS,
    "sizes": _SIZES,
    "src_dst": [[0, 0, 0, 0], [9], 3],
    "tensor_list": [3, [], [torch.ones(5, 5)] * 3, [torch.ones(5, 5)] * 2],
    "input_list": [3, [], [torch.ones(5, 5)] * 3, [torch.ones(5, 5)] * 2, [3] * 3, [3] * 2],
    "reverse": [3],
    "tag": ["a tag"],
    "async_op": [True],
    "backward": ["megatron", None],
    "all_reduce_coalesced.self": _LISTS,
    "all_gather_into_tensor_coalesced.self": _LISTS,
    "reduce_scatter_tensor_coalesced.inputs": _LISTS,
    "reduce_scatter_tensor_coalesced.scatter_dim": [0, [], [0, 0], [2]],
}


def mistakes(name):
    """Return, for each wrong call of a function, the parameter and its value."""
    parameters = [each for each in inspect.signature(getattr(fc, name)).parameters if each != "group"]
    return [(of, value) for of in parameters for value in WRONG.get(f"{name}.{of}", WRONG.get(of, ()))]


def tries(name, n):
    """Return, for each mistake, what it is, the right call's parameters and the wrong one's."""
    right = RIGHT[name](n, _ones(n, torch.float32))
    for of, value in mistakes(name):
        yield f"{of}={value if isinstance(value, str | int | None) else type(value)}", right, {**right, of: value}
    of_ints = RIGHT[name](n, _ones(n, torch.int32))
    for of in {"reduceOp", "op"} & right.keys():
        yield "a sum of ints times a factor", of_ints, {**of_ints, of: fc.premul_sum(2.0)}


def each_mistake(group, name):
    """Let each rank in turn make each mistake, and say what all of them got, and whether the group still works."""
    rows = []
    call = getattr(fc, name)
    for what, right, wrong in tries(name, group.world):
        for odd in range(group.world):
            with fc.checked(timeout_s=20), pytest.raises(errors.CommError) as caught:
                call(**(wrong if group.rank == odd else right), group=group)
            rows.append(said(group, f"{what} on rank {odd}", odd, caught.value))
    for odd in range(group.world):
        with fc.checked(timeout_s=20), pytest.raises(errors.CommError) as caught:
            fc.broadcast(torch.ones(5), 1, group) if group.rank == odd else call(
                **RIGHT[name](group.world, _ones(group.world, torch.float32)), group=group
            )
        rows.append(said(group, f"another call on rank {odd}", odd, caught.value))
    return rows


def said(group, row, odd, error):
    """Return what a rank got for a mistake, and what it gets from the next call."""
    after = fc.all_reduce(torch.ones(1), "sum", group).item()
    return row, group.rank == odd, type(error).__name__, str(error), after


@pytest.mark.world(2, 3)
@pytest.mark.parametrize("name", RIGHT)
def test_a_mistake_on_one_rank_ends_the_call_on_every_rank(world, name):
    """The others hear of it while they wait: a `MismatchError`, and not that somebody has not come in time."""
    for of_rank in world.run(each_mistake, name):
        assert of_rank
        for row, wrong, kind, words, after in of_rank:
            assert kind != "RankTimeoutError", (row, words)
            assert wrong or kind == "MismatchError", (row, kind, words)
            assert after == world.size, row


WRITTEN = {
    "all_reduce_inplace": "tensor",
    "all_gather_tensor_inplace": "output_tensor",
    "reduce_scatter_tensor_inplace": "output",
    "all_to_all_inplace": "output",
    "reduce_scatter_inplace": "output",
}


def each_expanded_output(group):
    """Let the last rank give each in-place form an output of which all elements are one."""
    rows = []
    for name, of in WRITTEN.items():
        right = RIGHT[name](group.world, _ones(group.world, torch.float32))
        given = {**right, of: torch.ones(()).expand(right[of].shape)} if group.rank == group.world - 1 else right
        with fc.checked(timeout_s=20), pytest.raises(errors.CommError) as caught:
            getattr(fc, name)(**given, group=group)
        rows.append(said(group, name, group.world - 1, caught.value))
    return rows


@pytest.mark.world(2)
def test_an_output_of_which_elements_are_one_is_refused_before_the_ranks_meet(world):
    for of_rank in world.run(each_expanded_output):
        for row, wrong, kind, words, after in of_rank:
            assert kind == ("ArgumentError" if wrong else "MismatchError"), (row, words)
            assert not wrong or "of which several elements are one" in words
            assert after == world.size, row


def test_every_public_function_and_every_parameter_of_it_has_its_mistake():
    public = {of.__name__ for name in fc.__all__ if inspect.isfunction(of := getattr(fc, name))}
    assert RIGHT.keys() <= public <= RIGHT.keys() | NO_MEETING.keys()
    assert not RIGHT.keys() & NO_MEETING.keys()
    for name in RIGHT:
        parameters = inspect.signature(getattr(fc, name)).parameters.keys() - {"group"}
        assert parameters == {of for of, _ in mistakes(name)}, name
