"""Keyword index and symbol search for Python trees: sources are parsed, never imported or run."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kwindex.errors import KwindexError, SourceError
    from kwindex.model import Entry, Problem
    from kwindex.pipeline import Built, build, update
    from kwindex.rank import Hit
    from kwindex.ready import open_searcher
    from kwindex.searcher import Searcher, search
    from kwindex.store import read_index
    from kwindex.suggestions import suggest

__all__ = [
    "Built",
    "Entry",
    "Hit",
    "KwindexError",
    "Problem",
    "Searcher",
    "SourceError",
    "build",
    "open_searcher",
    "read_index",
    "search",
    "suggest",
    "update",
]

_HOMES = {
    "Built": "pipeline",
    "Entry": "model",
    "Hit": "rank",
    "KwindexError": "errors",
    "Problem": "model",
    "Searcher": "searcher",
    "SourceError": "errors",
    "build": "pipeline",
    "open_searcher": "ready",
    "read_index": "store",
    "search": "searcher",
    "suggest": "suggestions",
    "update": "pipeline",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and no more: a search on the command line never loads what builds an index."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
