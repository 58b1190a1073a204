"""Trees of sources written by the tests, and the installed torch, found without importing it."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

import pytest

from kwindex import Entry, build, read_index, update
from kwindex.extract import record_of

Tree = Callable[[Mapping[str, str | bytes]], Path]

ORIGINALS = (
    "distributed/_functional_collectives.py",
    "distributed/fsdp/_fully_shard/_fsdp_collectives.py",
    "_inductor/comm_lowering.py",
    "distributed/tensor/experimental/_func_map.py",
)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Writes files below a fresh folder and returns that folder."""

    def write(files: Mapping[str, str | bytes]) -> Path:
        root = tmp_path / "tree"
        root.mkdir(exist_ok=True)
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode() if isinstance(text, str) else text)
        return root

    return write


@pytest.fixture
def entries_of(tree: Tree, tmp_path: Path) -> Callable[[str], list[Entry]]:
    """Builds the index of one module `m` with the given text and returns its entries."""

    def index(text: str) -> list[Entry]:
        built = build([tree({"m.py": text})], tmp_path / "index")
        assert built.problems == []
        return read_index(tmp_path / "index")

    return index


@pytest.fixture
def steps_in() -> Callable[[Callable[[], object]], int]:
    """Counts the steps that Python takes for a call; the same ones each time."""

    def count(call: Callable[[], object]) -> int:
        steps = 0

        def step(frame: FrameType, event: str, told: object) -> object:
            nonlocal steps
            frame.f_trace_opcodes = True
            steps += event == "opcode"
            return step

        before = sys.gettrace()
        sys.settrace(step)
        try:
            call()
        finally:
            sys.settrace(before)
        return steps

    return count


@pytest.fixture
def steps_of(steps_in: Callable[[Callable[[], object]], int]) -> Callable[[str], int]:
    """Counts the steps that Python takes to read one module with the given text."""
    return lambda text: steps_in(lambda: record_of(text.encode(), "m.py", "m"))


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m kwindex` as its own process."""

    def run(
        *arguments: object, cwd: Path | None = None, stdin: str | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "kwindex", *map(str, arguments)]
        environment = {**os.environ, **variables}
        return subprocess.run(
            line, cwd=cwd, env=environment, input=stdin, capture_output=True, text=True, timeout=120, check=False
        )

    return run


@pytest.fixture
def edit_and_undo(tmp_path: Path) -> Callable[[Path, str, str], None]:
    """Edits a file of a folder, takes the edit back and makes it again: each time as a build from nothing."""

    def bytes_of(out: Path) -> list[bytes]:
        return [(out / name).read_bytes() for name in ("index.json", "search.bin")]

    def run(folder: Path, file: str, text: str) -> None:
        out, path = tmp_path / "out", folder / file
        build([folder], out)
        before = path.read_text() if path.exists() else None
        for step, told in enumerate((text, before, text)):
            if told is None:
                path.unlink()
            else:
                path.write_text(told)
            if before is None or step == 2:
                build([folder], out)
            else:
                update(out, [path])
            build([folder], tmp_path / f"anew{step}")
            assert bytes_of(out) == bytes_of(tmp_path / f"anew{step}")

    return run


@pytest.fixture(scope="session")
def torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("torch is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


@pytest.fixture(scope="session")
def originals(torch_folder: Path) -> list[Path]:
    """The four modules of the installed torch that the handbook is about."""
    return [torch_folder / name for name in ORIGINALS]


@pytest.fixture(scope="session")
def original_entries(originals: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    out = tmp_path_factory.mktemp("originals")
    assert build(originals, out).problems == []
    return read_index(out)


@pytest.fixture(scope="session")
def universal_ctags() -> str:
    """Where Universal Ctags is; a test that needs it is skipped where it is not."""
    path = shutil.which("ctags")
    if path is None:
        pytest.skip("no ctags on PATH")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    if "Universal Ctags" not in version:
        pytest.skip("the ctags on PATH is not Universal Ctags")
    return path
