"""The command line in its own process: what it prints, on which stream, and its exit codes."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

Tree = Callable[..., Path]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
SOURCE = "def all_reduce(x):\n    '''Adds up.'''\ndef all_gather_into_tensor(x): ...\n"
KEYS = {"name", "kind", "file", "line", "end_line", "signature", "summary", "why", "score", "path"}


@pytest.fixture
def index(tree: Tree, tmp_path: Path, command: Command) -> Path:
    assert command("build", tree({"m.py": SOURCE}), "--out", tmp_path / "out").returncode == 0
    return tmp_path / "out"


def test_build_then_search(tree: Tree, tmp_path: Path, command: Command) -> None:
    built = command("build", tree({"m.py": SOURCE}), "--out", tmp_path / "out")
    assert (built.returncode, built.stderr) == (0, "")
    assert built.stdout == f"3 entries of 1 file: {tmp_path / 'out' / 'index.json'}\n"
    found = command("search", "allreduce", "--index", tmp_path / "out")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == (
        "m.all_reduce  function  (same letters, other spelling)\n  m.py:1\n  all_reduce(x)\n  Adds up.\n"
    )


def test_default_folder_is_the_same_for_both(tree: Tree, tmp_path: Path, command: Command) -> None:
    command("build", tree({"m.py": SOURCE}), cwd=tmp_path)
    assert (tmp_path / "kwindex-out" / "index.json").is_file()
    assert command("search", "agit", cwd=tmp_path).stdout.startswith("m.all_gather_into_tensor")


def test_build_json(tree: Tree, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    done = command("build", tree({"m.py": SOURCE, "bad.py": "\n("}), "--out", out, "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 3
    assert {key: said[key] for key in ("index", "files", "entries")} == {
        "index": str(out / "index.json"),
        "files": 1,
        "entries": 3,
    }
    assert [(problem["file"], problem["line"]) for problem in said["problems"]] == [("bad.py", 2)]
    assert list(json.loads((out / "index.json").read_bytes())) == ["id", "entries"]


def test_search_json(index: Path, command: Command) -> None:
    hits = json.loads(command("search", "all", "--index", index, "--json").stdout)
    assert [hit["name"] for hit in hits] == ["m.all_reduce", "m.all_gather_into_tensor"]
    assert all(hit.keys() == KEYS for hit in hits)
    assert hits[0]["score"] >= hits[1]["score"]
    assert Path(hits[0]["path"]).read_text().splitlines()[hits[0]["line"] - 1] == "def all_reduce(x):"
    assert len(json.loads(command("search", "all", "--index", index, "--json", "--limit", 1).stdout)) == 1


def test_a_damaged_index_is_not_taken_for_one_without_the_name(index: Path, command: Command) -> None:
    data = (index / "index.json").read_bytes()
    (index / "index.json").write_bytes(data.replace(b'"kind": "function"', b'"kind": "functio\xff"'))
    done = command("search", "all_reduce", "--index", index)
    assert (done.returncode, done.stdout) == (70, "")
    assert done.stderr.endswith("kwindex: a mistake of kwindex, or the index is damaged; build it again\n")
    (index / "index.json").write_bytes(data)
    assert command("search", "all_reduce", "--index", index).returncode == 0


def test_queries_from_stdin(index: Path, command: Command) -> None:
    done = command("search", "-", "--index", index, "--json", stdin="allreduce\n\nagit\n")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr, len(lines)) == (0, "", 2)
    for line, query in zip(lines, ("allreduce", "agit"), strict=True):
        assert json.loads(line) == json.loads(command("search", query, "--index", index, "--json").stdout)
    done = command("search", "-", "--index", index, stdin="zzqx\nagit\n")
    assert done.returncode == 1
    assert done.stdout.startswith("zzqx:\nagit:\n  m.all_gather_into_tensor  function  (initials)\n    m.py:3\n")
    assert "nothing found for 'zzqx'" in done.stderr
    done = command("search", "-", "--index", index, "--json", stdin="agit\nkind:nonsense x\nzzqx\nagit\n")
    assert (done.returncode, [len(json.loads(line)) > 0 for line in done.stdout.splitlines()]) == (
        2,
        [True, False, False, True],
    )
    assert "'kind:nonsense x': kind:nonsense names no kind of entry" in done.stderr


def test_words_need_no_quotes(index: Path, command: Command) -> None:
    assert command("search", "gather", "tensor", "--index", index).stdout.startswith("m.all_gather_into_tensor")


def test_a_query_may_begin_with_an_arrow(tree: Tree, tmp_path: Path, command: Command) -> None:
    command("build", tree({"m.py": "def made() -> Plank: ...\n"}), "--out", tmp_path / "out")
    for query in (("->Plank",), ("-> Plank",), ("->", "Plank"), ("kind:function", "->Plank")):
        done = command("search", *query, "--index", tmp_path / "out")
        assert (done.returncode, done.stdout[:6], done.stderr) == (0, "m.made", "")


def test_nothing_found(index: Path, command: Command) -> None:
    done = command("search", "reduce_evrything", "--index", index)
    assert (done.returncode, done.stdout) == (1, "")
    assert "did you mean all_reduce?" in done.stderr
    done = command("search", "zzqx", "--index", index, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, [])
    assert done.stderr.endswith("; try a part of the name, or words of what it does\n")


def test_what_filters_keep_away_is_told_and_their_words_are_no_names(index: Path, command: Command) -> None:
    done = command("search", "in:nowhere", "allreduce", "--index", index)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("nothing found for 'in:nowhere allreduce'; without its filters there is m.all_reduce\n")
    for query in ("kind:class zzqx", "in:all_reduce zzqx"):
        done = command("search", query, "--index", index)
        assert done.returncode == 1
        assert "did you mean" not in done.stderr
    done = command("search", "kind:function", "reduce_evrything", "--index", index)
    assert "did you mean all_reduce?" in done.stderr


def test_files_that_cannot_be_read(tree: Tree, tmp_path: Path, command: Command) -> None:
    root = tree({"m.py": SOURCE, "a/bad.py": "x\ny z\n", "latin.py": b"\xe9"})
    (root / "loop.py").symlink_to(root / "loop.py")
    done = command("build", root, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "a/bad.py:2: invalid syntax",
        "latin.py:1: byte 0xe9 is not utf-8; save the file as UTF-8",
        "loop.py: Too many levels of symbolic links",
        "kwindex: 3 not read, 1 file indexed",
    ]
    assert command("search", "all_reduce", "--index", tmp_path / "out").returncode == 0


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads files of every mode")
def test_a_file_without_permission(tree: Tree, tmp_path: Path, command: Command) -> None:
    root = tree({"m.py": SOURCE, "shut.py": ""})
    (root / "shut.py").chmod(0)
    done = command("build", root, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr.splitlines()[0]) == (3, "shut.py: Permission denied")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "required"),
        (("build",), "SRC"),
        (("build", "no-such"), "no such file or folder"),
        (("build", "tree", "--out", "tree/out"), "inside the source"),
        (("build", "tree", "--out", "tree"), "inside the source"),
        (("build", "tree", "--jobs", "0"), "not a whole number from 1"),
        (("search", "x"), "no index at kwindex-out/index.json; run `kwindex build"),
        (("search", ""), "the query is empty"),
        (("search", "x", "--limit", "0"), "not a whole number from 1"),
        (("search", "x", "--limit", "many"), "not a whole number from 1"),
    ],
)
def test_mistakes_in_the_command(
    tree: Tree, tmp_path: Path, command: Command, arguments: tuple[str, ...], said: str
) -> None:
    tree({"m.py": SOURCE})
    done = command(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_the_installed_one(command: Command) -> None:
    done = command("--version")
    assert (done.returncode, done.stdout) == (0, f"kwindex {metadata.version('kwindex')}\n")


def test_help_says_the_exit_codes(command: Command) -> None:
    assert "3  some files could not be read" in command("--help").stdout
    assert "kwindex-out" in command("search", "--help").stdout


def test_importing_is_light_and_takes_no_torch() -> None:
    code = "import sys, kwindex.cli; print(sorted({'torch', 'rich', 'comm_core', 'numpy'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
        == "[]\n"
    )


def test_a_reader_that_stops_early_is_no_error(index: Path) -> None:
    line = f"{sys.executable} -m kwindex search all --index {index} --json | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_that_are_not_text_are_printed_all_the_same(tree: Tree, tmp_path: Path, command: Command) -> None:
    root = tree({"m.py": SOURCE})
    Path(os.fsdecode(bytes(root) + b"/caf\xe9.py")).write_text("def f(): ...\n")
    Path(os.fsdecode(bytes(root) + b"/\x1b[31m.py")).write_text("(")
    done = command("build", root, "--out", tmp_path / "out", "--json")
    assert done.returncode == 3
    assert "\x1b" not in done.stdout + done.stderr
    assert command("search", "f", "--index", tmp_path / "out").returncode == 0


def test_a_narrow_encoding_is_no_error(tree: Tree, tmp_path: Path, command: Command) -> None:
    command("build", tree({"m.py": "def été():\n    'To → there.'\n"}), "--out", tmp_path / "out")
    plain = command("search", "été", "--index", tmp_path / "out", PYTHONIOENCODING="ascii:strict")
    assert (plain.returncode, plain.stdout.splitlines()[-1]) == (0, r"  To \u2192 there.")
    as_json = command("search", "été", "--index", tmp_path / "out", "--json", PYTHONIOENCODING="ascii:strict")
    assert json.loads(as_json.stdout)[0]["name"] == "m.été"


def on_terminal(*arguments: str | Path, **variables: str) -> str:
    """Runs the command with a terminal for its output and returns all that it shows there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    line = [sys.executable, "-m", "kwindex", *map(str, arguments)]
    environment = {**os.environ, "TERM": "xterm", **variables}
    with subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:
            pass  # the terminal is closed: the process has ended
        process.wait(60)
    os.close(ours)
    return shown.decode()


