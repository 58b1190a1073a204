"""From sources to index.json: its shape, its determinism, and what happens to files that cannot be read."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import kwindex.reading
import kwindex.sharing
from kwindex import KwindexError, Problem, build, read_index
from kwindex.discover import SourceFile
from kwindex.store import INDEX, MARKER, READY, SOURCES
from kwindex.tables import SECTIONS

Tree = Callable[..., Path]
KEYS = ["name", "kind", "file", "line", "end_line", "signature", "summary"]


def test_index_json_has_exactly_this_shape(tree: Tree, tmp_path: Path) -> None:
    built = build([tree({"a.py": "def f():\n    '''Café → ok.'''\n"})], tmp_path / "out")
    data = (tmp_path / "out" / INDEX).read_bytes()
    content = json.loads(data)
    assert built.path == tmp_path / "out" / INDEX
    assert list(content) == ["id", "entries"]
    assert all(list(entry) == KEYS for entry in content["entries"])
    assert content["entries"][1]["summary"] == "Café → ok."
    assert "Café → ok.".encode() in data
    assert (built.files, built.entries) == (1, 2)


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_an_empty_file_is_a_module(tree: Tree, tmp_path: Path, text: str) -> None:
    build([tree({"a.py": text})], tmp_path / "out")
    assert [(entry.name, entry.line) for entry in read_index(tmp_path / "out")] == [("a", 1)]


def test_same_bytes_whatever_the_order_of_files_and_processes(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"p{i}/m{j}.py": f"from p{j} import x\ndef f{i}{j}(): ...\n" for i in range(4) for j in range(4)}
    root = tree(files)
    build([root], tmp_path / "once")
    shuffled = [root, *(root / name for name in random.Random(7).sample(sorted(files), len(files)))]
    build(shuffled, tmp_path / "again")
    monkeypatch.setattr(kwindex.sharing, "PARALLEL_BYTES", 0)
    monkeypatch.setattr(kwindex.sharing, "_LEAST_CHUNK", 100)
    build([root], tmp_path / "shared", jobs=3)
    once = (tmp_path / "once" / INDEX).read_bytes()
    assert once == (tmp_path / "again" / INDEX).read_bytes() == (tmp_path / "shared" / INDEX).read_bytes()
    assert once.count(b'"kind": "function"') == 16


def test_a_process_that_ends_early_is_said(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kwindex.sharing, "PARALLEL_BYTES", 0)
    monkeypatch.setattr(kwindex.sharing, "_START", "raise SystemExit(9)")
    with pytest.raises(KwindexError, match="ended early; --jobs 1 reads in this one"):
        build([tree({"a.py": "x = 1\n"})], tmp_path / "out", jobs=2)
    assert not (tmp_path / "out").exists()


def test_same_bytes_for_any_hash_seed(tree: Tree, tmp_path: Path, command: Callable[..., object]) -> None:
    root = tree(
        {f"m{i}.py": "import a, b\nclass C:\n    x = 1\n    def __init__(self): self.y = 1\n" for i in range(5)}
    )
    for seed in ("0", "1", "77"):
        command("build", root, "--out", tmp_path / seed, PYTHONHASHSEED=seed)
    assert len({(tmp_path / seed / INDEX).read_bytes() for seed in ("0", "1", "77")}) == 1


def test_broken_files_are_reported_with_their_lines_and_the_rest_is_indexed(tree: Tree, tmp_path: Path) -> None:
    root = tree(
        {
            "good.py": "def f(): ...\n",
            "syntax.py": "x = 1\ndef (\n",
            "bytes.py": b"# one\n# two \xff\n",
            "null.py": b"\n\n\0",
            "deep.py": "x = " + "-" * 50_000 + "1",
        }
    )
    built = build([root], tmp_path / "out")
    assert [(problem.file, problem.line) for problem in built.problems] == [
        ("bytes.py", 2),
        ("deep.py", 1),
        ("null.py", 3),
        ("syntax.py", 2),
    ]
    assert [entry.name for entry in read_index(tmp_path / "out")] == ["good", "good.f"]


def test_only_broken_files_make_an_empty_index(tree: Tree, tmp_path: Path) -> None:
    built = build([tree({"a.py": "("})], tmp_path / "out")
    assert len(built.problems) == 1
    assert json.loads(built.path.read_bytes())["entries"] == []


def test_an_unreadable_file_is_a_problem_without_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(kwindex.reading, "open", refuse, raising=False)
    piece = kwindex.reading.read(SourceFile("/x/a.py", "a.py", "a", 1)).piece
    problem = Problem(**json.loads(piece[SECTIONS.index("problems")]))
    assert problem == Problem("a.py", 0, "Permission denied")
    assert piece[0] == b""
    assert str(problem) == "a.py: Permission denied"


def test_sources_are_never_imported_or_run(tree: Tree, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = f"open({str(trace)!r}, 'w').close()\nraise SystemExit(9)\ndef f(x=open({str(trace)!r}, 'w')): ...\n"
    build([tree({"p/__init__.py": code, "p/m.py": code, "conftest.py": code, "setup.py": code})], tmp_path / "out")
    assert not trace.exists()
    assert len(read_index(tmp_path / "out")) == 8


def test_other_processes_import_nothing_from_the_folder_at_hand(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "trace"
    code = f"open({str(trace)!r}, 'w').close()\n"
    monkeypatch.chdir(tree({f"{name}.py": code for name in ("ast", "json", "pickle", "re", "kwindex/sharing")}))
    monkeypatch.setattr(kwindex.sharing, "PARALLEL_BYTES", 0)
    assert build(["."], tmp_path / "out", jobs=2).files == 5
    assert not trace.exists()


@pytest.mark.parametrize("where", ["", "below", "below/deeper"])
def test_output_inside_the_input_is_refused(tree: Tree, where: str) -> None:
    root = tree({"a.py": ""})
    with pytest.raises(KwindexError, match="inside the source"):
        build([root], root / where)
    assert sorted(path.name for path in root.iterdir()) == ["a.py"]


def test_output_inside_the_input_through_a_link_is_refused(tree: Tree, tmp_path: Path) -> None:
    root = tree({"a.py": ""})
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(KwindexError, match="inside the source"):
        build([root], tmp_path / "link" / "out")


def test_what_kwindex_wrote_is_never_its_input(tree: Tree, tmp_path: Path) -> None:
    root = tree({"a.py": "", "generated.py": "", MARKER: '{"generated": ["generated.py"]}'})
    build([root], tmp_path / "out")
    assert [entry.file for entry in read_index(tmp_path / "out")] == ["a.py"]
    with pytest.raises(KwindexError, match="no Python file"):
        build([root / "generated.py"], tmp_path / "other")


def test_the_marker_lists_what_was_written_and_a_second_build_replaces_it(tree: Tree, tmp_path: Path) -> None:
    root, out = tree({"a.py": ""}), tmp_path / "out"
    build([root], out)
    build([tree({"b.py": ""})], out)
    assert sorted(path.name for path in out.iterdir()) == sorted([MARKER, INDEX, READY, SOURCES])
    assert json.loads((out / MARKER).read_text())["generated"] == [INDEX, READY, SOURCES]
    assert len(read_index(out)) == 2


def test_an_index_of_another_tool_is_not_overwritten(tree: Tree, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / INDEX).write_text("mine")
    with pytest.raises(KwindexError, match="not written by kwindex"):
        build([tree({"a.py": ""})], out)
    assert (out / INDEX).read_text() == "mine"


def test_output_that_is_a_file_is_refused(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KwindexError, match="is a file"):
        build([tree({"a.py": ""})], tmp_path / "file")


def test_no_python_file_at_all(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(KwindexError, match="no Python file"):
        build([tree({"a.txt": ""})], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_progress_counts_bytes_up_to_all_of_them(tree: Tree, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    build([tree({"a.py": "x=1\n", "b.py": "y=1\n"})], tmp_path / "out", progress=lambda *step: steps.append(step))
    assert steps == [(4, 8), (8, 8)]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"entries": 3}', '{"entries": [{"name": "x"}]}', '{"entries": ["x"]}']
)
def test_what_is_not_an_index_is_said_so(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(KwindexError, match=r"kwindex index|index of kwindex"):
        read_index(tmp_path)


def test_a_file_that_cannot_be_written_is_said(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device", str(target))

    root = tree({"a.py": ""})
    build([root], tmp_path / "out")
    before = (tmp_path / "out" / INDEX).read_bytes()
    (root / "a.py").write_text("x = 1\n")
    monkeypatch.setattr("kwindex.store.os.replace", full)
    with pytest.raises(KwindexError, match=r"cannot write .*: No space left on device"):
        build([root], tmp_path / "out")
    assert (tmp_path / "out" / INDEX).read_bytes() == before
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.endswith(".partial")]
