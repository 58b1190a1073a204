"""Sources and queries that mean harm, or are merely odd: reported or taken as text, never a crash."""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kwindex import KwindexError, Searcher, build, open_searcher, read_index
from kwindex.store import INDEX

Tree = Callable[..., Path]
any_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
HARM = [
    "<script>alert(1)</script>",
    "```\n# heading\n[x](javascript:alert(1))",
    "\x1b]0;title\x07\x1b[31mred",
    "\x1f\x1e\t\x0b\u2028\x85",
    '"}\n{"entries": [',
    "\N{RIGHT-TO-LEFT OVERRIDE}gnirts",
]


@settings(max_examples=40, deadline=None)
@given(any_text, any_text, any_text)
def test_any_text_in_any_place_is_only_text(first: str, second: str, query: str) -> None:
    source = (
        f"class A:\n    {first!r}\n    x: {first!r} = {second!r}\n"
        f"def f(a={first!r}, b: {second!r} = 1) -> {first!r}:\n    {second!r}\n    raise ValueError({first!r})\n"
        f"lib = torch.library.Library({first!r}, 'DEF')\nlib.define({second!r})\nos.environ[{first!r}]\n"
        f"torch.library.custom_op({first + '::' + second!r})(f)\nwarnings.warn({second!r}, FutureWarning)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "m.py").write_text(source, "utf-8")
        built = build([Path(folder, "m.py")], Path(folder, "out"))
        entries = read_index(Path(folder, "out"))
        assert built.problems == []
        assert len(json.loads(Path(folder, "out", INDEX).read_bytes())["entries"]) == len(entries) == built.entries
        assert all(text.isprintable() for entry in entries for text in (entry.name, entry.signature, entry.summary))
        searcher = open_searcher(Path(folder, "out"))
        assert list(searcher.entries) == entries
        for asked in (query, first, second, f"{first}.{second}", f"{first} -> {second}"):
            with contextlib.suppress(KwindexError) if "kind:" in asked else contextlib.nullcontext():
                searcher.search(asked)
            searcher.suggest(asked)


@pytest.mark.parametrize("text", HARM)
def test_what_would_act_on_a_terminal_or_break_a_line_is_gone(tree: Tree, tmp_path: Path, text: str) -> None:
    build([tree({"m.py": f"def f():\n    {text!r}\nx = {text!r}\n"})], tmp_path / "out")
    entries = read_index(tmp_path / "out")
    assert [entry.name for entry in entries] == ["m", "m.f", "m.x"]
    assert all(text.isprintable() for entry in entries for text in (entry.signature, entry.summary))


def test_huge_files_lines_and_numbers(tree: Tree, tmp_path: Path) -> None:
    many = "".join(f"def f{number}(x=1): ...\n" for number in range(20_000))
    wide = f"x = {'1' * 4_000}\ny = [{'0, ' * 200_000}]\nz = {'a' * 1_000_000!r}\n'''{'word ' * 100_000}'''\n"
    built = build([tree({"many.py": many, "wide.py": wide})], tmp_path / "out")
    entries = read_index(tmp_path / "out")
    assert (built.problems, len(entries)) == ([], 20_000 + 2 + 3)
    assert max(len(entry.signature) for entry in entries) <= 400
    assert open_searcher(tmp_path / "out").search("f19999")[0].entry.line == 20_000


def test_many_settings_take_time_in_proportion(tree: Tree, tmp_path: Path) -> None:
    many = "".join(f"def f{number}():\n    return os.environ['A{number}']\n" for number in range(20_000))
    begun = time.process_time()
    assert build([tree({"m.py": f"import os\n{many}"})], tmp_path / "out").entries == 40_002
    assert time.process_time() - begun < 15


@pytest.mark.parametrize(
    "query", ["", " ", "->", "-> ->", "((((", "a" * 10_000, "a b " * 500, "x." * 500, "kind:", '"', "\0", "é→"]
)
def test_any_query_is_answered(query: str, tree: Tree, tmp_path: Path) -> None:
    build([tree({"m.py": "def f(x: int) -> str: 'Does it.'\n"})], tmp_path / "out")
    searcher = open_searcher(tmp_path / "out")
    assert isinstance(searcher.search(query), list)
    assert isinstance(searcher.suggest(query), list)
    assert Searcher([]).search(query) == []


@pytest.mark.parametrize("codec", ["undefined", "punycode", "idna", "unicode_escape", "utf-7", "rot13", "no-such"])
def test_a_coding_comment_ends_no_build(codec: str, tree: Tree, tmp_path: Path) -> None:
    built = build(
        [tree({"bad.py": f"# coding: {codec}\n\u00e9 = '\\x..'\n", "good.py": "def f(): ...\n"})], tmp_path / "out"
    )
    assert [problem.file for problem in built.problems] == ["bad.py"]
    assert [entry.name for entry in read_index(tmp_path / "out")] == ["good", "good.f"]


@pytest.mark.parametrize(
    "query", ["\ud800", "a\udcff b", "\ud800 -> \udfff", "kind:function \udc80", "x.\udcff", '"\udcff"']
)
def test_half_a_letter_is_only_text(query: str, tree: Tree, tmp_path: Path) -> None:
    build([tree({"m.py": "def f(x: int) -> str: 'Does it.'\n"})], tmp_path / "out")
    searcher = open_searcher(tmp_path / "out")
    for _ in range(4):  # the first queries go through the text, later ones through its words
        assert searcher.search(query) == []
        assert isinstance(searcher.suggest(query), list)
        assert searcher.exactly(query) == []
