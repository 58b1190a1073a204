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


def test_the_variables_that_ddp_reads_are_found(torch_folder: Path, tmp_path: Path) -> None:
    build([torch_folder / "nn/parallel/distributed.py"], tmp_path / "out")
    assert {"NCCL_DEBUG", "NCCL_SOCKET_IFNAME", "MASTER_ADDR"} <= set(variables(read_index(tmp_path / "out")))
