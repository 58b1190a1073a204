"""The pages: every link leads somewhere, every name is true, nothing is empty, and no text of a source is markup."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import markdown
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kwindex import KwindexError, build, read_index
from kwindex.pages import places_at, write_pages
from kwindex.pages.file_pages import MARK
from kwindex.pages.markdown import block, code, plain
from kwindex.syntax import syntax_tree

SHOP = {
    "shop/__init__.py": '"""A shop.\n\nIt sells saws."""\n',
    "shop/saws.py": (
        '"""Saws."""\nimport typing\nfrom typing import TYPE_CHECKING\n'
        "if TYPE_CHECKING:\n    from shop.wood import Plank as P\n"
        "try:\n    import fast\nexcept ImportError:\n    import slow as fast\n"
        "class Saw:\n    teeth: int = 3\n    @property\n    def sharp(self) -> bool:\n"
        '        """Tell whether it cuts."""\n        return True\n'
        'def cut(x: "int | None"):\n    def inner(): ...\n    raise ValueError(f"no {x} | here")\n'
    ),
    "shop/wood/__init__.py": "class Plank: ...\n",
    "tests/test_saws.py": (
        "from shop import saws\nfrom shop.saws import cut as c\ndef test_cut():\n    c(3)\n    saws.Saw()\n"
    ),
}


class Reader(HTMLParser):
    """Collects links, anchors, tags and text of a rendered page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.tags: set[str] = set()
        self.text = ""
        self.titles = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.titles += tag == "h1"
        for name, value in attrs:
            if name == "href":
                self.links.append(value or "")
            if name == "id":
                self.anchors.add(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(text: str) -> Reader:
    reader = Reader()
    reader.feed(markdown.markdown(text, extensions=["tables", "fenced_code"]))
    return reader


def written(root: Path, out: Path, **options: str) -> dict[str, str]:
    build([root], out)
    count = write_pages([root], read_index(out), out, **options)  # type: ignore[arg-type]
    pages = {path.relative_to(out / "pages").as_posix(): path.read_text() for path in (out / "pages").rglob("*.md")}
    assert len(pages) == count
    return pages


@pytest.fixture
def shop(tree: Callable[..., Path], tmp_path: Path) -> dict[str, str]:
    return written(tree(SHOP), tmp_path / "out")


def check_links(pages: dict[str, str]) -> int:
    read = {path: rendered(text) for path, text in pages.items()}
    count = 0
    for path, page in read.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            there = os.path.normpath(os.path.join(os.path.dirname(path), unquote(target))) if target else path
            assert there in read, f"{path}: {link}"
            assert not anchor or anchor in read[there].anchors, f"{path}: {link}"
            count += 1
    return count


def test_every_link_and_anchor_leads_somewhere(shop: dict[str, str]) -> None:
    assert check_links(shop) > 60


def test_a_page_tells_what_a_file_holds(shop: dict[str, str]) -> None:
    page = shop["shop/saws.py_docs.md"]
    assert page.startswith(f"{MARK}\n\n# `shop/saws.py`\n\nSaws.\n")
    assert "module: no other rule fits" in page
    assert (
        '    - <a id="Saw.sharp"></a>`sharp(self) -> bool` property, line 13 `@property`: Tell whether it cuts.' in page
    )
    assert '    - <a id="cut.inner"></a>`inner()` nested function' in page
    assert "| [`shop.wood.Plank`](wood/__init__.py_docs.md) | `P` | for type checkers | line 5 |" in page
    assert "| `slow` | `fast` | after ImportError | line 9 |" in page
    assert "| <code>ValueError: no &#123;x&#125; &#124; here</code> | error | line 18 |" in page
    tests = page.split("## Tests that call it")[1].split("\n## ")[0]
    assert "test_cut`](../tests/test_saws.py_docs.md#test_cut): `shop.saws.Saw`, `shop.saws.cut`" in tests
    assert "tests: its name begins with" in shop["tests/test_saws.py_docs.md"]
    assert "| `test_cut` | `shop.saws.Saw`, `shop.saws.cut` | line 3 |" in shop["tests/test_saws.py_docs.md"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", "0 lines, 0 bytes"),
        ("x", "1 line, 1 byte"),
        ("x\n", "1 line, 2 bytes"),
        ("x\n\n", "2 lines, 3 bytes"),
        ("x\r\ny\rz", "3 lines, 6 bytes"),
        ("'\x0c\u2028'\ny", "2 lines, 8 bytes"),
    ],
)
def test_a_page_tells_how_many_lines_python_counts(text: str, size: str, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/m.py").write_bytes(text.encode())
    pages = written(tmp_path / "src", tmp_path / "out")
    assert f"| size | {size} |" in pages["m.py_docs.md"]
    assert pages["index.md"].split("## Files")[1].count(f" | {size.split()[0]} | ") == 1


def test_a_page_tells_when_each_import_runs(tree: Callable[..., Path], tmp_path: Path) -> None:
    text = (
        "import contextlib, typing as t\nif t.TYPE_CHECKING:\n    import a\n"
        "try:\n    import b\nexcept ValueError:\n    import c\n"
        "try:\n    import d\nexcept (OSError, ImportError):\n    import e\n"
        "with contextlib.suppress(ImportError):\n    import f\n"
        "match x:\n    case 1:\n        import g\n"
        "def h():\n    if y:\n        import i\n"
    )
    page = written(tree({"m.py": text}), tmp_path / "out")["m.py_docs.md"]
    rows = [row.split(" | ") for row in page.split("## Imports")[1].splitlines() if row.startswith("| `")]
    assert {row[1].strip("`"): row[2] for row in rows} == {
        "contextlib": "",
        "t": "",
        "a": "for type checkers",
        "b": "",
        "c": "after ValueError",
        "d": "if it is there",
        "e": "after (OSError, ImportError)",
        "f": "if it is there",
        "g": "",
        "i": "in h, if y",
    }


def test_a_files_keywords_name_the_line_and_a_folders_the_file_too(shop: dict[str, str]) -> None:
    (own,) = [row for row in shop["shop/saws.py_kw.md"].splitlines() if row.startswith("| [`cut`]")]
    (below,) = [row for row in shop["shop/sub.md"].splitlines() if row.startswith("| [`cut`]")]
    line = own.split(" | ")[3]
    assert line.removeprefix("line ").isdigit()
    assert below.split(" | ")[3] == f"`shop/saws.py:{line.removeprefix('line ')}`"


def test_a_files_keywords_name_its_module_once_and_say_inside_of_what_each_stands(shop: dict[str, str]) -> None:
    page = shop["shop/saws.py_kw.md"]
    top, tables = page.split("\n## Classes\n", 1)  # after that of the module itself
    assert "Names stand in `shop.saws`." in top
    assert "| keyword | kind | in the module |" in tables
    assert "shop.saws" not in tables.replace("saws.py_docs.md", "")
    rows = {row.split("`")[1]: row.split(" | ")[2] for row in tables.splitlines() if row.startswith("| [`")}
    assert rows["sharp"] == "`Saw.sharp`"
    assert rows["cut"] == "`cut`"
    assert "`shop.saws.Saw.sharp`" in shop["shop/sub.md"]  # of many modules, so in full


def test_folders_say_what_is_in_them_and_how_they_stand(shop: dict[str, str]) -> None:
    assert "| [`wood`](wood/index.md) | 1 |" in shop["shop/index.md"]
    assert "| [`saws.py`](saws.py_docs.md) | [keywords](saws.py_kw.md) | module | 18 | Saws. |" in shop["shop/index.md"]
    assert "```text\nA shop.\n\nIt sells saws.\n```" in shop["shop/doc.md"]
    assert "| [`tests`](../tests/index.md) | 1 |" in shop["shop/doc.md"].split("## Is needed by")[1]
    below = shop["shop/sub.md"]
    assert below.index("`cut`") < below.index("`inner`") < below.index("`Plank`") < below.index("`teeth`")
    assert "[`Plank`](wood/__init__.py_docs.md#Plank)" in below


def test_the_folder_of_all_is_no_name_in_code(shop: dict[str, str]) -> None:
    titles = [
        shop[page].split("\n# ")[1].partition("\n")[0] for page in ("index.md", "doc.md", "sub.md", "shop/doc.md")
    ]
    assert titles == ["All files", "About all files", "Keywords of all files", "About `shop`"]


def test_a_folder_of_nothing_but_one_folder_leads_to_its_keywords(tree: Callable[..., Path], tmp_path: Path) -> None:
    pages = written(tree({"a/b/m.py": "def f(): ...\n"}), tmp_path / "out")
    assert "All of them are in one folder: [`a/b/sub.md`](b/sub.md)." in pages["a/sub.md"]
    assert "[`f`](m.py_docs.md#f)" in pages["a/b/sub.md"]


def test_the_keywords_of_the_whole_hold_identifiers_by_letter(shop: dict[str, str]) -> None:
    assert "[`cut`](../shop/saws.py_docs.md#cut)" in shop["keywords/c.md"]
    assert "[c](keywords/c.md)" in shop["keywords.md"]


def test_no_section_is_empty(shop: dict[str, str]) -> None:
    for path, text in shop.items():
        for heading in re.finditer(r"(?m)^#+ .*\n", text):
            rest = text[heading.end() :].strip()
            assert rest, f"{path}: {heading.group()}"
            assert not rest.startswith("#"), f"{path}: {heading.group()}"


def test_a_file_that_is_gone_takes_its_pages_along(tree: Callable[..., Path], tmp_path: Path) -> None:
    root = tree(SHOP)
    before = written(root, tmp_path / "out")
    (root / "shop/wood/__init__.py").unlink()
    (root / "shop/wood").rmdir()
    after = written(root, tmp_path / "out")
    gone = {path for path in before if path.startswith("shop/wood/")}
    assert gone
    assert after.keys() == before.keys() - gone - {"keywords/p.md", "keywords/w.md"}
    assert not (tmp_path / "out/pages/shop/wood").exists()
    check_links(after)


def test_a_file_of_someone_else_is_never_overwritten(tree: Callable[..., Path], tmp_path: Path) -> None:
    foreign = tmp_path / "out/pages/index.md"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    with pytest.raises(KwindexError, match="was not written by kwindex"):
        written(tree(SHOP), tmp_path / "out")
    assert foreign.read_text() == "mine"


def test_lines_lead_to_published_sources_where_an_address_is_given(tree: Callable[..., Path], tmp_path: Path) -> None:
    pages = written(tree(SHOP), tmp_path / "out", places=places_at("https://host/{file}#L{line}"))
    assert "[line 13](https://host/shop/saws.py#L13)" in pages["shop/saws.py_docs.md"]
    assert not any("commit" in text for text in pages.values())
    with pytest.raises(KwindexError, match=r"no \{file\}"):
        places_at("https://host/")


def test_the_commit_that_the_caller_states_stands_on_pages_and_in_their_links(
    tree: Callable[..., Path], tmp_path: Path
) -> None:
    address = "https://host/blob/{commit}/{file}#L{line}"
    pages = written(tree(SHOP), tmp_path / "out", places=places_at(address, "release/v2.13.0+x"))
    docs = pages["shop/saws.py_docs.md"]
    assert "[line 13](https://host/blob/release/v2.13.0+x/shop/saws.py#L13)" in docs
    assert "at commit `release/v2.13.0+x`" in docs
    rows = [line for line in docs.splitlines() if line.startswith(("| content | `blake2b ", "| commit | "))]
    assert rows[1:] == ["| commit | `release/v2.13.0+x` |"]
    with_lines = [name for name, text in pages.items() if re.search(r"L\d+\)", text)]
    assert len(with_lines) > 8
    assert [name for name in with_lines if "commit `release/v2.13.0+x`" not in pages[name]] == []


def test_a_commit_stands_on_pages_without_an_address_too(tree: Callable[..., Path], tmp_path: Path) -> None:
    docs = written(tree(SHOP), tmp_path / "out", places=places_at("", "1f2e3d4"))["shop/saws.py_docs.md"]
    assert "Source: `shop/saws.py:1` at commit `1f2e3d4`" in docs


@pytest.mark.parametrize(
    "commit",
    ["a b", "a)b", "a](https://evil)", "`a`", "<a>", "a\nb", "../a", "a..b", "-a", "a//b", "a/", "a?b", "é", "a" * 300],
)
def test_what_could_break_out_of_an_address_is_no_commit(commit: str) -> None:
    with pytest.raises(KwindexError, match="is no revision"):
        places_at("https://host/{commit}/{file}", commit)


def test_an_address_that_names_a_commit_needs_one() -> None:
    with pytest.raises(KwindexError, match=r"has \{commit\}.*--commit"):
        places_at("https://host/{commit}/{file}")


HOSTILE = [
    "<script>alert(1)</script>",
    "```\n<script>alert(1)</script>\n```",
    "</textarea><img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "| a | b |\n|---|---|\n| <script> | c |",
    "`````\n<script>\n`````",
    "{: onclick=alert(1) }",
    "<!-- --> <script> -->",
    "# heading\n\n* list\n\n---\n",
    "&lt;script&gt; &#60;script&#62;",
]
MARKUP = {"script", "img", "textarea", "iframe", "style", "svg"}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_docstring_is_text(text: str, tree: Callable[..., Path], tmp_path: Path) -> None:
    source = f"{text!r}\nclass A:\n    {text!r}\n    b = {text!r}\ndef f(x={text!r}):\n    raise ValueError({text!r})\n"
    pages = written(tree({"m.py": source}), tmp_path / "out")
    for path, page in pages.items():
        read = rendered(page)
        assert not read.tags & MARKUP, path
        assert not [link for link in read.links if "javascript" in link], path
        assert read.tags & {"h1", "hr", "li"} <= {"h1", "li"}, path
        assert read.titles == 1, path
    check_links(pages)
    if first := text.split("\n\n")[0].split("\n")[0]:
        assert first.strip("`").strip() in rendered(pages["m.py_docs.md"]).text


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1)


