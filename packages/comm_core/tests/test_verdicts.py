"""What ranks say, and what follows from it."""

from __future__ import annotations

import pytest
import torch

from comm_core.catalog import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, BROADCAST
from comm_core.errors import MismatchError, RankFailedError, RankTimeoutError
from comm_core.verdicts import Said, gone, late, packed, said_of, said_of_list, unpacked, verdict


def reducing(x: torch.Tensor, op: str = "sum", where: str = "a.py:1") -> Said:
    return said_of(ALL_REDUCE, x, {"reduce_op": op}, where)


def test_what_is_said_arrives() -> None:
    said = said_of(ALL_TO_ALL, torch.ones(3, 2), {"output_splits": (1, 2), "input_splits": (1, 2)}, "ä b.py:12")
    assert Said.decode(said.encode()) == said
    assert said.own


def test_only_what_ranks_may_say_differently_is_said_apart() -> None:
    assert not reducing(torch.ones(2)).own
    assert not said_of(BROADCAST, torch.ones(2), {"src": 1}, "").own


X = torch.ones(4)


@pytest.mark.parametrize(
    "other",
    [
        reducing(torch.ones(5)),
        reducing(torch.ones(2, 2)),
        reducing(X.double()),
        reducing(X.to("meta")),
        reducing(X, "max"),
        said_of(BROADCAST, X, {"src": 0}, "b.py:2"),
        said_of_list(ALL_REDUCE, [X], [{"reduce_op": "sum"}], "all_reduce_coalesced", "b.py:2"),
        Said("all_reduce", "", "b.py:2", "got dim 7"),
    ],
    ids=["size", "shape", "dtype", "device", "reduce op", "collective", "list", "refused"],
)
@pytest.mark.parametrize("world", [2, 3])
def test_a_difference_of_any_kind_is_seen(other: Said, world: int) -> None:
    said = {rank: reducing(X) for rank in range(world)}
    assert verdict(said) is None
    for rank in range(world):
        error = verdict({**said, rank: other})
        assert isinstance(error, MismatchError)
        assert "a.py:1" in str(error)
        assert str(error).count("\n") == world + 1
        assert other.refused in str(error)


def test_roots_and_lists_that_differ_are_seen() -> None:
    roots = {rank: said_of(BROADCAST, X, {"src": rank}, "") for rank in range(2)}
    assert isinstance(verdict(roots), MismatchError)
    op = {"reduce_op": "sum"}
    lists = [[torch.ones(2), torch.ones(3)], [torch.ones(3), torch.ones(2)], [torch.ones(5)]]
    said = [said_of_list(ALL_REDUCE, xs, [op] * len(xs), "all_reduce_coalesced", "") for xs in lists]
    assert verdict({0: said[0], 1: said[0]}) is None
    assert isinstance(verdict({0: said[0], 1: said[1]}), MismatchError)
    assert isinstance(verdict({0: said[0], 1: said[2]}), MismatchError)


def exchanging(rows: int, outputs: tuple[int, ...], inputs: tuple[int, ...]) -> Said:
    return said_of(ALL_TO_ALL, torch.ones(rows, 2), {"output_splits": outputs, "input_splits": inputs}, "c.py:3")


def test_splits_fit_together_or_the_pair_that_does_not_is_named() -> None:
    assert verdict({0: exchanging(3, (1, 4), (1, 2)), 1: exchanging(7, (2, 3), (4, 3))}) is None
    error = verdict({0: exchanging(3, (1, 5), (1, 2)), 1: exchanging(7, (2, 3), (4, 3))})
    assert isinstance(error, MismatchError)
    assert "rank 1 sends 4 rows to rank 0, which expects 5" in str(error)
    assert "output_splits [1, 5]" in str(error)
    same = {rank: exchanging(4, (1, 3), (1, 3)) for rank in range(2)}  # equal on both ranks, and wrong
    assert isinstance(verdict(same), MismatchError)


def test_who_is_late_or_gone_is_named_with_what_it_did_last() -> None:
    call, last = reducing(X, where="now.py:9"), {2: Said("all_reduce", "", "then.py:4")}
    error = late(call, [1, 2], last, 3.0)
    assert isinstance(error, RankTimeoutError)
    for words in (
        "rank 1 has not come: it has made no checked call",
        "rank 2 has not come: last",
        "then.py:4",
        "now.py:9",
    ):
        assert words in str(error)
    assert isinstance(gone(call, [2], last), RankFailedError)
    assert "rank 2 has ended: last all_reduce() at then.py:4" in str(gone(call, [2], last))


def test_errors_arrive() -> None:
    for error in (late(reducing(X), [1], {}, 1.0), gone(reducing(X), [1], {}), MismatchError("x", "a\nb", "c", "d")):
        again = unpacked(packed(error))
        assert (type(again), str(again)) == (type(error), str(error))


def test_a_gather_says_its_dim() -> None:
    said = {0: said_of(ALL_GATHER, X, {"dim": 0}, ""), 1: said_of(ALL_GATHER, X, {"dim": 1}, "")}
    assert isinstance(verdict(said), MismatchError)
