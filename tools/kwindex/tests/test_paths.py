"""Dotted queries as Python would read them: through imports, their aliases, and what a module hands on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kwindex import Entry, Searcher, build, read_index
from kwindex.kinds import ELSEWHERE

TREE = {
    "lib/__init__.py": "from .inner import *\nfrom lib.nn.layers import Layer\nfrom elsewhere import Work\n",
    "lib/inner.py": "def new_group(): ...\ndef all_reduce(x): 'Adds.'\nSIZE = 1\n",
    "lib/_functional.py": "def all_reduce(x): ...\nclass Async:\n    def wait(self): ...\ndef _hidden(): ...\n",
    "lib/nn/__init__.py": "from .layers import Layer, Layer as Block\n",
    "lib/nn/layers.py": "class Layer:\n    def forward(self): ...\n    def reset(self): ...\n",
    "lib/config.py": "overlap = True\n",
    "use/__init__.py": "",
    "use/a.py": "import lib as dist, lib.config as inner_config\nimport lib._functional as funcol\nimport lib.nn\n",
    "use/b.py": "def f():\n    from lib import _functional as funcol\n    import lib.nn as nn\nimport no as funcol\n",
    "use/c.py": "import lib.nn as nn\nfrom lib._functional import Async as ACT2\nimport numpy as np\n",
    "use/d.py": "from use.d import loop as loop\nfrom use.e import *\n",
    "use/e.py": "from use.d import *\n",
    "far.py": "def far_reduce_lib_nn_layer(): ...\n",
}
ALIAS = "funcol is lib._functional in 2 files"


@pytest.fixture
def searcher(tree: Callable[..., Path], tmp_path: Path) -> Searcher:
    build([tree(TREE)], tmp_path / "out")
    return Searcher(read_index(tmp_path / "out"))


@pytest.mark.parametrize(
    ("query", "name", "why"),
    [
        ("funcol.all_reduce", "lib._functional.all_reduce", ALIAS),
        ("funcol.all_reduce(x, 'sum')", "lib._functional.all_reduce", ALIAS),
        ("funcol.allreduce", "lib._functional.all_reduce", ALIAS),
        ("funcol.all_re", "lib._functional.all_reduce", ALIAS),
        ("funcol._hid", "lib._functional._hidden", ALIAS),
        ("funcol.Async.wait", "lib._functional.Async.wait", ALIAS),
        ("ACT2.wait", "lib._functional.Async.wait", "ACT2 is lib._functional.Async in 1 file"),
        ("inner_config.overlap", "lib.config.overlap", "inner_config is lib.config in 1 file"),
        ("dist.new_group", "lib.inner.new_group", "dist is lib in 1 file"),
        ("dist.new_gr", "lib.inner.new_group", "dist is lib in 1 file"),
        ("dist.Layer.res", "lib.nn.layers.Layer.reset", "dist is lib in 1 file"),
        ("dist.Work", "lib.Work", "dist is lib in 1 file"),
        ("nn.Layer", "lib.nn.layers.Layer", "nn is lib.nn in 2 files"),
        ("nn.Block.forward", "lib.nn.layers.Layer.forward", "nn is lib.nn in 2 files"),
        ("lib.Layer.forward", "lib.nn.layers.Layer.forward", "imported as lib.Layer.forward"),
        ("lib.Layer.for", "lib.nn.layers.Layer.forward", "imported as lib.Layer.forward"),
        ("lib.new_group", "lib.inner.new_group", "imported as lib.new_group"),
        ("lib.new_gr", "lib.inner.new_group", "imported as lib.new_group"),
        ("use.a.funcol.all_reduce", "lib._functional.all_reduce", "imported as use.a.funcol.all_reduce"),
        ("_functional.all_reduce", "lib._functional.all_reduce", "end of the qualified name"),
        ("lib.inner.all_reduce", "lib.inner.all_reduce", "exact qualified name"),
    ],
)
def test_a_dotted_query_finds_what_python_would(searcher: Searcher, query: str, name: str, why: str) -> None:
    hits = searcher.search(query)
    found = next(hit for hit in hits if hit.entry.name == name)
    assert found.why == why
    above = [hit for hit in hits if hit.score > found.score]
    assert all("exact" in hit.why or hit.entry.name == query for hit in above), above


def test_a_definition_comes_before_the_import_that_hands_it_on(searcher: Searcher) -> None:
    first = searcher.search("lib.nn.Layer")[0]
    assert (first.entry.name, first.why) == ("lib.nn.layers.Layer", "imported as lib.nn.Layer")


def test_a_filter_holds_for_what_is_found_so_too(searcher: Searcher) -> None:
    assert searcher.search("kind:class funcol.all_reduce") == []
    assert [hit.entry.name for hit in searcher.search("kind:class funcol.As")] == ["lib._functional.Async"]


@pytest.mark.parametrize(
    ("query", "name", "why"),
    [
        (
            "funcol.all_redcue",
            "lib._functional.all_reduce",
            f"near spelling: one letter of all_redcue differs; {ALIAS}",
        ),
        ("nn.Lyaer", "lib.nn.layers.Layer", "near spelling: one letter of Lyaer differs; nn is lib.nn in 2 files"),
        (
            "dist.new_rgopu",
            "lib.inner.new_group",
            "near spelling: 2 letters of new_rgopu differ; dist is lib in 1 file",
        ),
        ("lib.nn.layers.Layer.forwrad", "lib.nn.layers.Layer.forward", "near spelling: one letter of forwrad differs"),
        ("Layer.forwrad", "lib.nn.layers.Layer.forward", "near spelling: one letter of forwrad differs; Layer is"),
    ],
)
def test_a_slip_in_the_last_part_is_forgiven_where_the_path_leads(
    searcher: Searcher, query: str, name: str, why: str
) -> None:
    first = searcher.search(query)[0]
    assert first.entry.name == name
    assert first.why.startswith(why)
    assert not first.sure


def test_a_name_alone_is_what_imports_bind_it_to(searcher: Searcher) -> None:
    for query, name, why in (
        ("funcol", "lib._functional", ALIAS),
        ("ACT2", "lib._functional.Async", "ACT2 is lib._functional.Async in 1 file"),
        ("Block", "lib.nn.layers.Layer", "Block is lib.nn.layers.Layer in 1 file"),
    ):
        hit = searcher.search(query)[0]
        assert (hit.entry.name, hit.why) == (name, why)
    assert [hit.why for hit in searcher.search("all_reduce")][:1] == ["exact name"]


def test_what_is_named_so_comes_before_what_is_imported_so() -> None:
    entries = [
        Entry("one.f", "function", "one.py", 1, 1, "f()", ""),
        Entry("two.g", "function", "two.py", 1, 1, "g()", ""),
        Entry("a.g", "import", "a.py", 1, 1, "from one import f as g", ""),
    ]
    found = [(hit.entry.name, hit.why) for hit in Searcher(entries).search("g")]
    assert found == [("two.g", "exact name"), ("one.f", "g is one.f in 1 file"), ("a.g", "exact name")]


def test_an_overload_of_an_operator_finds_the_operator() -> None:
    entries = [
        Entry("aten::add", "lowering", "m.py", 1, 1, "", ""),
        Entry("aten::add.out", "kernel", "m.py", 1, 1, "", ""),
        Entry("m.aten_add", "function", "m.py", 1, 1, "aten_add()", ""),
    ]
    for query in ("aten.add.Tensor", "aten::add.Tensor", "torch.ops.aten.add.Tensor"):
        first = Searcher(entries).search(query)[0]
        assert (first.entry.name, first.why) == ("aten::add", "overload Tensor of aten::add")
    assert Searcher(entries).search("aten::add.out")[0].why == "exact qualified name"


def test_a_star_hands_on_what_is_public_and_no_module() -> None:
    """As `from x import *` does without an `__all__`, and not the modules below x."""
    entries = [
        Entry("a.*", "import", "a.py", 1, 1, "from b import *", ""),
        *(Entry(name, "module", "b.py", 1, 1, "", "") for name in ("a", "b", "b.sub")),
        *(Entry(f"b.{name}", "function", "b.py", 1, 1, "", "") for name in ("subtle", "_subtle")),
    ]
    for query in ("a.sub", "a.subtle", "a._subtle"):
        found = [hit.entry.name for hit in Searcher(entries).search(query) if hit.why.startswith("imported")]
        assert found == ["b.subtle"], query


@pytest.mark.parametrize(
    "query", ["np.array", "loop.loop", "use.d.loop", "use.e.nothing.at.all", "funcol.x.y", ".".join("a" * 2000)]
)
def test_what_leads_nowhere_ends(searcher: Searcher, query: str) -> None:
    assert not any(" is " in hit.why or hit.why.startswith("imported") for hit in searcher.search(query))


def test_an_alias_of_several_modules_finds_the_most_usual_first() -> None:
    entries = [
        Entry("one.f", "function", "one.py", 1, 1, "f()", ""),
        Entry("two.f", "function", "two.py", 1, 1, "f()", ""),
        Entry("a.m", "import", "a.py", 1, 1, "import one as m", ""),
        Entry("b.m", "import", "b.py", 1, 1, "import two as m", ""),
        Entry("c.m", "import", "c.py", 1, 1, "import two as m", ""),
        Entry("c.g.m", "import", "c.py", 2, 2, "import one as m", ""),
    ]
    found = [(hit.entry.name, hit.why) for hit in Searcher(entries).search("m.f")]
    assert found == [("one.f", "m is one in 2 files"), ("two.f", "m is two in 2 files")]
    found = [(hit.entry.name, hit.why) for hit in Searcher([*entries[:2], *entries[3:]]).search("m.f")]
    assert found == [("two.f", "m is two in 2 files"), ("one.f", "m is one in 1 file")]


def test_a_config_key_is_found_under_an_alias_where_its_module_is_not_indexed() -> None:
    assert "config key" in ELSEWHERE
    entries = [
        Entry("a.conf", "import", "a.py", 1, 1, "from lib import config as conf", ""),
        Entry("lib.config.size", "config key", "a.py", 2, 2, "conf.size", ""),
    ]
    assert [hit.why for hit in Searcher(entries).search("conf.size")] == ["conf is lib.config in 1 file"]


HEIRS = {
    "lib/__init__.py": "from .world import group, Layer\nfrom . import world\n",
    "lib/base.py": "class Module:\n    def cuda(self): ...\n    def forward(self): ...\n    cudas = 1\n",
    "lib/world.py": (
        "from lib import base as b\nfrom typing import Generic\n"
        "class _Meta(type):\n    @property\n    def WORLD(cls): ...\n"
        "class group(metaclass=_Meta):\n    class inner(b.Module): ...\n"
        "class Layer(Generic[T], b.Module):\n    def forward(self): ...\n"
        "class Loop(Loop2): ...\nclass Loop2(Loop): ...\nclass Own(dict): ...\n"
    ),
    "lib/dict.py": "",
    "use.py": "import lib as dist\n",
}


@pytest.mark.parametrize(
    ("query", "name", "why"),
    [
        ("dist.group.WORLD", "lib.world._Meta.WORLD", "dist is lib in 1 file; inherited"),
        ("dist.group.WOR", "lib.world._Meta.WORLD", "dist is lib in 1 file; inherited"),
        ("lib.group.WORLD", "lib.world._Meta.WORLD", "imported as lib.group.WORLD; inherited"),
        ("dist.Layer.cuda", "lib.base.Module.cuda", "dist is lib in 1 file; inherited"),
        ("dist.Layer.cud", "lib.base.Module.cuda", "dist is lib in 1 file; inherited"),
        ("dist.group.inner.cuda", "lib.base.Module.cuda", "dist is lib in 1 file; inherited"),
        ("lib.world.Layer.cuda", "lib.base.Module.cuda", "imported as lib.world.Layer.cuda; inherited"),
        ("dist.Layer.forward", "lib.world.Layer.forward", "dist is lib in 1 file"),
        ("group=dist.group.WORLD", "lib.world._Meta.WORLD", "dist is lib in 1 file; inherited"),
        ("pg = dist.group.WORLD", "lib.world._Meta.WORLD", "dist is lib in 1 file; inherited"),
        ("y = dist.Layer.cuda(x, 3)", "lib.base.Module.cuda", "dist is lib in 1 file; inherited"),
        ("inner.cuda", "lib.base.Module.cuda", "of lib.world.group.inner; inherited"),
        ("inner.cud", "lib.base.Module.cuda", "of lib.world.group.inner; inherited"),
        ("Layer.forward", "lib.world.Layer.forward", "end of the qualified name"),
        (
            "dist.Layer.cudsa",
            "lib.base.Module.cuda",
            "near spelling: one letter of cudsa differs; dist is lib in 1 file; inherited",
        ),
    ],
)
def test_what_a_class_has_from_its_bases_and_its_metaclass_is_found(
    tree: Callable[..., Path], tmp_path: Path, query: str, name: str, why: str
) -> None:
    build([tree(HEIRS)], tmp_path / "out")
    hits = Searcher(read_index(tmp_path / "out")).search(query)
    assert (hits[0].entry.name, hits[0].why) == (name, why)


def test_what_a_class_has_itself_is_not_found_in_its_base_too_and_loops_end(
    tree: Callable[..., Path], tmp_path: Path
) -> None:
    build([tree(HEIRS)], tmp_path / "out")
    searcher = Searcher(read_index(tmp_path / "out"))
    own = [hit.entry.name for hit in searcher.search("dist.Layer.forw") if hit.why.startswith("dist is")]
    assert own == ["lib.world.Layer.forward"]
    for query in ("lib.world.Loop.x", "lib.world.Loop.cuda", "lib.world.Own.cuda", "lib.world.Own.cu"):
        assert not any("inherited" in hit.why for hit in searcher.search(query))


SOME = "def one(): ...\ndef two(): ...\ndef _three(): ...\ndef four(): ...\n"
STARS = {
    "lib/__init__.py": "from .some import *\nfrom .more import *\nfrom .empty import *\nfrom .computed import *\n",
    "lib/some.py": f"__all__ = ['one', '_three']\n__all__ += ['x_one']\n{SOME}def x_one(): ...\ndef x_two(): ...\n",
    "lib/more.py": (
        "__all__: list[str] = ['m_one']\n__all__.extend(('m_two',))\n__all__.append('m_three')\n"
        "__all__.remove('m_one')\ndef m_one(): ...\ndef m_two(): ...\ndef m_three(): ...\ndef m_four(): ...\n"
    ),
    "lib/empty.py": "__all__ = []\ndef n_one(): ...\n",
    "lib/computed.py": "__all__ = ['_chosen'] + some.__all__\ndef c_one(): ...\ndef _chosen(): ...\ndef _hid(): ...\n",
    "use.py": "import lib as dist\n",
}


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("one", "lib.some.one"),
        ("_three", "lib.some._three"),
        ("x_one", "lib.some.x_one"),
        ("m_two", "lib.more.m_two"),
        ("m_three", "lib.more.m_three"),
        ("c_one", "lib.computed.c_one"),
        ("_chosen", "lib.computed._chosen"),
        ("_thr", "lib.some._three"),
        ("two", ""),
        ("x_two", ""),
        ("x_tw", ""),
        ("m_one", ""),
        ("m_four", ""),
        ("n_one", ""),
        ("n_on", ""),
        ("_hid", ""),
    ],
)
def test_a_star_takes_what_all_names(tree: Callable[..., Path], tmp_path: Path, query: str, name: str) -> None:
    build([tree(STARS)], tmp_path / "out")
    searcher = Searcher(read_index(tmp_path / "out"))
    for path, why in ((f"dist.{query}", "dist is lib in 1 file"), (f"lib.{query}", "imported as lib.")):
        assert [hit.entry.name for hit in searcher.search(path) if hit.why.startswith(why)] == [name] * (name != "")
