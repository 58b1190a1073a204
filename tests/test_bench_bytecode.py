"""Benches that start processes give them bytecode first, for those who install with pip have it."""

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "tools" / "bench"


def test_packages_are_compiled_also_where_python_is_told_to_write_no_bytecode(tmp_path, monkeypatch):
    inner = tmp_path / "own_sources" / "inner"
    inner.mkdir(parents=True)
    sources = [inner.parent / "__init__.py", inner / "part.py"]
    for source in sources:
        source.write_text("x = 1\n")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(BENCH))
    package = importlib.import_module("own_sources")
    monkeypatch.delitem(sys.modules, "own_sources")
    assert not [*tmp_path.rglob("*.pyc")]
    importlib.import_module("_bytecode").compiled(package)
    assert all(Path(importlib.util.cache_from_source(str(source))).exists() for source in sources)


@pytest.mark.parametrize("bench", ["kwindex_build", "shm_cost"])
def test_what_starts_processes_compiles_first(bench, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    module = importlib.import_module(bench)
    assert module.compiled is importlib.import_module("_bytecode").compiled
