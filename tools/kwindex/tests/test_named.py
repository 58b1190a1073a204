"""Variables of the environment that loops, comprehensions and conditions name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kwindex import Entry, build, read_index

Index = Callable[[str], list[Entry]]


def variables(entries: list[Entry]) -> list[str]:
    return [entry.name for entry in entries if entry.kind == "environment variable"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("for word in ('A', 'B'):\n    os.environ.get(word)", ["A", "B"]),
        ("x = [os.environ[v] for v in ['A', 'B'] if v in os.environ]", ["A", "B"]),
        ("def f():\n    names = ['A']\n    for n in names:\n        if n:\n            os.getenv(n)", ["A"]),
        ("os.environ.get('A' if x else 'B')", ["A", "B"]),
        ("def env(name):\n    return os.environ[name]\nfor n in ('A',):\n    env(n)", ["A"]),
        ("for n in ('A', 'B'):\n    for n in others:\n        os.environ[n]", []),
        ("for n in ('A', 'B'):\n    pass\nos.environ[m]\nos.environ[n]", []),
        ("names = ['A']\ndef f(names):\n    for n in names:\n        os.environ[n]", []),
        ("for n in ('A', other):\n    os.environ[n]", []),
        ("for n, m in ('AB', 'CD'):\n    os.environ[n]", []),
        ("for n in ('no name', 'B'):\n    os.environ[n]", []),
    ],
)
def test_each_variable_that_a_loop_goes_over_is_read(entries_of: Index, text: str, names: list[str]) -> None:
    assert variables(entries_of(f"import os\n{text}\n")) == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("for k in ('A', 'B'):\n    f = lambda k: os.environ[k]", []),
        ("for k in ('A', 'B'):\n    def f(k): return os.environ[k]", []),
        ("for k in ('A', 'B'):\n    def f():\n        k = g()\n        return os.environ[k]", []),
        ("for k in ('A', 'B'):\n    def f(): return os.environ[k]", ["A", "B"]),
        ("for k in ('A', 'B'):\n    k = 'X' + k\n    os.environ[k]", []),
        ("for k in ('A', 'B'): k += 'X'; os.environ[k]", []),
        ("for k in ('A', 'B'):\n    if k := g(k):\n        os.environ[k]", []),
        ("for k in ('A', 'B'):\n    with g() as k:\n        os.environ[k]", []),
        ("for k in ('A', 'B'):\n    match g():\n        case [k]:\n            os.environ[k]", []),
        ("for k in ('A', 'B'):\n    for k in ('C', 'D'):\n        os.environ[k]", ["C", "D"]),
        ("for k in ('A', 'B'):\n    for k in ('C', 'D'):\n        pass\n    os.environ[k]", []),
        ("for k in ('A', 'B'):\n    x = [k for k in y]\n    os.environ[k]", ["A", "B"]),
        ("for k in ('A', 'B'): os.environ[k]\nfor k in ('C', 'D'): os.environ[k]", ["A", "B", "C", "D"]),
        (
            "a = [os.environ[k] for k in ('A', 'B')]; b = [os.environ[k] for k in ('C', 'D')]",
            ["A", "B", "C", "D"],
        ),
        ("a = [os.environ[k] for k in x for k in ('A', 'B')]", []),
        ("a = [[os.environ[k] for k in x] for k in ('A', 'B')]", []),
        ("a = [os.environ[k] for y in x for k in y]\ny = ['A']", []),
        ("y = ['A']\ndef f():\n    for k in y:\n        os.environ[k]\n    y = g()", []),
        ("y = ['A']\ndef f():\n    global y\n    y = g()\nfor k in y:\n    os.environ[k]", []),
        ("def f(y):\n    y = ['B']\ny = ['A']\nfor k in y:\n    os.environ[k]", ["A"]),
    ],
)
def test_a_name_stands_for_what_a_loop_goes_over_where_python_reads_it_so(
    entries_of: Index, text: str, names: list[str]
) -> None:
    assert variables(entries_of(f"import os\n{text}\n")) == names


@pytest.mark.parametrize(
    "each",
    [
        "for k in ('A_{0}', 'B_{0}'):\n    os.environ[k]\n",
        "for k{0} in ('A_{0}', 'B_{0}'):\n    os.environ[k{0}]\n",
        "a = [os.environ[k] for k in ('A_{0}', 'B_{0}')]\n",
        "y{0} = ['A_{0}']\ndef f{0}():\n    for k in y{0}:\n        os.environ[k]\n",
    ],
)
def test_twice_as_many_loops_take_no_more_than_twice_the_steps(steps_of: Callable[[str], int], each: str) -> None:
    once, twice = (steps_of("import os\n" + "".join(each.format(n) for n in range(count))) for count in (60, 120))
    assert twice < 2.1 * once


def test_the_variables_that_ddp_reads_are_found(torch_folder: Path, tmp_path: Path) -> None:
    build([torch_folder / "nn/parallel/distributed.py"], tmp_path / "out")
    assert {"NCCL_DEBUG", "NCCL_SOCKET_IFNAME", "MASTER_ADDR"} <= set(variables(read_index(tmp_path / "out")))


NAMES = "PORT = 'LIB_PORT'\nTWICE = 'LIB_A'\nTWICE = 'LIB_B'\nLOW = 'no name'\n"
READS = (
    "import os\nfrom lib import names\nfrom lib.names import PORT as P, TWICE, LOW, GONE\n"
    "a = os.environ[P]\nb = os.getenv(names.PORT, '0')\nc = os.getenv(TWICE), os.getenv(LOW), os.getenv(GONE)\n"
    "def f(P): return os.environ[P]\n"
)


@pytest.fixture
def lib(tree: Callable[..., Path]) -> Path:
    return tree({"lib/__init__.py": "", "lib/names.py": NAMES, "lib/user.py": READS}) / "lib"


def test_a_constant_of_another_module_names_what_is_read(lib: Path, tmp_path: Path) -> None:
    build([lib], tmp_path / "out")
    found = [entry for entry in read_index(tmp_path / "out") if entry.kind == "environment variable"]
    assert [(entry.name, entry.line, entry.summary) for entry in found] == [("LIB_PORT", 4, "read in lib.user")]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.py", NAMES.replace("LIB_PORT", "LIB_DOOR")),
        ("names.py", ""),
        ("user.py", READS.replace("a = os.environ[P]\n", "")),
    ],
)
def test_an_edit_and_its_undoing_give_the_bytes_of_a_build_from_nothing(
    lib: Path, edit_and_undo: Callable[[Path, str, str], None], file: str, text: str
) -> None:
    edit_and_undo(lib, file, text)