def test_a_terminal_sees_progress_and_bold_names(tree: Tree, tmp_path: Path) -> None:
    assert "reading sources" in on_terminal("build", tree({"m.py": SOURCE}), "--out", tmp_path / "out")
    assert "\x1b[1mm.all_reduce\x1b[0m" in on_terminal("search", "all_reduce", "--index", tmp_path / "out")
    assert "\x1b" not in on_terminal("search", "all_reduce", "--index", tmp_path / "out", NO_COLOR="1")
    assert "\x1b" not in on_terminal("search", "all_reduce", "--index", tmp_path / "out", TERM="dumb")


def test_places_are_links_to_the_files_where_colours_are_wanted(index: Path, tmp_path: Path, command: Command) -> None:
    plain = command("search", "all_reduce", "--index", index)
    coloured = command("search", "all_reduce", "--index", index, "--color", "always")
    assert "\x1b" not in plain.stdout
    assert f"\x1b]8;;file://{tmp_path}/tree/m.py#L1\x1b\\" in coloured.stdout
    assert "\x1b" not in command("search", "all_reduce", "--index", index, "--color", "never").stdout


def test_what_is_longer_than_the_screen_goes_through_a_pager(tree: Tree, tmp_path: Path) -> None:
    names = "".join(f"def reduce_{number}(): ...\n" for number in range(30))
    on_terminal("build", tree({"m.py": names}), "--out", tmp_path / "out")
    line = ("search", "reduce", "--limit", "30", "--index", str(tmp_path / "out"))
    paged = on_terminal(*line, KWINDEX_PAGER="sed s/^/paged:/")
    assert paged.count("paged:") == 90
    assert "paged:" not in on_terminal(*line, "--no-pager", KWINDEX_PAGER="sed s/^/paged:/")
    assert on_terminal(*line, KWINDEX_PAGER="/no/such/pager").count("m.py:") == 30
    assert on_terminal(*line, PAGER="").count("m.py:") == 30
    assert "paged:" not in on_terminal("search", "reduce_7", "--index", str(tmp_path / "out"), PAGER="sed s/^/paged:/")