@given(TEXTS)
@settings(max_examples=300)
def test_any_text_is_shown_as_it_is(text: str) -> None:
    shown = " ".join(text.split())
    for markup in (f"x {plain(text)}", f"x {code(text)}", f"x {code(text, cell=False)}"):
        read = rendered(markup)
        assert read.text.strip() == f"x {shown}".strip()
        assert read.tags <= {"p", "code"}


@given(TEXTS)
@settings(max_examples=200)
def test_a_line_that_begins_with_any_text_is_a_paragraph(text: str) -> None:
    shown = " ".join(text.split())
    read = rendered(plain(text))
    assert read.text.strip() == shown
    assert read.tags <= {"p"}


@given(st.lists(st.text("`~ a<\n", max_size=12), min_size=1, max_size=6))
@settings(max_examples=200)
def test_a_block_ends_where_it_is_closed(lines: list[str]) -> None:
    read = rendered("\n".join([*block("\n".join(["x", *lines, "x"])), "", "after"]))
    assert read.tags == {"pre", "code", "p"}
    assert read.text.strip().endswith("after")


def test_all_of_it_again_gives_the_same_bytes_whatever_the_hash_seed(tree: Callable[..., Path], tmp_path: Path) -> None:
    root = tree(SHOP)
    seen = []
    for seed in ("1", "2"):
        out = tmp_path / seed
        line = [sys.executable, "-m", "kwindex", "build", str(root), "--out", str(out), "--pages"]
        subprocess.run(line, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, timeout=120, capture_output=True)
        seen.append({path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()})
    assert seen[0] == seen[1]
    assert len(seen[0]) > 20


