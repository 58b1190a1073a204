"""Keyword index and symbol search for Python trees: sources are parsed, never imported or run."""

from kwindex.errors import KwindexError, SourceError
from kwindex.model import Entry, Problem
from kwindex.pipeline import Built, build
from kwindex.rank import Hit, suggest
from kwindex.searcher import Searcher, search
from kwindex.store import read_index

__all__ = [
    "Built",
    "Entry",
    "Hit",
    "KwindexError",
    "Problem",
    "Searcher",
    "SourceError",
    "build",
    "read_index",
    "search",
    "suggest",
]