def test_a_pager_whose_quotes_do_not_close_is_no_error(index: Path) -> None:
    line = ("search", "m", "kind:function", "--limit", "30", "--index", index)
    names = [f"reduce_{number}" for number in range(30)]
    source = index.parent / "tree/m.py"
    source.write_text("".join(f"def {name}(): ...\n" for name in names))
    on_terminal("build", source.parent, "--out", index)
    shown = on_terminal(*line, KWINDEX_PAGER="less 'x")
    assert "Traceback" not in shown
    assert all(f"{name}\x1b" in shown for name in names)


def test_a_query_that_is_no_text_finds_nothing(index: Path, command: Command) -> None:
    done = command("search", os.fsdecode(b"caf\xe9"), "--index", index)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("kwindex: nothing found for ")
    line = f"printf 'caf\\xe9\\nagit\\n' | {sys.executable} -m kwindex search - --index {index}"
    asked = subprocess.run(["bash", "-c", line], capture_output=True, timeout=60, check=False)
    assert (asked.returncode, b"m.all_gather_into_tensor" in asked.stdout, b"Traceback" in asked.stderr) == (
        1,
        True,
        False,
    )


def test_files_of_others_are_never_replaced(tree: Tree, tmp_path: Path, command: Command) -> None:
    root = tree({"m.py": SOURCE})
    for name in ("index.json", "search.bin", "sources.json", "tags", "pages/objects.inv", "pages/llms.txt"):
        out = tmp_path / name.replace("/", "-")
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text("mine\n")
        done = command("build", root, "--out", out, "--tags", "--pages")
        assert (done.returncode, done.stdout) == (2, ""), name
        assert f"{out / name} was not written by kwindex" in done.stderr
        assert [path.name for path in out.rglob("*") if path.is_file()] == [(out / name).name]
        assert (out / name).read_text() == "mine\n"


