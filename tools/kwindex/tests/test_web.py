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
from kwindex.quality import read_golden
from kwindex.web import BY_NAME, Address, asset, payload

GOLDEN = Path(__file__).parents[1] / "golden"
REPOSITORY = Path(__file__).parents[3]
MORE = [
    "kind:error mesh",
    "kind:import dist",
    "kind:func all_gather",
    "pkg:comm_core run",
    "pkg:torch kind:lowering",
    "pkg:torch.distributed kind:gradient all_reduce",
    "pkg:comm_lowering kind:config",
    "pkg:comm_core kind:env",
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
    "comm_core.groups.Group: need the same shape on every rank",
    "aten.add.Tensor",
    "_c10d_functional::all_reduce.default",
    "dist",
    "comm_core.errors.GroupError: zz yy xx ww",
    "GroupError: DTensor: RuntimeError: Cannot slice a DeviceMesh without mesh_dim_names!",
    "Traceback (most recent call last): File x raise E RuntimeError: Cannot slice a DeviceMesh without mesh_dim_names!",
    "funcol",
    "@torch.compile(x)",
    "from torch.distributed.tensor import DTensor",
    "import torch.distributed.tensor as dt",
    "group=c10d.group.WORLD",
    "out = funcol.all_reduce(x, 'sum', group)",
    "TORCH_LOGS=a.b",
    "x = 0.5",
    "export TORCH_DIST_INIT_BARRIER=1",
    "os.getenv('TORCH_DIST_INIT_BARRIER', '0')",
    "return types of a mesh",
    "torch.ops.fsdp.chunk_cat.default",
    'File "/x/torch/distributed/tensor/_api.py", line 290, in from_local',
    "distributed/device_mesh.py:3",
    "torch/distributed/device_mesh.py:300",
    "torch/distributed/tensor/_api.py:290:12",
    "api.py#L40",
    "__init__.py:5",
    "__init__.py",
    "funcol.all_redcue",
    "DTensor.redistribtue",
    "torch.distributed.tensor.Shadr",
    "funcol.all_reduce",
    "funcol.allre",
    "ft_c.AsyncCollectiveTensor.wa",
    "dist.device_mesh.Dev",
    "inductor_config.reorder_for_compute_comm_overlap",
    "torch.distributed.tensor.Shard",
    "torch.distributed.tensor.parallel.Col",
    "torch._inductor.ir.x",
    "dist.group.WORLD",
    "dist.group.WOR",
    "group.WORLD",
    "GroupMember.WORLD",
    "Shard.is_sh",
    "c10d.group.WORLD",
    "Shard.is_shard",
    "fsdp.FSDPModule.res",
    "See Note [lowering-time collective optimization]",
    "# NOTE [ lowering time collective",
    "Note [zz",
    "kind:concept",
    "kind:mention lowering time",
    "lowering-time collective optimization",
    "Context parallelism load balance algorithm for causal masking",
    "every rank maintains communication buffers that",
]


