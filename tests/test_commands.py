"""The blocks of pages that are no Python: commands exist and take these options, data can be read, none is left out.

Commands of kwindex are run, in page order, in a folder that has what the page supposes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.test_docs import FENCE, NOT_RUN, PAGES, SHOWS
from tools.gen.sources import ROOT, distributions

SHELL = ("console", "sh", "bash")
INDENTED = re.compile(r"(?m)(?:^(?<=\n\n) {4}[^|\n]*\n)(?:^ {4}[^\n]*\n)*")
SUPPOSED = (
    *("__init__.py", "nn/__init__.py", "nn/modules/__init__.py", "nn/modules/linear.py", "_inductor/comm_lowering.py"),
    *(f"distributed/{name}.py" for name in ("__init__", "device_mesh", "distributed_c10d", "_functional_collectives")),
)
"""The files of torch that pages have answers from."""
IGNORED_BY = {"markdown": "house_rules.md"}  # it shows how a page is written
DISTRIBUTIONS = {one.name for one in distributions()}


class Block(NamedTuple):
    """A block of a page: its language, what stands in it, and all that stands above it.

    Indented blocks of READMEs are commands.
    """

    page: Path
    language: str
    body: str
    above: str


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found += [
            Block(page, fence["language"], fence["body"], text[: fence.start()]) for fence in FENCE.finditer(text)
        ]
        if page.name != "README.md":
            continue
        blank = FENCE.sub(lambda fence: re.sub(r"[^\n]", "x", fence[0]), text)
        found += [
            Block(page, "console", textwrap.dedent(one[0]), text[: one.start()]) for one in INDENTED.finditer(blank)
        ]
    return found


def commands(block: Block) -> list[list[str]]:
    """The commands of a block as words, without prompts, comments and settings of the environment."""
    lines = [line.removeprefix("$ ").partition(" #")[0] for line in block.body.splitlines()]
    found = [shlex.split(part) for line in lines for part in line.split(" && ") if part.strip()]
    return [words[next(n for n, word in enumerate(words) if not re.match(r"\w+=", word)) :] for words in found]


def exists(words: list[str]) -> bool:
    """Whether there is such a task, file, option or distribution."""
    match words:
        case ["kwindex", *_]:
            return True  # they are run
        case ["nox", "-s", task]:
            return re.search(rf"(?m)^@nox\.session\ndef {task}\(", (ROOT / "noxfile.py").read_text()) is not None
        case ["python", "-m", "pip", "install", name] | ["pip", "install", name]:
            return name == "nox" or name in DISTRIBUTIONS
        case ["python", file, *rest]:
            code = (ROOT / file).read_text(encoding="utf-8")
            return all(f'"{word}"' in code for word in rest if word.startswith("-"))
        case ["torchrun", *rest]:
            from torch.distributed.run import get_args_parser

            return get_args_parser().parse_args(rest).training_script == "train.py"
    return False


@pytest.mark.parametrize(
    "words",
    [words for block in blocks() if block.language in SHELL for words in commands(block)],
    ids=lambda words: " ".join(words),
)
def test_a_command_of_a_page_is_there(words: list[str]) -> None:
    assert exists(words)


def test_a_command_that_is_not_there_would_be_noticed() -> None:
    for line in ("nox -s nothing", "pip install nothing", "python tools/bench/shm_all_reduce.py --nothing", "nothing"):
        assert not exists(line.split()), line


def test_an_indented_block_of_a_readme_is_one_of_commands() -> None:
    (readme,) = [page for page in PAGES if page == ROOT / "tools/kwindex/README.md"]
    found = [words for block in blocks() if block.page == readme for words in commands(block)]
    assert len([words for words in found if words[0] == "kwindex"]) >= 14
    assert INDENTED.findall("1. a\n\n    | b | c |\n    |---|---|\n\nd\n    e\n") == []


@pytest.mark.parametrize("page", ["docs/do/search_sources.md", "docs/index/index.md", "tools/kwindex/README.md"])
def test_the_commands_of_kwindex_run(page: str, tmp_path: Path) -> None:
    (tmp_path / "packages").symlink_to(ROOT / "packages")
    (tmp_path / "src").symlink_to(ROOT / "packages")
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    for name in SUPPOSED:
        (tmp_path / "path/to/torch" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(spec.origin).parent / name, tmp_path / "path/to/torch" / name)
    (tmp_path / "path/to/torch/changed.py").touch()
    (tmp_path / "queries.txt").write_text("allreduce\n")
    lines = [
        line.removeprefix("$ ")
        for block in blocks()
        if block.page == ROOT / page and block.language == "console"
        for line in block.body.splitlines()
        if line != "pip install kwindex"
    ]
    assert len([line for line in lines if line.startswith("kwindex")]) == len(lines) > 1
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    for line in lines:
        done = subprocess.run(
            line,
            shell=True,
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            timeout=120,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)


def test_data_of_a_page_can_be_read() -> None:
    for block in blocks():
        if block.language == "toml":
            assert tomllib.loads(block.body)
        if block.language == "json" and "\n" not in block.body.strip():
            assert json.loads(block.body)


def test_the_excerpt_of_an_index_has_the_keys_and_values_of_an_entry(tmp_path: Path) -> None:
    from kwindex import build

    (excerpt,) = [block for block in blocks() if block.language == "json" and "\n" in block.body.strip()]
    head, row = excerpt.body.strip().splitlines()
    (tmp_path / "m.py").write_text("def f(x: int) -> str:\n    'Says it.'\n")
    build([tmp_path / "m.py"], tmp_path / "index")
    real_head, *real = (tmp_path / "index/index.json").read_text(encoding="utf-8").splitlines()
    assert re.sub(r'"id": "[^"]*"', "", head) == re.sub(r'"id": "[^"]*"', "", real_head)
    assert row.removesuffix(",") in [line.removesuffix(",") for line in real]


def test_no_block_is_left_out() -> None:
    """Python is run by test_docs.py, or says why not; text is what is printed or shown."""
    left = []
    before = None
    for block in blocks():
        printed = before and before.page == block.page and before.language == "python"
        follows = (
            printed and before and not block.above.removeprefix(before.above).partition(before.body)[2].strip("`\n ")
        )
        is_checked = {
            "python": True,
            "text": follows or SHOWS.search(block.above) or NOT_RUN.search(block.above),
            **dict.fromkeys((*SHELL, "json", "toml"), True),
        }.get(block.language, IGNORED_BY.get(block.language) == block.page.name)
        if not is_checked:
            left.append((str(block.page.relative_to(ROOT)), block.language, block.body[:60]))
        before = block
    assert left == []
