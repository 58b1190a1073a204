"""Collectives with one rank that gives or gets everything: reduce, gather, scatter."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from comm_shm.calls import Step
from comm_shm.layout import cloned, flat_of, put, scaled
from comm_shm.movement import MovingGroup, Tensors
from comm_shm.terms import terms


class RootedGroup(MovingGroup):
    """The collectives of a group over shared memory that have a root, on top of those that have none."""

    def reduce(  # type: ignore[override]  # one signature for both overloads
        self, tensors: Tensors | torch.Tensor, *given: Any, **named: Any
    ) -> dist.Work:
        """Reduce into the root's tensor; the others keep theirs.

        Raises:
            MismatchError: sizes, dtypes, reduce ops or roots differ; raised on every rank, no data was touched.
        """
        asked = terms(*given, **named)
        x = tensors if isinstance(tensors, torch.Tensor) else self._only("reduce", tensors)
        root = self._root("reduce", asked.root)
        code = self._reduction("reduce", x, x, asked.op, writes=self._rank == root)
        total = scaled(cloned(flat_of(x)), asked.op, code)
        finish = (lambda: put(x, total)) if self._rank == root else None
        step = Step("all_reduce_one_of", "reduce", x.numel(), root, (total, total), code, finish)
        return self.run([step], [x], asked)

    def gather(  # type: ignore[override]  # one signature for all overloads
        self, lists: list[Tensors] | Tensors, inputs: Tensors | torch.Tensor, *given: Any, **named: Any
    ) -> dist.Work:
        """Write every rank's tensor into a tensor of the root's list; all of one size."""
        asked = terms(*given, **named)
        x = inputs if isinstance(inputs, torch.Tensor) else self._only("gather", inputs)
        root = self._root("gather", asked.root)
        self._check("gather", x, x, writes=False)
        here = self._rank == root
        outs = self._one_list("gather", lists) if here else []
        whole = self._whole("gather", outs, x) if here else x.new_empty(0)
        give = [x.numel() if rank == root else 0 for rank in range(self._world)]
        take = [x.numel() if here else 0] * self._world
        parts = whole.split(x.numel()) if x.numel() else ()
        step = self._exchange("gather", (whole, x), give + take, x.numel(), root, put_parts=(outs, parts))
        return self.run([step], outs, asked)

    def gather_single(  # torch has it from 2.14 on
        self, out: torch.Tensor, x: torch.Tensor, *given: Any, **named: Any
    ) -> dist.Work:
        """Write every rank's tensor into its part of one tensor of the root; all of one size."""
        fits = out.is_contiguous() and out.numel() == self._world * x.numel()
        parts = list(out.view(self._world, x.numel())) if fits else [out]
        return self.gather([parts], [x], *given, **named)

    def scatter(  # type: ignore[override]  # one signature for all overloads
        self, outs: Tensors | torch.Tensor, lists: list[Tensors] | Tensors, *given: Any, **named: Any
    ) -> dist.Work:
        """Copy a tensor of the root's list into each rank's; all of one size."""
        asked = terms(*given, **named)
        out = outs if isinstance(outs, torch.Tensor) else self._only("scatter", outs)
        root = self._root("scatter", asked.root)
        self._check("scatter", out, out)
        here = self._rank == root
        whole = self._whole("scatter", self._one_list("scatter", lists), out, filled=True) if here else out.new_empty(0)
        give = [out.numel() if here else 0] * self._world
        take = [out.numel() if rank == root else 0 for rank in range(self._world)]
        step = self._exchange("scatter", (out, whole), give + take, out.numel(), root)
        return self.run([step], [out], asked)
