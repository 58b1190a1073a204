"""Collectives with one rank that gives or gets everything: reduce, gather, scatter."""

from __future__ import annotations

from array import array
from datetime import timedelta
from typing import Any

import torch

from comm_core.errors import ArgumentError
from comm_shm.movement import Message, MovingGroup, Tensors, flat_of, one_list, put, scaled
from comm_shm.work import FinishedWork


class RootedGroup(MovingGroup):
    """The collectives of a group over shared memory that have a root, on top of those that have none."""

    def reduce(  # type: ignore[override]  # one signature for both overloads
        self, tensors: Tensors | torch.Tensor, opts: Any = None, timeout: timedelta | None = None
    ) -> FinishedWork:
        """Reduce into the root's tensor; the others keep theirs.

        Raises:
            MismatchError: sizes, dtypes, reduce ops or roots differ; raised on every rank, no data was touched.
        """
        x = tensors if isinstance(tensors, torch.Tensor) else self._only("reduce", tensors)
        root, op = self._root("reduce", opts), getattr(opts, "reduceOp", None)
        code = self._reduction("reduce", x, x, op)
        total = scaled(flat_of(x).clone(), op, code)
        native, limit = self._native.all_reduce_one_of, self._limit(opts, timeout)
        self._move(native, Message("reduce", x.numel(), root), (total, total), limit, code)
        if self._rank == root:
            put(x, total)
        return FinishedWork([x])

    def gather(  # type: ignore[override]  # one signature for all overloads
        self, lists: list[Tensors], inputs: Tensors, opts: Any = None, timeout: timedelta | None = None
    ) -> FinishedWork:
        """Write every rank's tensor into a tensor of the root's list; all of one size."""
        x, root = self._only("gather", inputs), self._root("gather", opts)
        self._check("gather", x, x)
        here = self._rank == root
        outs = one_list(lists) if here else []
        whole = self._whole("gather", outs, x) if here else x.new_empty(0)
        give = [x.numel() if rank == root else 0 for rank in range(self._world)]
        take = [x.numel() if here else 0] * self._world
        self._exchange("gather", (whole, x), array("Q", give + take), self._limit(opts, timeout), x.numel())
        for out, part in zip(outs, whole.split(x.numel()) if x.numel() else (), strict=False):
            put(out, part)
        return FinishedWork(outs)

    def scatter(  # type: ignore[override]  # one signature for all overloads
        self, outs: Tensors, lists: list[Tensors], opts: Any = None, timeout: timedelta | None = None
    ) -> FinishedWork:
        """Copy a tensor of the root's list into each rank's; all of one size."""
        out, root = self._only("scatter", outs), self._root("scatter", opts)
        self._check("scatter", out, out)
        here = self._rank == root
        whole = self._whole("scatter", one_list(lists), out, filled=True) if here else out.new_empty(0)
        give = [out.numel() if here else 0] * self._world
        take = [out.numel() if rank == root else 0 for rank in range(self._world)]
        self._exchange("scatter", (out, whole), array("Q", give + take), self._limit(opts, timeout), out.numel())
        return FinishedWork([out])

    def _root(self, where: str, opts: Any) -> int:
        root = int(getattr(opts, "rootRank", opts or 0))
        if not 0 <= root < self._world:
            need = f"a root from 0 to {self._world - 1}"
            self.refuse(where, "not such a call", ArgumentError(where, got=f"root {root}", need=need))
        return root
