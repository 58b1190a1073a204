"""Functions that read a variable of the environment that they are told: calls of them are readings."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kwindex import Entry, build, read_index

Index = Callable[[str], list[Entry]]

TEXT = """import os
early = flag("EARLY")
def flag(name, default=False, *, also=None):
    value = os.environ.get(name)
    return os.getenv(also) if also else value == "1"
a = flag("ONE", True)
b = flag(name="TWO", also="THREE")
c = flag(computed()) or flag("with space") or flag("")
d = [flag("FOUR") for x in y]
def outer(variable, other):
    def inner(): return flag(variable)
    return inner() and other in os.environ and flag
outer("FIVE", "SIX")
class A:
    def read(self, key):
        return os.environ[key]
    @staticmethod
    def told(key): return key in os.environ
    def f(self): return self.read("SEVEN"), self.told("EIGHT"), other.read("NO")
A.told("NINE")
read("NO")
NAME = "TEN"
flag(NAME)
"""


def variables(entries: list[Entry]) -> dict[str, tuple[int, str, str]]:
    return {e.name: (e.line, e.signature, e.summary) for e in entries if e.kind == "environment variable"}


def test_calls_of_a_function_that_reads_what_it_is_told_are_readings(entries_of: Index) -> None:
    found = variables(entries_of(TEXT))
    assert found == {
        "EARLY": (2, "flag('EARLY')", "read in m"),
        "ONE": (6, "flag('ONE', True)", "read in m"),
        "TWO": (7, "flag(name='TWO', also='THREE')", "read in m"),
        "THREE": (7, "flag(name='TWO', also='THREE')", "read in m"),
        "FOUR": (9, "flag('FOUR')", "read in m"),
        "FIVE": (13, "outer('FIVE', 'SIX')", "read in m"),
        "SIX": (13, "outer('FIVE', 'SIX')", "read in m"),
        "SEVEN": (19, "self.read('SEVEN')", "read in m.A.f"),
        "EIGHT": (19, "self.told('EIGHT')", "read in m.A.f"),
        "NINE": (20, "A.told('NINE')", "read in m"),
        "TEN": (23, "flag(NAME)", "read in m"),
    }


@pytest.mark.parametrize(
    "text",
    [
        "def f(name):\n    name = name.upper()\n    return os.environ[name]\nf('no')\n",
        "def f(name):\n    for name in names: os.environ[name]\nf('NO')\n",
        "def f(name): os.environ[name] = 1\nf('NO')\n",
        "def f(name): return os.environ[name]\ndef g(f): f('NO')\n",
        "def g():\n    def f(name): return os.environ[name]\nf('NO')\n",
        "def f(name): return (lambda name: os.environ[name])\nf('NO')\n",
        "def f(*name): return os.environ[name]\nf('NO')\n",
    ],
)
def test_what_may_read_another_variable_is_no_reading(entries_of: Index, text: str) -> None:
    assert variables(entries_of(f"import os\n{text}")) == {}


def test_all_names_of_a_module_may_be_imported_whatever_it_is_called(entries_of: Index) -> None:
    assert variables(entries_of("from eigenvector import *\nfrom lib.env import *\nx = env('NO') * ('NO')\n")) == {}


def test_functions_that_hand_on_what_they_are_told_to_each_other_come_to_an_end(entries_of: Index) -> None:
    text = "import os\ndef f(a, b): return g(b, a) or os.environ[a]\ndef g(a, b): return f(a, b)\ng('X', 'Y')\n"
    assert set(variables(entries_of(text))) == {"X", "Y"}


def test_the_helpers_of_torch_are_seen_through(torch_folder: Path, tmp_path: Path) -> None:
    build([torch_folder / "distributed/rendezvous.py", torch_folder / "onnx/_flags.py"], tmp_path / "out")
    found = variables(read_index(tmp_path / "out"))
    assert {"MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"} <= found.keys()
    assert found["MASTER_PORT"][2] == "read in torch.distributed.rendezvous._env_rendezvous_handler"
    assert [name for name in found if name.startswith("TORCH_ONNX_")]
