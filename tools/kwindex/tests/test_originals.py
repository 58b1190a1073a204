"""The installed torch's four originals: none of the seeds' false identifiers, and what an independent tool sees."""

import subprocess
from pathlib import Path

import pytest

from kwindex import Entry
from kwindex.spelling import short

FALSE = {
    "_functional_collectives.py": {
        "needed",
        "support",
        "that",
        "functional_collective",
        "all_reduce_eager",
        "all_reduce_wait_compiled",
        "in",
        "torchdynamo",
    },
    "_func_map.py": {"mm_allreduce_forward"},
}
"""What regular expressions took from prose, docstrings and messages for names."""
DEFINITIONS = {"class", "function", "method", "property", "nested function"}


@pytest.mark.parametrize("file", sorted(FALSE))
def test_no_false_identifier_of_the_seeds_is_in_the_index(original_entries: list[Entry], file: str) -> None:
    names = {short(entry.name) for entry in original_entries if entry.file.endswith(file)}
    assert len(names) > 10
    assert names & FALSE[file] == set()


def test_files_and_modules_are_named_from_the_package_on(original_entries: list[Entry]) -> None:
    modules = {entry.file: entry.name for entry in original_entries if entry.kind == "module"}
    assert modules["torch/_inductor/comm_lowering.py"] == "torch._inductor.comm_lowering"
    assert all(file.startswith("torch/") for file in modules)


def test_nested_lowerings_are_found(original_entries: list[Entry]) -> None:
    prefix = "torch._inductor.comm_lowering.register_comm_lowerings."
    nested = {entry.name.removeprefix(prefix) for entry in original_entries if entry.kind == "nested function"}
    assert {"_all_reduce", "_all_reduce_", "_all_gather_into_tensor", "_wait_tensor", "_broadcast"} <= nested


def test_every_entry_stands_on_its_line(original_entries: list[Entry], torch_folder: Path) -> None:
    for entry in original_entries:
        if entry.kind in DEFINITIONS:
            line = (torch_folder.parent / entry.file).read_text().splitlines()[entry.line - 1]
            assert short(entry.name) in line
            assert line.lstrip().startswith(("def ", "async def ", "class "))


def test_universal_ctags_sees_the_same_definitions(
    original_entries: list[Entry], torch_folder: Path, universal_ctags: str
) -> None:
    files = sorted({entry.file for entry in original_entries})
    line = [
        universal_ctags,
        "-x",
        "--languages=Python",
        "--python-kinds=cfm",
        "--_xformat=%F\t%N\t%n",
        "--sort=no",
        *files,
    ]
    shown = subprocess.run(line, cwd=torch_folder.parent, capture_output=True, text=True, timeout=60, check=True).stdout
    theirs = {tuple(row.split("\t")) for row in shown.splitlines()}
    ours = {(e.file, short(e.name), str(e.line)) for e in original_entries if e.kind in DEFINITIONS}
    assert len(theirs) > 150
    assert ours == theirs
