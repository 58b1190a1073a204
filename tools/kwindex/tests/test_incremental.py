"""Incremental builds: after any edits the files are byte for byte those of a build from nothing, and little is read."""

import hashlib
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kwindex import KwindexError, build, open_searcher, update
from kwindex.extract import record_of
from kwindex.given import gives_data, wants_data
from kwindex.nametable import NameTable
from kwindex.pieces import make
from kwindex.reading import _VERSION
from kwindex.store import INDEX, READY

Tree = Callable[..., Path]
EXAMPLES = int(os.environ.get("KWINDEX_EDITS", "30"))
"""Random series of edits; the variable asks for more."""

NAMES = ["a", "b", "p/__init__", "p/c", "p/q/d", "é"]
PARTS = [
    "def all_reduce(x: int) -> str:\n    'Adds up.'\n    raise ValueError(f'need {x} ranks or so')\n",
    "def all_reduce_(x): ...\n",
    "class Mesh:\n    size: int = 3\n    def wait(self): ...\n",
    "from p.c import Mesh as M, wait\n",
    "import os\nENV = os.environ['TORCH_X']\n",
    "lib = torch.library.Library('mine', 'DEF')\nlib.define('add(Tensor x) -> Tensor')\n",
    "def é(): 'Été.'\n",
    "def (\n",
    "\xff",
]
texts = st.lists(st.sampled_from(PARTS), max_size=3).map("".join)
edits = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES), texts),
    st.tuples(st.just("delete"), st.sampled_from(NAMES), st.just("")),
    st.tuples(st.just("rename"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
)


def edit(root: Path, what: str, name: str, value: str) -> None:
    path = root / f"{name}.py"
    if what == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value.encode("latin-1" if "\xff" in value else "utf-8"))
    elif what == "delete":
        path.unlink(missing_ok=True)
    elif path.exists():
        (root / value).parent.mkdir(parents=True, exist_ok=True)
        path.rename(root / f"{value}.py")


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (INDEX, READY)}


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(edits, min_size=1, max_size=6))
def test_any_edits_give_the_bytes_of_a_build_from_nothing(series: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, kept = Path(folder, "src"), Path(folder, "kept")
        edit(root, "write", "always", "def here(): ...\n")
        build([root], kept)
        for number, step in enumerate(series):
            edit(root, *step)
            built = build([root], kept)
            fresh = build([root], Path(folder, f"fresh{number}"))
            assert files(kept) == files(Path(folder, f"fresh{number}"))
            assert built.problems == fresh.problems
            assert (built.files, built.entries) == (fresh.files, fresh.entries)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES[:3]), texts), min_size=1, max_size=4))
def test_an_update_gives_the_bytes_of_a_build(series: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, kept = Path(folder, "src"), Path(folder, "kept")
        for name in NAMES[:3]:
            edit(root, "write", name, "def here(): ...\n")
        build([root], kept)
        for name, text in series:
            edit(root, "write", name, text)
            update(kept, [root / f"{name}.py"])
        build([root], Path(folder, "fresh"))
        assert files(kept) == files(Path(folder, "fresh"))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 2**32))
def test_a_mended_table_of_names_is_one_made_anew(seed: int) -> None:
    rng = random.Random(seed)

    def shorts() -> bytes:
        return b"".join(
            rng.choice([b"f", b"g", b"all_reduce", b"AllReduce", "é".encode(), b""]) + b"\n" for _ in range(4)
        )

    lists = [shorts() for _ in range(rng.randint(1, 4))]
    number, after = rng.randrange(len(lists)), rng.choice([b"", shorts()])
    patched = NameTable.build(lists).patched(number, lists[number], after)
    lists[number] = after
    assert patched == NameTable.build(lists)


def test_only_what_changed_is_read(tree: Tree, tmp_path: Path) -> None:
    names = {f"m{i}.py": f"def f{i}(): ...\n" for i in range(20)}
    root, out = tree(names), tmp_path / "out"
    assert build([root], out).read == 20
    assert build([root], out).read == 0
    (root / "m3.py").write_text("def g(): ...\n")
    (root / "m4.py").rename(root / "n4.py")
    (root / "m5.py").unlink()
    os.utime(root / "m6.py", (1, 1))
    assert build([root], out).read == 2
    searcher = open_searcher(out)
    found = [hit.entry.name for query in ("g", "f4") for hit in searcher.search(f'"{query}"')]
    assert found == ["m3.g", "n4.f4"]
    assert searcher.search('"f5"') == []