@given(st.lists(st.sampled_from(["a", "b", "C", "_d"]), min_size=1, max_size=4, unique=True))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_definition_that_ast_sees_has_its_place(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    body = "".join(f"class {name}:\n    def m(self):\n        def {name}_in(): ...\n" for name in names)
    root = tmp_path_factory.mktemp("tree")
    (root / "m.py").write_text(body)
    pages = written(root, tmp_path_factory.mktemp("out"))
    anchors = rendered(pages["m.py_docs.md"]).anchors
    defined = [node.name for node in ast.walk(syntax_tree(body)) if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    assert sorted(anchor.rpartition(".")[2] for anchor in anchors) == sorted(defined)


def test_the_original_with_nested_lowerings_shows_them_all(originals: list[Path], tmp_path: Path) -> None:
    (file,) = [path for path in originals if path.name == "comm_lowering.py"]
    pages = written(file, tmp_path / "out")
    check_links(pages)
    (docs,) = [text for path, text in pages.items() if path.endswith("_docs.md")]
    nodes = ast.walk(syntax_tree(file.read_text()))
    defined = [node for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    anchors = rendered(docs).anchors
    assert len(defined) > 40
    for node in defined:
        assert any(re.fullmatch(rf"(.*\.)?{node.name}(-\d+)?", anchor) for anchor in anchors), node.name
    for mojibake in ("Ã", "â†", "\ufffd"):
        assert mojibake not in "".join(pages.values())


def test_a_folder_of_too_many_keywords_leads_to_those_in_it(
    tree: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kwindex.pages.folder_pages.MOST_KEYWORDS", 5)
    many = "".join(f"def f{number}(): ...\n" for number in range(4))
    pages = written(tree({"a/m.py": many, "b/n.py": many, "own.py": "def here(): ...\n"}), tmp_path / "out")
    assert "These are 12." in pages["sub.md"]
    assert "| [`a`](a/sub.md) | 5 |" in pages["sub.md"]
    assert "[`here`](own.py_docs.md#here)" in pages["sub.md"]
    assert "f0" not in pages["sub.md"]
    assert "[`f0`](m.py_docs.md#f0)" in pages["a/sub.md"]
    assert check_links(pages) > 20


def test_of_several_modules_of_one_name_the_nearest_is_meant(tree: Callable[..., Path], tmp_path: Path) -> None:
    utils, user = "def saw(): ...\n", "from utils import saw\ndef test_saw(): saw()\n"
    files = {
        "a/utils.py": utils,
        "b/utils.py": utils,
        "a/test_a.py": user,
        "b/deep/test_b.py": user,
        "c/test_c.py": user,
    }
    pages = written(tree(files), tmp_path / "out")
    assert "| [`utils.saw`](utils.py_docs.md) |" in pages["a/test_a.py_docs.md"]
    assert "| [`utils.saw`](../utils.py_docs.md) |" in pages["b/deep/test_b.py_docs.md"]
    assert "| `utils.saw` |" in pages["c/test_c.py_docs.md"], "nothing says which one"
    for folder, test in (("a", "test_a"), ("b", "deep/test_b")):
        links = {link for link in rendered(pages[f"{folder}/utils.py_docs.md"]).links if "test_" in link}
        assert links == {f"{test}.py_docs.md", f"{test}.py_docs.md#test_saw"}


def test_a_folder_says_what_could_not_be_read_in_it(tree: Callable[..., Path], tmp_path: Path) -> None:
    root = tree({"a/m.py": "x = 1\n", "a/bad.py": "\ndef f(:\n", "only/broken.py": b"\xe9"})
    (root / "a/gone.py").symlink_to("nowhere")
    pages = written(root, tmp_path / "out")
    assert "## Not read" not in pages["index.md"]
    lines = pages["a/index.md"].split("## Not read")[1].strip().splitlines()
    assert lines[2:] == ["| `bad.py` | 2 | invalid syntax |", "| `gone.py` |  | No such file or directory |"]
    assert "| `broken.py` | 1 | byte 0xe9 is not utf-8; save the file as UTF-8 |" in pages["only/index.md"]
    assert check_links(pages) > 20
