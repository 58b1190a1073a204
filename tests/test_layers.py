"""The arrows between our packages, the border to torch's private names, and that importing does nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from kwindex.syntax import syntax_tree
from tools.gen.sources import ROOT, Distribution, distributions

OURS = {d.package: d for d in distributions() if d.package}
TOOLS = {package for package, d in OURS.items() if d.where.startswith("tools/")}
MAY_IMPORT = {package: set() if package == "comm_core" or package in TOOLS else {"comm_core"} for package in OURS}
SHAPELESS = {"utils", "util", "helpers", "helper", "common", "misc"}
MODULE_LINES, FUNCTION_LINES, PARAMETERS = 400, 45, 6
SOURCES = sorted(
    file
    for pattern in ("packages/*/src/**/*.py", "tools/**/*.py")
    for file in ROOT.glob(pattern)
    if not {"tests", "build"} & set(file.relative_to(ROOT).parts)
)


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def parsed(file: Path) -> ast.Module:
    return syntax_tree(file.read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every absolute import as (line, dotted name); `from a import b` counts as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            named = node.args[0] if node.args else None
            if isinstance(named, ast.Constant):
                yield node.lineno, str(named.value)


def private(dotted: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in dotted.split("."))


def torch_aliases(tree: ast.AST) -> dict[str, str]:
    """The local names that stand for torch or one of its modules."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "torch":
                    found[alias.asname or "torch"] = alias.name if alias.asname else "torch"
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "torch":
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def private_torch(tree: ast.AST) -> set[tuple[int, str]]:
    """Uses of torch's private names as (line, name): imported, or reached through attributes.

    An op's namespace (`torch.ops._c10d_functional`) is the graph's vocabulary and no private module.
    """
    found = {(line, name) for line, name in imported(tree) if name.startswith("torch.") and private(name)}
    aliases = torch_aliases(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        first, _, rest = ast.unparse(node).partition(".")
        if first in aliases and rest.replace(".", "").isidentifier():
            full = f"{aliases[first]}.{rest}"
            if private(full) and not full.startswith("torch.ops."):
                found.add((node.lineno, full))
    return found


@pytest.mark.parametrize("package", sorted(OURS))
def test_a_package_imports_only_what_the_map_allows(package: str) -> None:
    wrong = [
        f"{name_of(module.file)}:{line} imports {name}"
        for module in OURS[package].modules
        for line, name in imported(parsed(module.file))
        if name.split(".")[0] in set(OURS) - MAY_IMPORT[package] - {package}
    ]
    assert not wrong, "\n".join(wrong)


def declared(distribution: Distribution) -> set[str]:
    """The import names that a distribution's requirements, extras included, make available."""
    with open(distribution.folder / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    extras = project.get("optional-dependencies", {}).values()
    wanted = [*project.get("dependencies", ()), *(one for extra in extras for one in extra)]
    names = {"".join(c if c.isalnum() or c in "-_" else " " for c in one).split()[0] for one in wanted}
    return {name.replace("-", "_").lower() for name in names}


@pytest.mark.parametrize("package", sorted(OURS))
def test_every_third_party_import_is_declared(package: str) -> None:
    known = set(sys.stdlib_module_names) | declared(OURS[package]) | {package}
    wrong = [
        f"{name_of(module.file)}:{line} imports {name}"
        for module in OURS[package].modules
        for line, name in imported(parsed(module.file))
        if name.split(".")[0] not in known
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_private_torch_names_stand_only_in_compat_files(file: Path) -> None:
    if file.name.endswith("compat.py"):
        return
    wrong = [f"{name_of(file)}:{line} uses {name}" for line, name in sorted(private_torch(parsed(file)))]
    assert not wrong, "\n".join(wrong)


def test_a_catalogue_file_names_no_op_and_no_process_group() -> None:
    files = sorted(ROOT.glob("packages/comm_core/src/comm_core/catalog/*.py"))
    assert len(files) > 7
    for file in files:
        names = {ast.unparse(node) for node in ast.walk(parsed(file)) if isinstance(node, ast.Attribute)}
        assert not {name for name in names if name.startswith(("torch.ops", "dist.", "torch.distributed"))}, file


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_a_file_keeps_to_the_sizes_and_names_of_the_house(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert file.stem not in SHAPELESS
    assert text.count("\n") <= MODULE_LINES
    for node in ast.walk(syntax_tree(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            where = f"{name_of(file)}:{node.lineno} {node.name}"
            assert lines_of_code(node) <= FUNCTION_LINES, f"{where} has {lines_of_code(node)} lines"
            if not set(decorators(node)) & FIXED_BY_OTHERS and node.name not in NAMES_FIXED_BY_TORCH:
                words = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                assert len(set(words) - {"self", "cls", "ctx"}) <= PARAMETERS, f"{where} has {len(words)} parameters"


FIXED_BY_OTHERS = {"staticmethod"}  # autograd.Function's hooks take one parameter per input
NAMES_FIXED_BY_TORCH = {
    "local_map",
    "all_gather_tensor_inplace",
    "reduce_scatter_inplace",
    "reduce_scatter_tensor_inplace",
    "all_to_all_inplace",
    "reduce_scatter_tensor_coalesced",
}  # torch's signature, to the letter


def lines_of_code(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its docstring, which may be as long as its reader needs."""
    documented = ast.get_docstring(node) is not None
    docstring = (node.body[0].end_lineno or 0) - node.body[0].lineno + 1 if documented else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def decorators(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [ast.unparse(decorator) for decorator in node.decorator_list]


IMPORT_AND_LOOK = """
import json, os, sys, threading
sys.dont_write_bytecode = True
import torch, torch.distributed as dist, torch.distributed.tensor
import torch._dynamo  # torch.compiler's decorators load it, and it loads modules of torch that define ops

def state():
    return {
        "initialized": dist.is_initialized(),
        "threads": sorted(t.name for t in threading.enumerate()),
        "backends": sorted(dist.Backend.backend_list),
        "ops": sorted({s.name for s in torch._C._jit_get_all_schemas()}),
        "files": sorted(os.listdir(".")),
        "written": written,
        "environment": dict(os.environ),
        "threads of torch": torch.get_num_threads(),
        "grad mode": torch.is_grad_enabled(),
        "inductor": "torch._inductor.graph" in sys.modules or "torch._inductor.lowering" in sys.modules,
    }

written = []
def watch(event, args):
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        written.append(str(args[0]))
    elif event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "socket.connect", "socket.bind"):
        written.append(event)
sys.addaudithook(watch)
before = state()
before["written"] = []
module = __import__(sys.argv[1])
for name in getattr(module, "__all__", ()):
    getattr(module, name)
after = state()
print(json.dumps({key: [before[key], after[key]] for key in before if before[key] != after[key]}))
"""


@pytest.mark.parametrize("package", sorted(OURS))
def test_importing_a_package_changes_nothing(package: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT_AND_LOOK, package],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == {}


def test_the_private_name_finder_finds_what_it_should() -> None:
    sample = syntax_tree(
        "import torch\nimport torch.distributed as dist\nfrom torch._inductor import ir\n"
        "from torch.distributed import distributed_c10d as c10d\n"
        "torch._C.x\ndist._world\nc10d._get_default_group()\ntorch.ops._c10d_functional.all_reduce\n"
        "torch.add.__name__\nself._torch\n"
    )
    assert {name for _, name in private_torch(sample)} == {
        "torch._inductor.ir",
        "torch._C",
        "torch._C.x",
        "torch.distributed._world",
        "torch.distributed.distributed_c10d._get_default_group",
    }


def test_no_example_fails_by_the_time_that_it_takes() -> None:
    assert hypothesis.settings.default.deadline is None
