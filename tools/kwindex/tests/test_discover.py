"""Which files are read, under which paths and module names."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kwindex import KwindexError
from kwindex.discover import discover

Tree = Callable[..., Path]


def labels(*sources: Path) -> dict[str, str]:
    return {source.file: source.module for source in discover(sources).files}


def test_modules_are_named_by_their_packages(tree: Tree) -> None:
    root = tree(
        {
            "src/core/__init__.py": "",
            "src/core/groups.py": "",
            "src/core/deep/__init__.py": "",
            "src/core/deep/x.py": "",
            "tests/test_groups.py": "",
            "my-script.py": "",
        }
    )
    assert labels(root) == {
        "src/core/__init__.py": "core",
        "src/core/groups.py": "core.groups",
        "src/core/deep/__init__.py": "core.deep",
        "src/core/deep/x.py": "core.deep.x",
        "tests/test_groups.py": "test_groups",
        "my-script.py": "my-script",
    }


def test_a_source_inside_a_package_counts_from_above_the_package(tree: Tree) -> None:
    root = tree({"a/__init__.py": "", "a/b/__init__.py": "", "a/b/c.py": ""})
    assert labels(root / "a/b/c.py") == {"a/b/c.py": "a.b.c"}
    assert labels(root / "a/b") == {"a/b/__init__.py": "a.b", "a/b/c.py": "a.b.c"}


def test_several_loose_sources_count_from_the_folder_that_they_share(tree: Tree) -> None:
    root = tree({"one/src/p/__init__.py": "", "two/src/q/__init__.py": "", "three.py": "", "z/r/__init__.py": ""})
    assert labels(root / "one", root / "two", root / "three.py", root / "z/r") == {
        "one/src/p/__init__.py": "p",
        "two/src/q/__init__.py": "q",
        "three.py": "three",
        "r/__init__.py": "r",
    }


def test_two_files_never_get_the_same_path(tree: Tree) -> None:
    root = tree({"old/p/__init__.py": "", "new/p/__init__.py": ""})
    assert labels(root / "old/p", root / "new/p") == {"old/p/__init__.py": "p", "new/p/__init__.py": "p"}


def test_a_folder_in_a_package_is_in_it_without_an_init_of_its_own(tree: Tree) -> None:
    files = (
        "p/__init__.py",
        "p/tests/test_a.py",
        "p/tests/more/b.py",
        "p/not-a-name/c.py",
        "p/src/q/__init__.py",
        "d/e.py",
    )
    root = tree(dict.fromkeys(files, ""))
    assert labels(root) == {
        "p/__init__.py": "p",
        "p/tests/test_a.py": "p.tests.test_a",
        "p/tests/more/b.py": "p.tests.more.b",
        "p/not-a-name/c.py": "c",
        "p/src/q/__init__.py": "q",
        "d/e.py": "e",
    }
    assert labels(root / "p/tests") == {"test_a.py": "test_a", "more/b.py": "b"}  # what is above was not asked for


def test_each_file_is_read_once_whatever_the_order_of_sources(tree: Tree) -> None:
    root = tree({"a/x.py": "", "a/b/y.py": ""})
    one = discover([root, root / "a", root / "a/x.py"])
    assert one == discover([root / "a/x.py", root / "a", root, root])
    assert [source.file for source in one.files] == ["a/b/y.py", "a/x.py"]


def test_hidden_folders_caches_and_environments_are_left_out(tree: Tree) -> None:
    root = tree(
        {
            ".git/a.py": "",
            "__pycache__/b.py": "",
            "venv/pyvenv.cfg": "",
            "venv/lib/c.py": "",
            "notes.txt": "",
            "d.py": "",
        }
    )
    assert list(labels(root)) == ["d.py"]


def test_a_named_environment_or_hidden_folder_is_read(tree: Tree) -> None:
    root = tree({".hidden/a.py": "", "venv/pyvenv.cfg": "", "venv/b.py": ""})
    assert list(labels(root / ".hidden")) == ["a.py"]
    assert list(labels(root / "venv")) == ["b.py"]


def test_missing_source(tmp_path: Path) -> None:
    with pytest.raises(KwindexError, match=r"no such file or folder: .*nowhere"):
        discover([tmp_path / "nowhere"])


def test_link_loops_are_reported_and_the_rest_is_found(tree: Tree) -> None:
    root = tree({"a/b/x.py": ""})
    (root / "a/b/up").symlink_to(root / "a")
    (root / "itself").symlink_to(root / "itself")
    (root / "self.py").symlink_to(root / "self.py")
    found = discover([root])
    assert [source.file for source in found.files] == ["a/b/x.py"]
    assert [problem.file for problem in found.problems] == ["a/b/up", "itself", "self.py"]


def test_links_out_of_the_tree_are_followed_once(tree: Tree, tmp_path: Path) -> None:
    root = tree({"x.py": ""})
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "y.py").write_text("")
    (root / "one").symlink_to(outside)
    (root / "two").symlink_to(outside)
    (root / "same.py").symlink_to(root / "x.py")
    found = discover([root])
    assert len(found.files) == 2
    assert found.problems == []


def test_a_file_is_known_by_its_own_name_and_not_by_that_of_a_link(tree: Tree, tmp_path: Path) -> None:
    root = tree({"m.py": "", "p/n.py": ""})
    outside = tmp_path / "outside.py"
    outside.write_text("")
    for link, to in {"a.py": "m.py", "z.py": "m.py", "b.py": "p/n.py", "c.py": outside, "d.py": outside}.items():
        (root / link).symlink_to(to if to is outside else root / to)
    assert [source.file for source in discover([root]).files] == ["c.py", "m.py", "p/n.py"]
    assert [source.file for source in discover([root / "a.py", root / "m.py"]).files] == ["m.py"]
    assert [source.file for source in discover([root / "a.py"]).files] == ["a.py"]


def test_what_is_not_a_file_is_reported_and_not_opened(tree: Tree) -> None:
    root = tree({"x.py": ""})
    os.mkfifo(root / "pipe.py")
    (root / "gone.py").symlink_to(root / "no-such")
    found = discover([root])
    assert [(problem.file, problem.why) for problem in found.problems] == [
        ("gone.py", "No such file or directory"),
        ("pipe.py", "not a regular file"),
    ]


def test_a_folder_that_cannot_be_listed_is_reported(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree({"x.py": "", "shut/y.py": ""})
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = discover([root])
    assert [str(problem) for problem in found.problems] == ["shut: Permission denied"]
    assert [source.file for source in found.files] == ["x.py"]


def test_the_lock_of_an_editor_is_no_source(tree: Tree) -> None:
    root = tree({"m.py": ""})
    (root / ".#m.py").symlink_to("someone@host.4711:1")
    (root / "gone.py").symlink_to("nowhere")
    found = discover([root])
    assert [source.file for source in found.files] == ["m.py"]
    assert [problem.file for problem in found.problems] == ["gone.py"]
