"""The scorer of the palette gives what the search in Python gives: entry by entry, point by point, word by word."""

from __future__ import annotations

import gzip
import json
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from py_mini_racer import MiniRacer

from kwindex import Entry, KwindexError, Searcher, build, read_index
from kwindex.pages.tree import USED
from kwindex.quality import read_golden
from kwindex.web import BY_NAME, Address, asset, payload

GOLDEN = Path(__file__).parents[1] / "golden"
REPOSITORY = Path(__file__).parents[3]
MORE = [
    "kind:error mesh",
    "kind:import dist",
    "kind:func all_gather",
    "pkg:comm_core run",
    "in:tensor shard",
    '"Shard"',
    "kind:method",
    "-> Group",
    "dict[str, Tensor] ->",
    "torch.ops._c10d_functional.all_reduce.default",
    "raises when the ranks disagree",
    "wait_tensr",
    "redcue scattr",
    "a",
    "_",
    "__init__",
    "zzzzqqq",
    "constructor",
    "hvd.allreduce",
    "MPI_Comm_size",
    "jax.lax.pmax",
    "ncclxy",
    "need the same shape on every rank",
]


class Browser:
    """The palette's search, in the JavaScript engine of browsers, without a browser."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        made = payload(entries, lambda entry: Address("x/", BY_NAME))
        self._engine = MiniRacer()
        self._engine.eval(asset("scorer.js"))
        self._engine.eval(
            "var names, details; kwindexNames = (x) => { names = x }; kwindexDetails = (x) => { details = x };"
        )
        self._engine.eval(made.names)
        self._engine.eval(made.details)
        self._engine.eval("var searcher = new kwindexScorer.Searcher(kwindexScorer.unpack(names));")
        self._engine.eval("searcher.detail(details);")

    def entries(self) -> list[list[Any]]:
        fields = "e.name, e.kind, e.file, e.line, e.end, e.signature, e.summary"
        return self._json(f"searcher.entries.map((e) => [{fields}])")

    def search(self, text: str) -> list[list[Any]] | str:
        fields = "h.entry.name, h.entry.kind, h.entry.file, h.entry.line, h.score, h.why"
        found = f"searcher.search({json.dumps(text)}, 10).map((h) => [{fields}])"
        return self._json(f"(() => {{ try {{ return {found} }} catch (e) {{ return e.message }} }})()")

    def _json(self, expression: str) -> Any:
        return json.loads(self._engine.eval(f"JSON.stringify({expression})"))


def in_python(searcher: Searcher, text: str) -> list[list[Any]] | str:
    try:
        hits = searcher.search(text, 10)
    except KwindexError as error:
        return str(error)
    return [[h.entry.name, h.entry.kind, h.entry.file, h.entry.line, h.score, h.why] for h in hits]


@pytest.fixture(scope="module")
def built(torch_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of what the golden queries are asked of."""
    parts = tomllib.loads((GOLDEN / "corpus.toml").read_text())
    sources = [REPOSITORY / part for part in parts["ours"]] + [torch_folder / part for part in parts["torch"]]
    out = tmp_path_factory.mktemp("corpus")
    build([source for source in sources if source.exists()], out)
    return out


@pytest.fixture(scope="module")
def corpus(built: Path) -> list[Entry]:
    return read_index(built)


@pytest.fixture(scope="module")
def both(corpus: list[Entry]) -> tuple[Searcher, Browser]:
    return Searcher(corpus), Browser(corpus)


def test_every_golden_query_gives_the_same_ten_hits(both: tuple[Searcher, Browser]) -> None:
    searcher, browser = both
    queries = [golden.query for golden in read_golden(GOLDEN / "queries.tsv")] + MORE
    assert len(queries) > 165
    different = [query for query in queries if browser.search(query) != in_python(searcher, query)]
    assert different == []


