"""What other tools read: tags by editors, the inventory by documentation sites, the list by language models."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote

import pytest
from mkdocstrings import Inventory

from kwindex import build, read_index
from kwindex.exports import openable, tags_text
from kwindex.pages import write_pages

SOURCE = "class Saw:\n    def cut(self):\n        def inner(): ...\n\nTEETH = 3\nfrom os import *\n"


def test_tags_lead_an_editor_to_the_line(
    tree: Callable[..., Path], tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    root = tree({"m.py": SOURCE})
    assert command("build", root, "--out", tmp_path / "out", "--tags").returncode == 0
    lines = (tmp_path / "out/tags").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("!_")]
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    found = {row[0]: row for row in rows}
    assert found.keys() == {"m", "Saw", "cut", "inner", "TEETH"}
    path, line = (tmp_path / "out" / found["cut"][1]).resolve(), int(found["cut"][2].removesuffix(';"'))
    assert path.read_text().splitlines()[line - 1].strip() == "def cut(self):"
    assert found["inner"][3:] == ["F", "line:3", "scope:m.Saw.cut"]


@pytest.mark.skipif(shutil.which("readtags") is None, reason="readtags, the reader of ctags, is not installed")
def test_the_reader_of_ctags_finds_a_name(tree: Callable[..., Path], tmp_path: Path) -> None:
    root = tree({"m.py": SOURCE})
    build([root], tmp_path / "out")
    text = tags_text(read_index(tmp_path / "out"), openable({"m.py": str(root / "m.py")}, tmp_path / "out"))
    (tmp_path / "tags").write_text(text)
    line = ["readtags", "-t", str(tmp_path / "tags"), "-en", "-", "cut"]
    said = subprocess.run(line, capture_output=True, text=True, timeout=30, check=True).stdout
    assert "cut\t" in said
    assert "line:2" in said


def test_operators_are_tags_with_all_that_is_registered_for_them(tree: Callable[..., Path], tmp_path: Path) -> None:
    text = "lib = torch.library.Library('mine', 'DEF')\nlib.define('add.out(Tensor a) -> Tensor')\n"
    root = tree(
        {"m.py": text + "lib.impl('add.out', f)\n@register_lowering(torch.ops.mine.add.out)\ndef lower(x): ...\n"}
    )
    build([root], tmp_path / "out")
    rows = [line.split("\t") for line in tags_text(read_index(tmp_path / "out"), {"m.py": "m.py"}).splitlines()]
    assert [row[:4] for row in rows if row[0].startswith("mine")] == [
        ["mine::add.out", "m.py", f'{line};"', kind] for line, kind in ((2, "o"), (3, "k"), (5, "l"))
    ]


def test_the_inventory_is_read_by_documentation_sites(tree: Callable[..., Path], tmp_path: Path) -> None:
    root, out = tree({"m.py": SOURCE}), tmp_path / "out"
    build([root], out)
    write_pages([root], read_index(out), out, title="mine")
    read = Inventory.parse_sphinx(BytesIO((out / "pages/objects.inv").read_bytes()))
    assert read["m.Saw.cut"].role == "method"
    assert read["m.Saw.cut"].uri == "m.py_docs.md#Saw.cut"
    assert read["m"].uri == "m.py_docs.md"
    assert set(read) == {"m", "m.Saw", "m.Saw.cut", "m.Saw.cut.inner", "m.TEETH"}


def test_the_list_names_every_module_with_its_page(tree: Callable[..., Path], tmp_path: Path) -> None:
    root, out = tree({"a.py": '"""First."""\n', "b/__init__.py": ""}), tmp_path / "out"
    build([root], out)
    write_pages([root], read_index(out), out, title="mine")
    text = (out / "pages/llms.txt").read_text()
    assert text == "# mine\n\n## Modules\n\n- [a](a.py_docs.md): First.\n- [b](b/__init__.py_docs.md)\n"


def test_no_name_and_no_docstring_breaks_a_list(
    tree: Callable[..., Path], tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    names = ("a b/sp.py", "per%cent#hash?q.py", "x](y.py", "[z]<b>.py")
    root, out = (
        tree(dict.fromkeys(names, '"""<script>x</script> [a](javascript:b) &lt;"""\ndef f(): ...\n')),
        tmp_path / "out",
    )
    assert command("build", root, "--out", out, "--pages").returncode == 0
    text = (out / "pages/llms.txt").read_text()
    rows = re.findall(r"^- \[((?:\\.|[^\]\\])+)\]\(([^\s()<>]+)\): (.*)$", text, re.MULTILINE)
    assert len(rows) == len(names) == len(text.splitlines()) - 4
    assert {unquote(target) for _, target, _ in rows} == {f"{name}_docs.md" for name in names}
    assert {said for _, _, said in rows} == {r"&lt;script>x&lt;/script> \[a\](javascript:b) &amp;lt;"}
    read = Inventory.parse_sphinx(BytesIO((out / "pages/objects.inv").read_bytes()))
    files = {unquote(item.uri.partition("#")[0]) for item in read.values()}
    assert files >= {f"{name}_docs.md" for name in names}
    assert all((out / "pages" / file).is_file() for file in files)


def test_no_order_of_the_sources_is_in_what_is_written(
    tree: Callable[..., Path], tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    root = tree({"b/m.py": SOURCE, "a/n.py": SOURCE})
    made = []
    for order in (("a", "b"), ("b", "a")):
        out = tmp_path / "".join(order)
        assert command("build", *(root / one for one in order), "--out", out, "--pages", "--tags").returncode == 0
        made.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert made[0] == made[1]
