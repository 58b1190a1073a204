"""The catalogue: one file per collective, one line here."""

import dataclasses

from comm_core.catalog.all_gather import ALL_GATHER
from comm_core.catalog.all_gather_v import ALL_GATHER_V
from comm_core.catalog.all_reduce import ALL_REDUCE
from comm_core.catalog.all_to_all import ALL_TO_ALL
from comm_core.catalog.barrier import BARRIER
from comm_core.catalog.batch_p2p import BATCH_P2P
from comm_core.catalog.broadcast import BROADCAST
from comm_core.catalog.exscan import EXSCAN
from comm_core.catalog.gather import GATHER
from comm_core.catalog.permute import PERMUTE
from comm_core.catalog.reduce import REDUCE
from comm_core.catalog.reduce_scatter import REDUCE_SCATTER
from comm_core.catalog.reduce_scatter_v import REDUCE_SCATTER_V
from comm_core.catalog.scan import SCAN
from comm_core.catalog.scatter import SCATTER
from comm_core.catalog.wait import WAIT
from comm_core.collective import Collective
from comm_core.errors import ArgumentError, said

CATALOG: dict[str, Collective] = {
    entry.name: entry
    for entry in (
        ALL_REDUCE,
        ALL_GATHER,
        REDUCE_SCATTER,
        ALL_TO_ALL,
        BROADCAST,
        REDUCE,
        GATHER,
        SCATTER,
        ALL_GATHER_V,
        REDUCE_SCATTER_V,
        SCAN,
        EXSCAN,
        PERMUTE,
        BATCH_P2P,
        BARRIER,
        WAIT,
    )
}

# What autograd looks an entry up in: each one under both conventions.
BY_KEY: dict[str, Collective] = {
    variant.key: variant
    for entry in CATALOG.values()
    for variant in (entry, dataclasses.replace(entry, gradient=entry.identity, convention="identity"))
}


def under(entry: Collective, convention: str) -> Collective:
    """Return an entry with the gradient rule of a convention: `"adjoint"` or `"identity"`.

    Raises:
        ArgumentError: there is no such convention.

    Example:
        >>> under(ALL_REDUCE, "identity").convention
        'identity'
    """
    if convention == "adjoint":
        return CATALOG[entry.name]
    if convention != "identity":
        raise ArgumentError(
            entry.name, f"backward={said(convention)}", "'adjoint' or 'identity'"
        )  # words by position: for Dynamo
    return BY_KEY[f"{entry.name}, identity"]


__all__ = [
    "ALL_GATHER",
    "ALL_GATHER_V",
    "ALL_REDUCE",
    "ALL_TO_ALL",
    "BARRIER",
    "BATCH_P2P",
    "BROADCAST",
    "BY_KEY",
    "CATALOG",
    "EXSCAN",
    "GATHER",
    "PERMUTE",
    "REDUCE",
    "REDUCE_SCATTER",
    "REDUCE_SCATTER_V",
    "SCAN",
    "SCATTER",
    "WAIT",
    "under",
]
