"""Queries that name a file: a line of a traceback, a path with a line, the end of a path."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kwindex import Searcher, build, read_index

TREE = {
    "lib/__init__.py": "",
    "lib/hub.py": "class Hub:\n    def load(self): ...\nclass Other:\n    def load(self): ...\nfrom x import load\n",
    "lib/inner/__init__.py": "def load(): ...\n",
    "lib/inner/hub.py": "def save(): ...\n",
}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('File "/site-packages/lib/hub.py", line 2, in load', ["lib.hub.Hub.load", "lib.hub.Other.load", "lib.hub"]),
        ('  File "/site-packages/lib/inner/hub.py", line 1, in <module>', ["lib.inner.hub"]),
        ("lib/hub.py:3", ["lib.hub.Other", "lib.hub"]),
        ("lib/hub.py:2", ["lib.hub.Hub.load", "lib.hub"]),
        ("https://host/lib/hub.py#L4", ["lib.hub.Other.load", "lib.hub"]),
        ("lib/hub.py:3:5: E501 line too long", ["lib.hub.Other", "lib.hub"]),
        ("lib/hub.py:5", ["lib.hub"]),
        ("lib/hub.py:99", ["lib.hub"]),
        ('File "/site-packages/lib/hub.py", line 4, in load', ["lib.hub.Other.load", "lib.hub.Hub.load", "lib.hub"]),
        ("inner/hub.py", ["lib.inner.hub"]),
        ("hub.py", ["lib.hub", "lib.inner.hub"]),
        ("kind:class hub.py", []),
        ("ub.py", []),
        ("lib/hub.pyi", []),
    ],
)
def test_a_place_in_a_file(tree: Callable[..., Path], tmp_path: Path, query: str, found: list[str]) -> None:
    build([tree(TREE)], tmp_path / "out")
    hits = Searcher(read_index(tmp_path / "out")).search(query)
    assert [hit.entry.name for hit in hits if hit.why.endswith("the file")] == found
    assert found == [hit.entry.name for hit in hits[: len(found)]]


def test_a_message_of_a_traceback_comes_before_its_file(tree: Callable[..., Path], tmp_path: Path) -> None:
    source = "def load(name):\n    raise ValueError(f'no such entry: {name}')\n"
    build([tree({"lib/__init__.py": "", "lib/hub.py": source})], tmp_path / "out")
    text = 'Traceback (most recent call last): File "lib/hub.py", line 2, in load ValueError: no such entry: it'
    hits = Searcher(read_index(tmp_path / "out")).search(text)
    assert [hit.why for hit in hits] == ["raises this message", "in the file", "the file"]