class Browser:
    """The palette's search, in the JavaScript engine of browsers, without a browser."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.payload = payload(entries, lambda entry: Address("x/", BY_NAME))
        self._engine = MiniRacer()
        self._engine.eval(asset("scorer.js"))
        self._engine.eval("var names; kwindexNames = (x) => { names = x }; kwindexPart = (...x) => searcher.add(...x);")
        self._engine.eval(self.payload.names)
        self._engine.eval("var searcher = new kwindexScorer.Searcher(kwindexScorer.unpack(names)), hits = [];")
        self._loaded: set[str] = set()

    def entries(self) -> list[list[Any]]:
        self._load(self._json("searcher.lacking(searcher.entries)"))
        return self._json("searcher.entries.map((e) => [e.name, e.kind, e.file, e.line, e.signature, e.summary])")

    def search(self, text: str) -> list[list[Any]] | str:
        found = f"hits = searcher.search({json.dumps(text)}, 10)"
        while True:
            said: str = self._engine.eval(
                f"(() => {{ try {{ {found}; return '' }} catch (e) {{ return e.message }} }})()"
            )
            if said:
                return said
            needed = self._json("[...searcher.missing]") or self._json("searcher.lacking(hits.map((h) => h.entry))")
            if not needed:
                break
            self._load(needed)
        return self._json("hits.map((h) => [h.entry.name, h.entry.kind, h.entry.file, h.entry.line, h.score, h.why])")

    def forget(self) -> set[str]:
        """Start again with the names alone, and return the parts that were loaded."""
        self._engine.eval("searcher = new kwindexScorer.Searcher(kwindexScorer.unpack(names));")
        loaded, self._loaded = self._loaded, set()
        return loaded

    def _load(self, parts: list[str]) -> None:
        assert self._loaded.isdisjoint(parts)  # each once
        self._loaded.update(parts)
        for part in parts:
            self._engine.eval(self.payload.parts[part])

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
    wanted = [[e.name, e.kind, e.file, e.line, e.signature, e.summary] for e in corpus]
    assert sorted(both[1].entries()) == sorted(wanted)


@pytest.fixture(scope="module")
def ten_thousand(corpus: list[Entry]) -> Browser:
    assert len(corpus) >= 10_000
    return Browser(corpus[:10_000])


def test_what_a_query_loads_of_ten_thousand_symbols_is_less_than_100_kb(ten_thousand: Browser) -> None:
    """Whatever is asked first: the names, the parts of the index that the query needs, and what its rows show."""
    made = ten_thousand.payload
    sizes = {name: len(gzip.compress(text.encode(), 9)) for name, text in made.parts.items()}
    names = len(gzip.compress(made.names.encode(), 9))
    loads = {}
    ten_thousand.forget()
    for query in [golden.query for golden in read_golden(GOLDEN / "queries.tsv")] + MORE:
        ten_thousand.search(query)
        loads[query] = names + sum(sizes[name] for name in ten_thousand.forget())
    assert names <= 47_000
    assert max(loads.values()) <= 100_000, max(loads.items(), key=lambda load: load[1])
    assert len({*loads.values()}) > 50  # what is loaded depends on the query


def test_entries_that_differ_in_their_lines_alone_stay_in_order() -> None:
    rows = [("m.f", 9, 9, "f(b)"), ("m.f", 9, 9, "f(a)"), ("m.f", 9, 12, "f()"), ("m.f", 3, 30, "f(z)")]
    entries = [Entry(name, "kernel", "m.py", line, end, text, "") for name, line, end, text in rows]
    said = [row[3:5] for row in Browser(entries).entries()]
    assert said == [[3, "f(z)"], [9, "f(a)"], [9, "f(b)"], [9, "f()"]]
    assert [hit.entry.signature for hit in Searcher(entries).search("m.f")] == ["f(z)", "f(a)", "f(b)", "f()"]


def test_a_message_in_quotes_is_found_as_it_is_written() -> None:
    said = ["E: got {x} and {y + 1}, {}", "E: {a{b}c} {", "E: no hole", "E: got {z}"]
    entries = [Entry(f"m.f{n}", "error", "m.py", n + 1, n + 1, text, "") for n, text in enumerate(said)]
    searcher, browser = Searcher(entries), Browser(entries)
    for query in (
        '"got {x} and"',
        '"{y + 1}, {}"',
        '"{a{b}c} {"',
        '"no hole"',
        '"{}"',
        '"got {z}"',
        '"got {}"',
        "got 3 and",
    ):
        assert browser.search(query) == in_python(searcher, query)
    assert len(browser.search('kind:error "{y + 1}, {}"')) == 1


def test_a_word_is_found_by_its_beginning_in_every_doc_that_has_it() -> None:
    """Of words of one doc of which one begins another only the longer one is sent."""
    says = ["Adds addends.", "Add.", "No additions, one adder.", "Zażółć gęślą 9_lives.", "Nothing."]
    entries = [Entry(f"m.f{n}", "function", "m.py", n + 1, n + 1, "", text) for n, text in enumerate(says)]
    searcher, browser = Searcher(entries), Browser(entries)
    for query in ("adds up", "adder one", "addition none", "add", "a", "9_lives gęślą", "zaż", "nothing add", "_"):
        assert browser.search(query) == in_python(searcher, query)
    assert len(browser.search("add")) == 3
    assert browser.payload.parts["words-0"].endswith('"9_lives 3")')


def test_no_text_of_a_source_ends_the_script() -> None:
    hostile = Entry("m.f", "function", "m.py", 1, 1, "f(x='</script><script>alert(1)</script>')", "</script>\u2028")
    made = Browser([hostile])
    assert "</script" not in made.payload.names + "".join(made.payload.parts.values())
    assert made.entries()[0][4:] == [hostile.signature, hostile.summary]


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
class HTTPServer2(DeviceMesh, metaclass=Meta):
    PORT = 80
class Meta(type):
    def WORLD(cls): ...
from a.b import wait_tensor as wait
import os.path
# Note [Of ranks]: they are told.
x = 1  # see Note [Of ranks], Note [One of more words than a name has, all in all]
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Searcher, Browser]:
    root, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("out")
    (root / "lib.py").write_text(SMALL)
    (root / "test_lib.py").write_text("from lib import all_reduce\ndef test_all_reduce(): ...\n")
    (root / "most.py").write_text("__all__ = ['_hid', 'shown']\ndef _hid(): ...\ndef shown(): ...\ndef left(): ...\n")
    (root / "more.py").write_text("from most import *\n__all__ = ['_own'] + other\ndef _own(): ...\ndef own(): ...\n")
    (root / "from_all.py").write_text("from most import *\nfrom more import *\n")
    (root / "use.py").write_text(
        "import lib as l\nfrom lib import *\nfrom lib import DeviceMesh as Mesh\nimport no as l\n"
    )
    build([root], out)
    entries = read_index(out)
    return Searcher(entries), Browser(entries)


WORDS = ["all", "reduce", "AllReduce", "agit", "DeviceMesh", "get_group", "ar", "mesh", "wait", "grup", "http", "é"]
MARKS = [
    "l.",
    "Mesh.",
    "HTTPServer2.",
    "WORLD",
    "lib.py:6",
    "use.",
    "lib.",
    "->",
    "Tensor",
    "str",
    "kind:",
    "in:",
    "pkg:lib",
    '"',
    ".",
    "_",
    "::",
]
PHRASES = [
    *("got axis 3; need a name", "ranks in a", " ", ", ", "kind:func ", "See Note [Of", "ranks]."),
    "one of more words than a name has, all in all",
]
LETTERS = st.text(
    st.characters(exclude_categories=("C", "Z"), max_codepoint=0xFFFF), max_size=3
)  # JavaScript's letters
QUERIES = st.lists(st.one_of(st.sampled_from(WORDS + MARKS + PHRASES), LETTERS), min_size=1, max_size=4).map("".join)


@given(QUERIES)
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_query_gives_the_same_hits(small: tuple[Searcher, Browser], query: str) -> None:
    searcher, browser = small
    assert browser.search(query) == in_python(searcher, query)


def test_names_are_found_at_once_and_other_queries_say_what_they_need() -> None:
    made = payload([Entry("m.f", "function", "m.py", 1, 1, "f()", "Adds up.")], lambda entry: Address("x/"))
    engine = MiniRacer()
    engine.eval(asset("scorer.js"))
    engine.eval("var names; kwindexNames = (x) => { names = x };")
    engine.eval(made.names)
    engine.eval("var searcher = new kwindexScorer.Searcher(kwindexScorer.unpack(names));")
    wanted = {
        "f": (1, []),
        "adds up": (0, ["words-a", "words-u"]),
        "adds up numbers": (0, ["messages"]),
        "int -> str": (0, ["types"]),
        '"f"': (1, ["messages"]),  # and when they are there, their holes
        "zzz": (0, []),  # no word begins so
        "m.f": (1, ["bound"]),
    }
    for query, (hits, needed) in wanted.items():
        assert engine.eval(f"searcher.search({json.dumps(query)}).length") == hits, query
        assert json.loads(engine.eval("JSON.stringify([...searcher.missing])")) == needed, query


def test_an_index_of_nothing_can_be_searched(tree: Callable[..., Path]) -> None:
    assert Browser([Entry("m", "module", "m.py", 1, 1, "", "")]).search("zzz") == []
