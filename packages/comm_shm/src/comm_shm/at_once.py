"""Collectives of little data between hosts: every rank's input comes with the agreement, in one exchange.

Then each rank computes its own result, in the order in which larger data is reduced, so that the bits are the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from comm_shm.codes import DTYPES
from comm_shm.inside import Call, Inside, memory

AT_ONCE_BYTES = 64 * 1024  # of all ranks' inputs together


class AtOnce:
    """What a rank does with every rank's input.

    Args:
        inside: its host.
    """

    def __init__(self, inside: Inside) -> None:
        self.inside = inside
        self.hosts = inside.hosts
        self.bodies: dict[str, Callable[[Call, torch.Tensor], None]] = {
            "all_reduce_one_of": self._all_reduce,
            "broadcast": self._broadcast,
            "all_gather": self._all_gather,
            "reduce_scatter": self._reduce_scatter,
            "all_to_all": self._all_to_all,
        }

    def input_of(self, name: str, call: Call, even: int) -> torch.Tensor | None:
        """Return what this rank brings to a collective, None where that is too much or the others may bring more.

        Args:
            name: the collective.
            call: its arguments.
            even: of an all_to_all, the elements that go from each rank to each, plus 1; 0 where they differ.
        """
        world = self.hosts.world
        width = DTYPES[call.dtype].itemsize if name in ("all_reduce_one_of", "reduce_scatter") else call.last
        numel = {"reduce_scatter": call.numel * world, "all_to_all": (even - 1) * world}.get(name, call.numel)
        if name not in self.bodies or numel < 0 or numel * width * world > AT_ONCE_BYTES:
            return None
        return memory(call.out if name in ("all_reduce_one_of", "broadcast") else call.x, numel * width)

    def _all_reduce(self, call: Call, inputs: torch.Tensor) -> None:
        self._reduced(memory(call.out, inputs.shape[1]), inputs, call)

    def _broadcast(self, call: Call, inputs: torch.Tensor) -> None:
        if call.detail != self.hosts.rank:
            memory(call.out, inputs.shape[1]).copy_(inputs[call.detail])

    def _all_gather(self, call: Call, inputs: torch.Tensor) -> None:
        memory(call.out, inputs.numel()).copy_(inputs.view(-1))

    def _reduce_scatter(self, call: Call, inputs: torch.Tensor) -> None:
        self._reduced(memory(call.out, inputs.shape[1] // self.hosts.world), self._for_me(inputs), call)

    def _all_to_all(self, call: Call, inputs: torch.Tensor) -> None:
        memory(call.out, inputs.shape[1]).copy_(self._for_me(inputs).reshape(-1))

    def _for_me(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the part of each rank's input that is this rank's."""
        part = inputs.shape[1] // self.hosts.world
        return inputs[:, self.hosts.rank * part : (self.hosts.rank + 1) * part]

    def _reduced(self, out: torch.Tensor, rows: torch.Tensor, call: Call) -> None:
        sums = torch.empty((len(self.hosts.members), out.numel()), dtype=torch.uint8)
        for total, ranks in zip(sums, self.hosts.members, strict=True):
            self.inside.fold(total, [rows[rank] for rank in ranks], call)
        self.inside.fold(out, list(sums), call)
        self.inside.divide(out, call)