def test_the_command_prints_the_same_ten_hits_as_the_palette(
    both: tuple[Searcher, Browser], built: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """One process of the command, from the index on disk, over all golden queries."""
    queries = [golden.query for golden in read_golden(GOLDEN / "queries.tsv")] + MORE
    done = command("search", "-", "--json", "--index", built, stdin="\n".join(queries))
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(queries), done.stderr
    fields = ("name", "kind", "file", "line", "score", "why")
    printed = [[[hit[field] for field in fields] for hit in hits] for hits in found]
    shown = [both[1].search(query) for query in queries]
    assert [query for query, a, b in zip(queries, printed, shown, strict=True) if a != b] == []
    assert sum(map(len, printed)) > 1000


def test_an_unknown_kind_is_refused_in_the_same_words(both: tuple[Searcher, Browser]) -> None:
    searcher, browser = both
    said = browser.search("kind:nonsense x")
    assert said == in_python(searcher, "kind:nonsense x")
    assert "kind:nonsense names no kind of entry" in said


def test_the_payload_is_the_index(corpus: list[Entry], both: tuple[Searcher, Browser]) -> None:
    wanted = [[e.name, e.kind, e.file, e.line, e.end_line, e.signature, e.summary] for e in corpus]
    assert both[1].entries() == sorted(wanted, key=lambda row: row[2])


def test_ten_thousand_names_are_less_than_60_kb_and_their_texts_less_than_100(corpus: list[Entry]) -> None:
    symbols = [entry for entry in corpus if entry.kind not in USED]
    assert len(symbols) >= 10_000
    made = payload(symbols[:10_000], lambda entry: Address(f"originals/{entry.file}_docs/", BY_NAME))
    assert len(gzip.compress(made.names.encode(), 9)) <= 60_000
    assert len(gzip.compress(made.details.encode(), 9)) <= 100_000


def test_what_is_left_out_of_signatures_and_summaries_comes_back() -> None:
    """A mark in a source, an own name in a module's, imports of what is there, is not there, and in a ring."""
    rows = [
        ("a.f", "function", "f(f: int, x='f§') -> f", "Says § it."),
        ("a.g", "function", "async g()", "§"),
        ("b.f", "import", "from a import f  # for type checkers only", "Says § it."),
        ("b.a", "import", "from a.a import a", ""),
        ("b.h", "import", "from a import g as h", "Another's."),
        ("b.c", "import", "import c.d", "Not here."),
        ("b.g", "import", "from a import g", ""),
        ("c.x", "import", "from d import x", ""),
        ("d.x", "import", "from c import x", ""),
        ("d.star", "import", "from §b import star", "§§"),
        ("d.", "error", "ValueError: d", ""),
        ("d.v", "variable", "v = 'v'", ""),
    ]
    entries = [Entry(name, kind, f"{name[0]}.py", 1, 1, text, says) for name, kind, text, says in rows]
    assert [row[5:] for row in Browser(entries).entries()] == [[entry.signature, entry.summary] for entry in entries]


def test_no_text_of_a_source_ends_the_script() -> None:
    hostile = Entry("m.f", "function", "m.py", 1, 1, "f(x='</script><script>alert(1)</script>')", "</script>\u2028")
    assert "</script" not in payload([hostile], lambda entry: Address("x/")).details
    assert Browser([hostile]).entries()[0][5:] == [hostile.signature, hostile.summary]


SMALL = """
class DeviceMesh:
    '''Ranks in a grid.'''
    def get_group(self, axis: int | str) -> Group:
        '''Return the group of an axis.'''
        raise ValueError(f"got axis {axis}; need a name of the mesh")
    def _flatten(self): ...
def all_reduce(x: Tensor, op: str) -> Tensor: "Add up over all ranks."
def all_reduce_(x: Tensor) -> None: ...
def all_gather_into_tensor(x: Optional[Tensor], n: int = 1): ...
class HTTPServer2:
    PORT = 80
from a.b import wait_tensor as wait
import os.path
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Searcher, Browser]:
    root, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("out")
    (root / "lib.py").write_text(SMALL)
    (root / "test_lib.py").write_text("from lib import all_reduce\ndef test_all_reduce(): ...\n")
    build([root], out)
    entries = read_index(out)
    return Searcher(entries), Browser(entries)


WORDS = ["all", "reduce", "AllReduce", "agit", "DeviceMesh", "get_group", "ar", "mesh", "wait", "grup", "http", "é"]
MARKS = ["->", "Tensor", "str", "kind:", "in:", "pkg:lib", '"', ".", "_", "::"]
PHRASES = ["got axis 3; need a name", "ranks in a", " ", ", ", "kind:func "]
LETTERS = st.text(
    st.characters(exclude_categories=("C", "Z"), max_codepoint=0xFFFF), max_size=3
)  # JavaScript's letters
QUERIES = st.lists(st.one_of(st.sampled_from(WORDS + MARKS + PHRASES), LETTERS), min_size=1, max_size=4).map("".join)


@given(QUERIES)
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_query_gives_the_same_hits(small: tuple[Searcher, Browser], query: str) -> None:
    searcher, browser = small
    assert browser.search(query) == in_python(searcher, query)


def test_names_are_found_before_the_details_are_there() -> None:
    engine = MiniRacer()
    engine.eval(asset("scorer.js"))
    engine.eval("var names; kwindexNames = (x) => { names = x };")
    engine.eval(payload([Entry("m.f", "function", "m.py", 1, 1, "f()", "Adds up.")], lambda entry: Address("x/")).names)
    engine.eval("var searcher = new kwindexScorer.Searcher(kwindexScorer.unpack(names));")
    counts = "JSON.stringify(queries.map((query) => searcher.search(query).length))"
    engine.eval(f"var queries = {json.dumps(['f', 'adds up numbers', 'int -> str', 'got 3 and need 4'])};")
    assert engine.eval(counts) == "[1,0,0,0]"


def test_an_index_of_nothing_can_be_searched(tree: Callable[..., Path]) -> None:
    assert Browser([Entry("m", "module", "m.py", 1, 1, "", "")]).search("zzz") == []
