"""The sum of sparse tensors: the ranks say how much each of them has, then each gives its indices and its values."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch

from comm_shm.calls import Step
from comm_shm.codes import REDUCE_OPS, defined
from comm_shm.room import copied

WHERE = "sparse all_reduce"
_WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
_UNSORTED = (torch.uint16, torch.uint32, torch.uint64)  # torch has no coalesce() for them


class SparseSum:
    """The sum of a sparse COO tensor over all ranks; how much the others have is known only once they have said so.

    Every rank gets every rank's indices and values and adds them in rank order, so all have the same bits. float16 and
    bfloat16 are added in float32 and rounded once.

    Args:
        x: the tensor, which gets the sum.
        rank: this rank.
        world: how many ranks there are.

    Shapes:
        The shape and the number of sparse dims are the same on every rank; how many elements are set is not.

    Gradient:
        None here: autograd does not look into process groups.

    Source:
        torch's ProcessGroupGloo, whose ranks exchange indices and values too, and which gives a coalesced tensor.
    """

    def __init__(self, x: torch.Tensor, rank: int, world: int) -> None:
        mine = copied(lambda: x.detach().coalesce(), x._indices(), x._values())
        self._x, self._rank, self._world = x, rank, world
        self._indices, self._values = mine.indices().contiguous(), mine.values().contiguous()
        self._nnz = torch.zeros(world, dtype=torch.int64)
        self._parts: list[tuple[torch.Tensor, torch.Tensor]] = []

    def steps(self) -> list[Step]:
        """Return the steps: what the ranks agree on, how much each has, and for each its indices and its values."""
        layout = zlib.crc32(repr((self._indices.shape[0], tuple(self._x.shape))).encode())
        own = torch.tensor([self._indices.shape[1]])
        steps = [
            Step("announce", WHERE, self._x.numel(), layout, said=self._x.dtype),
            Step("all_gather", WHERE, 1, 0, (own, self._nnz), unsaid=True),
        ]
        for rank in range(self._world):
            for which in range(2):
                steps.append(Step("broadcast", WHERE, 0, rank, late=self._given(rank, which)))
        return [*steps[:-1], steps[-1]._replace(finish=self._put)]

    def _given(self, rank: int, which: int) -> Callable[[], Step]:
        """Return what makes the step in which a rank gives its indices, 0, or its values, 1."""

        def made() -> Step:
            part = self._part(rank)[which]
            return Step("broadcast", WHERE, part.numel(), rank, (part, part), unsaid=True)

        return made

    def _part(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the indices and values of a rank, or the room for them."""
        if rank == len(self._parts):
            nnz, dims = int(self._nnz[rank]), self._indices.shape[0]
            room = self._indices.new_empty((dims, nnz)), self._values.new_empty((nnz, *self._values.shape[1:]))
            self._parts.append((self._indices, self._values) if rank == self._rank else room)
        return self._parts[rank]

    def _put(self) -> None:
        with torch.no_grad():
            self._x.copy_(self._sum())

    def _sum(self) -> torch.Tensor:
        sizes, dtype = self._x.shape[: self._indices.shape[0]], self._values.dtype
        keys, rows = torch.unique(torch.cat([_places(i, sizes) for i, _ in self._parts]), return_inverse=True)
        room = torch.full((len(keys), *self._values.shape[1:]), -0.0)  # -0.0 + x is x, also when that is -0.0
        total = room.to(_WIDE.get(dtype, dtype))
        for at, (_, given) in zip(rows.split(self._nnz.tolist()), self._parts, strict=True):
            total[at] = total[at] | given if dtype is torch.bool else total[at] + given
        where = torch.stack(torch.unravel_index(keys, sizes)) if sizes else keys.new_empty((0, len(keys)))
        return torch.sparse_coo_tensor(where, total.to(dtype), self._x.shape, is_coalesced=True)


def summable(dtype: torch.dtype, code: int) -> bool:
    """Return whether sparse tensors of a dtype can be reduced by an op: by sums only, as over gloo.

    Example:
        >>> summable(torch.float32, 0), summable(torch.float32, 1)
        (True, False)
    """
    return code == REDUCE_OPS.index("sum") and defined(dtype, code) and dtype not in _UNSORTED


def _places(indices: torch.Tensor, sizes: torch.Size) -> torch.Tensor:
    """Return the number of each element among all that the sparse dims have room for."""
    places = indices.new_zeros(indices.shape[1])
    for along, size in zip(indices, sizes, strict=True):
        places = places * size + along
    return places
