"""The tables beside the index: they give what the index gives, and count only where they fit it."""

from pathlib import Path

import pytest

from kwindex import Searcher, build, read_index
from kwindex.link import link
from kwindex.ready import open_ready, open_searcher
from kwindex.store import INDEX, READY

QUERIES = ["all_gather", "agit", "Tensor.wait", "gather tensor", "all_redcue", "kind:env", "waits for", "need a group"]


@pytest.fixture(scope="module")
def folder(originals: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ready")
    build(originals, out)
    return out


def test_tables_give_what_the_index_gives(folder: Path) -> None:
    kept, fresh = open_searcher(folder), Searcher(read_index(folder))
    assert link(list(kept.entries)) == list(fresh.entries)
    assert kept.entries[-1:] == list(kept.entries)[-1:]
    for query in QUERIES:
        assert kept.search(query) == fresh.search(query)


def test_same_sources_make_the_same_tables(folder: Path, originals: list[Path], tmp_path: Path) -> None:
    build(originals, tmp_path)
    assert (tmp_path / READY).read_bytes() == (folder / READY).read_bytes()


@pytest.mark.parametrize("spoil", ["other", "longer", "short", "form", "contents", "none"])
def test_tables_that_do_not_fit_are_left_aside(folder: Path, tmp_path: Path, spoil: str) -> None:
    index, tables = (folder / INDEX).read_bytes(), (folder / READY).read_bytes()
    if spoil == "other":
        index = index.replace(b'{"id": "', b'{"id": "0', 1).replace(b'", "entries"', b'", "entries"', 1)
    if spoil == "longer":
        index += b"\n"
    bad = {"short": tables[:9], "form": b"K" + tables[1:], "contents": tables.replace(b"{", b"[", 1), "none": None}
    kept = bad.get(spoil, tables)
    (tmp_path / INDEX).write_bytes(index)
    if kept is not None:
        (tmp_path / READY).write_bytes(kept)
    assert open_ready(tmp_path) is None
    assert open_searcher(tmp_path).search("all_gather")[0].score >= 600
