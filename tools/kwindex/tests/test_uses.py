"""What a file does with names of others: remaps, decorators, and what its tests call."""

import ast
from collections.abc import Callable
from pathlib import Path

from kwindex import Entry, build, open_searcher, read_index
from kwindex.syntax import syntax_tree


def test_a_table_of_remaps_says_what_replaces_what(entries_of: Callable[[str], list[Entry]]) -> None:
    text = (
        "from dist import gather as old, reduce\nimport lib\ndef new(): ...\n"
        "remaps = {\n    old: new,\n    reduce: lib.reduce,\n    'text': new, old: 'text', **more, f(): new,\n}\n"
        "others = {old: new}\nclass C:\n    REMAPPED: dict = {old: new}\n    REMAP = {lib.a.b: new}\n"
        "def f():\n    remap = {old: new}\n"
    )
    found = [(e.name, e.line, e.signature, e.summary) for e in entries_of(text) if e.kind == "remap"]
    assert found == [
        ("m.remaps.gather", 5, "old: new", "dist.gather is replaced by m.new"),
        ("m.remaps.reduce", 6, "reduce: lib.reduce", "dist.reduce is replaced by lib.reduce"),
        ("m.C.REMAP.b", 12, "lib.a.b: new", "lib.a.b is replaced by m.C.new"),
    ]


def test_the_remaps_of_torch_are_all_found(original_entries: list[Entry], torch_folder: Path) -> None:
    tree = syntax_tree((torch_folder / "distributed/_functional_collectives.py").read_text("utf-8"))
    (table,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "traceable_collective_remaps"
    )
    assert isinstance(table, ast.Dict)
    found = [entry for entry in original_entries if entry.kind == "remap"]
    assert [entry.line for entry in found] == [key.lineno for key in table.keys if key is not None]
    assert all(entry.summary.startswith("torch.distributed.distributed_c10d.") for entry in found)


def test_decorators_are_listed_once_a_file(entries_of: Callable[[str], list[Entry]]) -> None:
    text = (
        "import contextlib as c, functools\nfrom lib import wrap\n@c.contextmanager\ndef f(): ...\nclass C:\n"
        "    @property\n    def p(self): ...\n    @p.setter\n    def p(self, v): ...\n    @staticmethod\n"
        "    @wrap(3, x=4)\n    def s(): ...\n    @c.contextmanager\n    def t(self): ...\n"
        "@wrap\nclass D: ...\n@own[0]\ndef g(): ...\n"
    )
    found = [(e.name, e.line, e.signature, e.summary) for e in entries_of(text) if e.kind == "decorator"]
    assert found == [
        ("m.contextlib.contextmanager", 3, "c.contextmanager", "on f, C.t"),
        ("m.lib.wrap", 11, "wrap(3, x=4)", "on C.s, D"),
    ]


def test_what_tests_call_is_listed_once_a_file(entries_of: Callable[[str], list[Entry]]) -> None:
    text = (
        "import torch.distributed as dist\nfrom lib import make\n"
        "def helper():\n    make(0)\ndef test_a():\n    dist.all_reduce(make(1))\n    local(2)\n    x.make(3)\n"
        "class TestB:\n    def test_b(self):\n        def test_inner(): make(4)\n        self.run(dist, make)\n"
        "    def setUp(self): make(5)\n"
    )
    found = [(e.name, e.line, e.signature, e.summary) for e in entries_of(text) if e.kind == "test"]
    assert found == [
        ("m.lib.make", 6, "make(1)", "called by test_a, TestB.test_b"),
        ("m.torch.distributed.all_reduce", 6, "dist.all_reduce(make(1))", "called by test_a"),
    ]


def test_no_use_is_taken_for_what_is_used(tree: Callable[..., Path], tmp_path: Path) -> None:
    used = "from z import wrap, old\ndef new(): ...\nremap = {old: new}\n@wrap\ndef test_a(): old()\n"
    defined = "def wrap(f):\n    'Wraps.'\ndef old():\n    'Is old.'\n"
    build([tree({"a.py": used, "b.py": "from z import wrap, old\n", "z.py": defined})], tmp_path / "out")
    entries = read_index(tmp_path / "out")
    imports = {
        (entry.file, entry.name.rpartition(".")[2]): entry.summary for entry in entries if entry.kind == "import"
    }
    assert imports == {
        (file, name): said for file in ("a.py", "b.py") for name, said in (("wrap", "Wraps."), ("old", "Is old."))
    }
    searcher = open_searcher(tmp_path / "out")
    assert [hit.entry.name for hit in searcher.search("pkg:a kind:decorator wrap")] == ["a.z.wrap"]
    assert [hit.entry.file for hit in searcher.search("z.wrap kind:function")] == ["z.py"]


def test_what_is_used_comes_after_what_is_defined_somewhere(tree: Callable[..., Path], tmp_path: Path) -> None:
    test = "import lib\ndef test_a(): lib.all_reduce()\n@lib.all_reduce\ndef f(): ...\n"
    files = {"test_m.py": test, "lib/__init__.py": "", "lib/deep.py": "def all_reduce(): ...\n"}
    build([tree(files)], tmp_path / "out")
    kinds = [hit.entry.kind for hit in open_searcher(tmp_path / "out").search("lib.all_reduce")]
    assert kinds == ["function", "decorator", "test"]
