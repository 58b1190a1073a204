"""All of the installed torch, held against two judges that know nothing of kwindex: Universal Ctags, and `ast` walked.

By default every sixteenth file; `KWINDEX_ALL=1` takes them all (about a minute).
"""

import ast
import os
import subprocess
import warnings
from pathlib import Path

import pytest

from kwindex import Entry, build, read_index
from kwindex.spelling import short
from kwindex.syntax import syntax_tree

STEP = 1 if os.environ.get("KWINDEX_ALL") else 16
DEFINITIONS = {"class", "function", "method", "property", "nested function"}

Definition = tuple[str, str, int]


@pytest.fixture(scope="module")
def files(torch_folder: Path) -> list[Path]:
    return sorted(torch_folder.rglob("*.py"))[::STEP]


@pytest.fixture(scope="module")
def entries(files: list[Path], torch_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    out = tmp_path_factory.mktemp("torch")
    built = build(files, out, jobs=2)
    said = {problem.file for problem in built.problems}
    assert built.files + len(said) == len(files)
    assert said <= {file for file in said if not readable(torch_folder.parent / file)}
    return read_index(out)


@pytest.fixture(scope="module")
def ours(entries: list[Entry]) -> set[Definition]:
    return {(entry.file, short(entry.name), entry.line) for entry in entries if entry.kind in DEFINITIONS}


def readable(path: Path) -> bool:
    try:
        tree_of(path)
    except (SyntaxError, ValueError):
        return False
    return True


def tree_of(path: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return syntax_tree(path.read_bytes())


def test_nearly_every_definition_that_ast_sees_is_found(
    ours: set[Definition], files: list[Path], torch_folder: Path
) -> None:
    theirs = {
        (str(path.relative_to(torch_folder.parent)), node.name, node.lineno)
        for path in files
        if readable(path)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    print(f"{len(theirs)} definitions by ast, {len(theirs - ours)} not found, {len(ours - theirs)} false")
    assert len(theirs) > 1000
    assert len(theirs & ours) >= 0.999 * len(theirs)
    assert ours - theirs == set()


def test_no_identifier_is_false_by_the_judgement_of_universal_ctags(
    ours: set[Definition], files: list[Path], torch_folder: Path, tmp_path: Path, universal_ctags: str
) -> None:
    listed = tmp_path / "files"
    listed.write_text("".join(f"{path.relative_to(torch_folder.parent)}\n" for path in files))
    kinds = ("--languages=Python", "--python-kinds=cfm", "--_xformat=%F\t%N\t%n", "--sort=no")
    line = [universal_ctags, "-x", *kinds, "-L", str(listed)]
    shown = subprocess.run(
        line, cwd=torch_folder.parent, capture_output=True, text=True, timeout=120, check=True
    ).stdout
    theirs = {(file, name, int(number)) for file, name, number in (row.split("\t") for row in shown.splitlines())}
    doubted = ours - theirs
    false = {found for found in doubted if not stands(torch_folder.parent, found)}
    print(f"{len(ours)} of ours, {len(doubted)} that ctags does not see, {len(false)} of these false")
    assert len(theirs & ours) > 1000
    assert false == set()
    assert len(doubted) <= 0.002 * len(ours)


def stands(root: Path, found: Definition) -> bool:
    """Says whether a definition that ctags does not see stands where it is said to stand."""
    file, name, number = found
    lines = (root / file).read_text("utf-8", "replace").splitlines()
    words = lines[number - 1].replace("(", " ").replace(":", " ").replace("[", " ").split()
    return any(words[place : place + 2] == [word, name] for word in ("def", "class") for place in range(len(words)))


def test_every_name_stands_in_the_lines_it_is_said_to_stand_in(entries: list[Entry], torch_folder: Path) -> None:
    """The other kinds: a field, constant, variable or import whose name is not in its lines would be made up."""
    texts: dict[str, list[str]] = {}
    false = []
    held = 0
    for entry in entries:
        if entry.kind in {"field", "constant", "variable", "type alias", "import"}:
            if entry.file not in texts:
                source = (torch_folder.parent / entry.file).read_text("utf-8", "replace")
                texts[entry.file] = source.replace("\r", "").replace("\f", " ").split("\n")
            held += 1
            text = "\n".join(texts[entry.file][entry.line - 1 : entry.end_line])
            if short(entry.name) not in text and short(entry.name) != "*":
                false.append((entry.file, entry.line, entry.name))
    print(f"{held} names held against their lines, {len(false)} false")
    assert false == []