def test_nothing_is_written_where_nothing_changed(tree: Tree, tmp_path: Path) -> None:
    root, out = tree({"a.py": "x = 1\n"}), tmp_path / "out"
    build([root], out)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    build([root], out)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


@pytest.mark.parametrize("name", [INDEX, READY])
def test_a_spoiled_index_is_built_anew(tree: Tree, tmp_path: Path, name: str) -> None:
    root, out = tree({"a.py": "x = 1\n", "b.py": "y = 1\n"}), tmp_path / "out"
    build([root], out)
    good = files(out)
    (out / name).write_bytes(good[name][:-9])
    assert build([root], out).read == 2
    assert files(out) == good


def test_a_broken_file_stays_reported(tree: Tree, tmp_path: Path) -> None:
    root, out = tree({"a.py": "x = 1\n", "b.py": "(\n"}), tmp_path / "out"
    first, second = build([root], out), build([root], out)
    assert second.read == 0
    assert [str(problem) for problem in first.problems] == [str(problem) for problem in second.problems]
    assert str(second.problems[0]).startswith("b.py:1: ")
    assert second.files == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [("new.py", "is not in the index; run `kwindex build"), ("gone.py", "is gone; run `kwindex build")],
)
def test_an_update_of_what_it_does_not_know(tree: Tree, tmp_path: Path, name: str, said: str) -> None:
    root, out = tree({"a.py": "", "gone.py": ""}), tmp_path / "out"
    build([root], out)
    (root / "gone.py").unlink()
    (root / "new.py").write_text("")
    with pytest.raises(KwindexError, match=said):
        update(out, [root / name])


def test_an_update_of_no_index(tmp_path: Path) -> None:
    with pytest.raises(KwindexError, match=r"no index at .* that can be updated; run `kwindex build"):
        update(tmp_path, ["a.py"])


SAMPLE = (
    '"""Says it."""\nimport os\nfrom a.b import c as d\nfrom e import *\n'
    '__all__ = ["f"]\n__all__ += ["A"]\nX: int = 3\n'
    "def f(x: int = 1, *, y) -> str:\n    'Does it.'\n    if x:\n        raise ValueError(_msg(x))\n"
    "    warnings.warn('f is old, use g_h', FutureWarning)\n    def inner(): ...\n"
    "def _msg(x):\n    return f'got {x}, need one'\n@d\nclass A(Base, metaclass=M):\n    y: int\n"
    "    def __init__(self):\n        self.z = os.environ['Z']\n    @property\n    def p(self): ...\n"
    "lib = torch.library.Library('mine', 'DEF')\nlib.define('op(Tensor x) -> Tensor')\nlib.impl('op', f, 'CPU')\n"
    "def test_f():\n    f(1)\ntry:\n    import g\n"
    "except ImportError:\n    g = None\ntorch._check(x, lambda: 'x is bad')\n"
    "from lib import OLD, env_flag\n@deprecated(OLD)\ndef g(name):\n    return os.environ[name], env_flag('Y')\n"
    "g('X')\n"
    "def made(name): return torch.library.custom_op('mine::' + name, f)\nh = made('h')\n"
    "from lib import make_op, raise_it\nmake_op('i')\nj = make_op('j')\nregister_lowering(d.k)(f)\n"
    "raise_it('no such i')\nR = collections.namedtuple('R', 'r s')\n"
    "PORT = 'M_PORT'\nos.getenv(d.PORT)\n"
    "ELDER = 'it is deprecated'\n"
    "class E(ValueError):\n    def __init__(self, n):\n        super().__init__(f'{n} is odd')\n"
    "def fail(text):\n    warnings.warn('fail is deprecated')\n    raise E(text)\nfail('no such thing')\n"
    "for v in ('V', 'W'):\n    os.getenv(v)\n"
    "SAID = {'k': 'it is {}'}\nraise E(SAID[x].format(x))\n"
    "class B:\n    def fail(self, text): ...\n    def b(self):\n        self.fail('of a B')\n"
    "class C(B):\n    def fail(self, text):\n        raise E(text)\n"
    "# Note [Of the sample]\n# It is told.\n\nx = 1  # see Note [Of the sample]\n"
)


def test_what_is_told_of_a_file_changes_only_with_the_version() -> None:
    """An index that was made before would keep what it has: a new version goes into `reading._VERSION` and here."""
    record = record_of(SAMPLE.encode(), "m.py", "m")
    piece = make(record.entries, gives=gives_data(record.gives), wants=wants_data(record.wants))
    told = hashlib.blake2b(b"".join(piece), digest_size=8).hexdigest()
    assert (_VERSION.partition(",")[0], told) == ("kwindex 26", "81e677fe419931cf")