def test_what_kwindex_wrote_it_replaces(tree: Tree, tmp_path: Path, command: Command) -> None:
    root, out = tree({"m.py": SOURCE}), tmp_path / "out"
    for text in (SOURCE, SOURCE + "def scatter(): ...\n"):
        (root / "m.py").write_text(text)
        assert command("build", root, "--out", out, "--tags", "--pages").returncode == 0
    assert "scatter\t" in (out / "tags").read_text()


def test_update_reads_one_file_anew(tree: Tree, tmp_path: Path, command: Command) -> None:
    root = tree({"m.py": SOURCE, "n.py": ""})
    command("build", root, "--out", tmp_path / "out")
    (root / "m.py").write_text(SOURCE + "def broadcast(): ...\n")
    done = command("update", root / "m.py", "--out", tmp_path / "out", "--json")
    assert (done.returncode, json.loads(done.stdout)["read"]) == (0, 1)
    assert command("search", "broadcast", "--index", tmp_path / "out").stdout.startswith("m.broadcast")
    assert command("update", root / "o.py", "--out", tmp_path / "out").returncode == 2
    assert done.stderr == ""
    command("build", root, "--out", tmp_path / "out", "--tags", "--pages")
    done = command("update", root / "m.py", "--out", tmp_path / "out")
    assert (done.returncode, "tags and pages as before" in done.stderr) == (0, True)


def test_evaluate_prints_figures(index: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "golden.tsv").write_text("folded\ttuned\tallreduce\tm.all_reduce\nfolded\theld\tx\tm.all_reduce\n")
    shown = command("evaluate", tmp_path / "golden.tsv", "--index", index)
    assert shown.returncode == 0
    assert "folded (held): 'x': not found" in shown.stdout
    said = json.loads(command("evaluate", tmp_path / "golden.tsv", "--index", index, "--json").stdout)
    assert said["strata"]["all"]["both"]["success"] == 0.5


def test_the_commit_is_stated_at_the_call_or_nothing_is_read(tree: Tree, tmp_path: Path, command: Command) -> None:
    root, out, address = tree({"m.py": "x = 1\n"}), tmp_path / "out", "https://host/{commit}/{file}#L{line}"
    told = ("build", root, "--out", out, "--source-address", address)
    for wrong in ((), ("--pages",), ("--pages", "--commit", "a b")):
        done = command(*told, *wrong)
        assert (done.returncode, out.exists()) == (2, False), done.stderr
        assert "commit" in done.stderr
    assert command(*told, "--pages", "--commit", "v1").returncode == 0
    assert "(https://host/v1/m.py#L1)" in (out / "pages/m.py_docs.md").read_text()
