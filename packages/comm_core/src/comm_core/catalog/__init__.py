"""The catalogue: one file per collective, one line here."""

from comm_core.catalog.all_gather import ALL_GATHER
from comm_core.catalog.all_reduce import ALL_REDUCE
from comm_core.catalog.all_to_all import ALL_TO_ALL
from comm_core.catalog.broadcast import BROADCAST
from comm_core.catalog.permute import PERMUTE
from comm_core.catalog.reduce_scatter import REDUCE_SCATTER
from comm_core.catalog.wait import WAIT
from comm_core.collective import Collective

CATALOG: dict[str, Collective] = {
    entry.name: entry for entry in (ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, ALL_TO_ALL, BROADCAST, PERMUTE, WAIT)
}

__all__ = [
    "ALL_GATHER",
    "ALL_REDUCE",
    "ALL_TO_ALL",
    "BROADCAST",
    "CATALOG",
    "PERMUTE",
    "REDUCE_SCATTER",
    "WAIT",
]
