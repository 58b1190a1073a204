"""The site's palette gives what the command gives on the same sources: the same ten hits for every golden query."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from py_mini_racer import MiniRacer

from kwindex import build, open_searcher
from kwindex.quality import read_golden
from tools.gen import index, originals, palette
from tools.gen.sources import ROOT, distributions

QUERIES = [golden.query for golden in read_golden(ROOT / "tools/kwindex/golden/queries.tsv")]
LOADED = re.compile(r"assets/palette/(?!scorer|names|palette).*\.js$")


@pytest.fixture(scope="module")
def page() -> MiniRacer:
    """The palette as the site has it, in the JavaScript engine of browsers, with all that it can load."""
    found = distributions()
    scripts = {output.path: output.text for output in palette.files(index.made_of(found, originals.installed()), found)}
    engine = MiniRacer()
    engine.eval(scripts["docs/assets/palette/scorer.js"])
    engine.eval("var names; kwindexNames = (x) => { names = x }; kwindexPart = (...x) => searcher.add(...x);")
    engine.eval(scripts["docs/assets/palette/names.js"])
    engine.eval("var searcher = new kwindexScorer.Searcher(kwindexScorer.unpack(names));")
    for path, text in scripts.items():
        if LOADED.search(path):
            engine.eval(text)
    return engine


def test_every_golden_query_gives_the_ten_hits_of_the_command(page: MiniRacer, tmp_path: Path) -> None:
    build(index.sources(distributions(), originals.installed()), tmp_path / "index")
    searcher = open_searcher(tmp_path / "index")
    told = "h => [h.entry.name, h.entry.kind, h.entry.file, h.entry.line, h.score, h.why]"
    different = []
    for query in QUERIES:
        shown = json.loads(page.eval(f"JSON.stringify(searcher.search({json.dumps(query)}, 10).map({told}))"))
        hits = searcher.search(query, 10)
        if shown != [[h.entry.name, h.entry.kind, h.entry.file, h.entry.line, h.score, h.why] for h in hits]:
            different.append(query)
    assert different == []
    assert len(QUERIES) >= 338
