"""What hand-written tables say, tried row by row; `test_tables.py` says which table is held by what."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import tempfile
import threading
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch

import comm_core
import functional_collectives as fc
import kwindex
from comm_core import World
from comm_core.catalog import CATALOG
from comm_core.errors import MismatchError
from comm_core.pending import Pending
from comm_core.testing import run_ranks
from fsdp_collectives.lanes import TensorSpec
from fsdp_collectives.plan import GatherPlan, ReducePlan
from kwindex import build, open_searcher
from kwindex.syntax import syntax_tree
from kwindex.tables import SECTIONS
from tools.gen.sources import ROOT, distributions

Rows = list[list[str]]
LINK = re.compile(r"\]\(([^)#]+)")


def names(cell: str) -> list[str]:
    """The parts of a cell in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1]


def is_ignored(path: str) -> bool:
    """Whether .gitignore keeps a path of docs out of the repository."""
    rules = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    last = ""
    for rule in rules:
        if PurePosixPath(path).match(rule.removeprefix("!").strip("/")) or path.startswith(rule.strip("/") + "/"):
            last = rule
    return bool(last) and not last.startswith("!")


# README.md and decisions


def leads_somewhere(rows: Rows) -> None:
    for row in rows:
        for target in LINK.findall(row[1]):
            assert (ROOT / target).exists(), row


def torchs_files_and_ours(rows: Rows) -> None:
    for theirs, ours in rows:
        (file,) = names(theirs)
        assert file.startswith("test/") or (torch_folder() / file).exists(), file
        paths = [name for name in names(ours) if "/" in name.rstrip("/")]
        assert paths, ours
        assert all((ROOT / path).exists() for path in paths), ours


def what_is_supported(rows: Rows) -> None:
    says = {row[0]: row[1] for row in rows}
    projects = [
        tomllib.loads((one.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"] for one in distributions()
    ]
    (python,) = {project["requires-python"] for project in projects}
    assert says["Python"].startswith(python.removeprefix(">="))
    (range_,) = {need for project in projects for need in project.get("dependencies", ()) if need.startswith("torch")}
    low, above = re.fullmatch(r"torch>=2\.(\d+),<2\.(\d+)", range_.replace(" ", "")).groups()  # type: ignore[union-attr]
    assert f"2.{low} to 2.{int(above) - 1}" in says["torch"]
    pinned = (ROOT / "constraints/cpu-2.13.txt").read_text(encoding="utf-8")
    tested = re.search(r"tested on (\S+);", says["torch"])
    assert tested is not None
    assert f"torch=={tested[1]}" in pinned
    assert "Linux" in says["system"]
    for word in ("gloo", "simulator", "comm_shm", "NCCL"):
        assert word in says["transports"]
    assert any("mark.gpu" in path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/*.py"))


def decisions(rows: Rows) -> None:
    numbers = [re.match(r"\[(\d+)\]\((.+)\)", row[0]) for row in rows]
    for row, found in zip(rows, numbers, strict=True):
        assert found is not None
        title = (ROOT / "docs/decisions" / found[2]).read_text(encoding="utf-8").splitlines()[0]
        assert title == f"# {found[1]}: {row[1]}"
    listed = {found[2] for found in numbers if found is not None}
    assert len(rows) == 1 or listed == {path.name for path in (ROOT / "docs/decisions").glob("0*.md")}


def committed(rows: Rows) -> None:
    folder = ""
    for what, answer, _ in rows:
        for name in names(what):
            folder = name.rpartition("/")[0] or folder
            path = name if "/" in name or (ROOT / name).exists() else f"{folder}/{name}"
            assert answer == "yes", name
            assert (ROOT / path).exists(), name
            assert not is_ignored(path), name
        if not names(what):
            assert answer == "no"
            assert is_ignored("docs/reference/index.md")


# pages of what to do


def demo(rows: Rows) -> None:
    for row in rows:
        (name,) = names(row[0])
        assert (ROOT / "tools/demo" / name).exists(), name
        if "four ways, about 20 lines each" in row[1]:
            top = syntax_tree((ROOT / "tools/demo" / name).read_text(encoding="utf-8")).body
            ways = [
                node
                for node in top
                if isinstance(node, ast.FunctionDef) and [a.arg for a in node.args.args] == ["batches", "progress"]
            ]
            assert len(ways) == 4
            assert all((way.end_lineno or 0) - way.lineno < 25 for way in ways)


def variants(rows: Rows) -> None:
    """The four ways have these names and ranks, and are written with what stands in backticks."""
    code = {name: (ROOT / f"tools/demo/{name}.py").read_text(encoding="utf-8") for name in ("variants", "ranks")}
    named = re.findall(r"train\(\"([a-z, ]+)\"", code["variants"])
    assert [row[0] for row in rows] == named
    (world,) = re.findall(r"(?m)^WORLD = (\d)$", code["ranks"])
    assert [row[2] for row in rows] == ["1", world, world, world]
    for used in names(" ".join(row[1] for row in rows)):
        package, _, function = used.partition("(")[0].rpartition(".")
        ways = (f"{package}.{function}(", f"import {function}\n") if package else (function,)
        assert any(way in code["variants"].replace("fc.", "functional_collectives.") for way in ways), used


def steps_of_a_hang(rows: Rows) -> None:
    page = (ROOT / "docs/do/find_a_hang.md").read_text(encoding="utf-8")
    slugs = {re.sub(r"[^\w]+", "-", title.lower()).strip("-"): title for title in re.findall(r"(?m)^## (.+)$", page)}
    for row in rows:
        found = re.search(r"\[(\d)\]\(#([\w-]+)\)", row[1])
        assert found is not None, row
        assert slugs[found[2]].startswith(f"{found[1]}."), row


FOUND_AS = {
    "the name in any spelling": ("exact name", "same letters"),
    "names that begin so": ("the name starts with it", "beginning of the qualified name's end"),
    "names with words that begin so": ("words of the name",),
    "names with these initials": ("initials",),
    "what JAX, MPI, NCCL, Horovod and XLA call it": ("synonym",),
    "near spellings, if nothing is spelled as you typed it": ("near spelling",),
    "functions that take and return these types, perhaps others too": ("these types",),
    "the line that raises this message; the beginning of it is enough, and so is a whole traceback": ("raises",),
    "what Python would find: the definition that imports, their aliases and stars lead to": (
        "imported as",
        "funcol is",
    ),
    "what files import under this name": ("funcol is", "ft_c is"),
    "the operator, where nothing is registered for this overload": ("overload",),
    "the name in the line of code": ("imported as", "exact"),
    "what stands around that line, the function that is named, and the file": ("in the file", "at line"),
    "what a class has from its bases and its metaclass": ("c10d is torch.distributed",),
    "what is registered for an operator, the lowering first": ("exact qualified name", "end of the qualified name"),
    "the note of that title in comments and docstrings, then the files that refer to it": (
        "exact name",
        "words of the name",
    ),
    "summaries with these words, if no name has them": ("in the summary",),
}
"""What a row promises, and the reasons that a search gives for a hit of this kind."""


def queries(rows: Rows) -> None:
    named = tomllib.loads((ROOT / "tools/kwindex/golden/corpus.toml").read_text(encoding="utf-8"))
    theirs = torch_folder() / "torch"
    sources = [*(ROOT / part for part in named["ours"]), *(theirs / part for part in named["torch"])]
    with tempfile.TemporaryDirectory() as folder:
        build(sources, folder)
        searcher = open_searcher(folder)
        for typed, finds in rows:
            for query in names(typed):
                hits = searcher.search(query.removesuffix(" ..."))
                assert any(hit.why.startswith(FOUND_AS[finds]) for hit in hits[:4]), (query, hits[:4])
                if "lowering first" in finds and any(hit.entry.kind == "lowering" for hit in hits):
                    assert hits[0].entry.kind == "lowering"
    assert {row[1] for row in rows} == set(FOUND_AS)


def where_it_runs(group: Any) -> tuple[int, int, int]:
    fc.barrier(group)  # nobody has ended yet: a thread that has may leave its number to the next one
    return os.getpid(), threading.get_ident(), group.world if hasattr(group, "world") else group.size()


def rank_of_a_process(_: Any) -> int:
    return os.getpid()


def disagree(group: Any) -> None:
    comm_core.run(CATALOG["all_reduce"], torch.ones(2 + group.rank), group, reduce_op="sum")


def worlds_and_ranks(rows: Rows) -> None:
    says = {row[0]: row[1:] for row in rows}
    threads = World(2).run(where_it_runs)
    assert says.pop("ranks are") == ["threads of this process", "processes of this machine"]
    assert {pid for pid, *_ in threads} == {os.getpid()}
    assert len({thread for _, thread, _ in threads}) == 2
    processes = run_ranks(rank_of_a_process, world=2)
    assert len({*processes, os.getpid()}) == 3
    assert says.pop("moves data by") == ["the definition of each collective", "shared memory, gloo, NCCL"]
    assert run_ranks(rank_of_a_process, world=1, backend="gloo")
    assert says.pop("finds")[0].endswith("ranks that disagree")
    with pytest.raises(MismatchError):
        World(2).run(disagree)
    assert set(says) == {"a run costs"}  # a time: packages/comm_core/tests/testing measures nothing either


# pages of what to understand


class Emitted:
    """Stands for a group in a gradient rule, and notes what is run on it."""

    rank, world = 0, 2

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, name: str, x: torch.Tensor, **params: Any) -> torch.Tensor:
        self.calls.append((name, params))
        return x


SIZES = (1, 3)
PARAMS: dict[str, dict[str, Any]] = {
    "all_reduce": {"reduce_op": "sum"},
    "all_gather": {"dim": 1},
    "reduce_scatter": {"reduce_op": "sum", "dim": 1},
    "all_to_all": {"output_splits": (1, 3), "input_splits": (2, 2)},
    "broadcast": {"src": 0},
    "reduce": {"reduce_op": "sum", "dst": 1},
    "gather": {"dst": 1, "dim": 0, "sizes": SIZES},
    "scatter": {"src": 1, "dim": 0, "sizes": SIZES},
    "all_gather_v": {"dim": 0, "sizes": SIZES},
    "reduce_scatter_v": {"reduce_op": "sum", "dim": 0, "sizes": SIZES},
    "scan": {"reduce_op": "sum", "reverse": False},
    "exscan": {"reduce_op": "sum", "reverse": False},
    "batch_p2p": {"sends": ((1, 0, 2),), "receives": (), "reverse": False},
    "permute": {"destinations": (1, -1)},
    "wait": {},
}
BACKWARD: dict[str, tuple[list[str], dict[str, Any] | None]] = {
    "all_reduce (sum)": (["all_reduce"], {"reduce_op": "sum"}),
    "all_gather": (["reduce_scatter (sum), along the same dim"], {"reduce_op": "sum", "dim": 1}),
    "reduce_scatter (sum)": (["all_gather, along the same dim"], {"dim": 1}),
    "all_to_all": (["all_to_all with the splits exchanged"], {"output_splits": (2, 2), "input_splits": (1, 3)}),
    "broadcast": (["sum to the source; the others get zero"], {"reduce_op": "sum"}),
    "reduce (sum) to a rank": (["broadcast from it"], {"src": 1}),
    "gather to a rank": (["scatter from it, with the same sizes"], {"src": 1, "dim": 0, "sizes": SIZES}),
    "scatter from a rank": (["gather to it, with the same sizes"], {"dst": 1, "dim": 0, "sizes": SIZES}),
    "all_gather_v": (
        ["reduce_scatter_v (sum), with the same sizes"],
        {"reduce_op": "sum", "dim": 0, "sizes": SIZES},
    ),
    "reduce_scatter_v (sum)": (["all_gather_v, with the same sizes"], {"dim": 0, "sizes": SIZES}),
    "scan, exscan (sum)": (["the same, from the last rank to the first"], {"reduce_op": "sum", "reverse": True}),
    "send, receive": (["receive, send: a message back"], {"sends": (), "receives": ((1, 0, 2),), "reverse": True}),
    "permute": (["the inverse permute; who sent to nobody gets zero"], {"destinations": (-1, 0)}),
    "wait": (["nothing to do"], None),
}
"""What a row says, and the parameters with which the backward collective has to be run."""
BACK = {"broadcast": "all_reduce", "reduce": "broadcast", "gather": "scatter", "scatter": "gather"}
BACK |= {"all_gather": "reduce_scatter", "reduce_scatter": "all_gather"}
BACK |= {"all_gather_v": "reduce_scatter_v", "reduce_scatter_v": "all_gather_v"}


def backward_of(rows: Rows) -> None:
    for forward, backward in rows:
        words, params = BACKWARD[forward]
        assert backward in (*words, forward), forward
        keys = ["batch_p2p"] if forward == "send, receive" else re.split(r", ", forward.partition(" ")[0] + "")
        keys = ["scan", "exscan"] if forward.startswith("scan") else keys
        for key in keys:
            emit = Emitted()
            rule = CATALOG[key].gradient
            assert callable(rule)
            rule(emit, torch.zeros(4, 4), **PARAMS[key])
            assert emit.calls == ([] if params is None else [(BACK.get(key, key), params)]), forward


def gradients_of_reduce_ops(rows: Rows) -> None:
    """Three ranks, a tie and a zero among their elements; S is the sum of the ranks' cotangents."""
    columns = torch.tensor([[1.0, 5.0, 0.0, 2.0], [1.0, 3.0, 4.0, 0.0], [2.0, 5.0, 7.0, 0.0]])

    def body(group: Any, op: Any) -> torch.Tensor:
        x = columns[group.rank].clone().requires_grad_()
        (comm_core.run(CATALOG["all_reduce"], x, group, reduce_op=op) * (group.rank + 1)).sum().backward()
        assert x.grad is not None
        return x.grad

    total = 6.0  # 1 + 2 + 3
    said = {name: row for row in rows for name in names(row[0])}
    assert set(said) == {"sum", "avg", "premul_sum(f)", "min", "max", "product"}
    for op in ("sum", "avg", "min", "max", "product"):
        got = torch.stack(World(3).run(lambda group, op=op: body(group, op)))
        if op in ("sum", "avg"):
            want = torch.full_like(columns, total / (3 if op == "avg" else 1))
        elif op == "product":
            want = total * torch.stack([columns[[r for r in range(3) if r != rank]].prod(0) for rank in range(3)])
        else:
            holds = (columns == (columns.amin(0) if op == "min" else columns.amax(0))).double()
            want = (total * holds / holds.sum(0)).to(columns.dtype)
        torch.testing.assert_close(got, want, msg=op)
    scaled = torch.stack(World(3).run(lambda group: body(group, comm_core.premul_sum(2.0))))
    torch.testing.assert_close(scaled, torch.full_like(columns, 2 * total))


def files_of_an_index(rows: Rows) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "m.py"), Path(folder, "out")
        source.write_text("def f(): ...\n")
        build([source], out)
        assert {name for row in rows for name in names(row[0])} == {path.name for path in out.iterdir()}


def sections_of_a_piece(rows: Rows) -> None:
    assert [name for row in rows for name in names(row[0])] != []
    assert {name for row in rows for name in names(row[0])} == set(SECTIONS)
    entries = [kwindex.Entry(f"m.f{n}", "function", "m.py", n + 1, n + 1, "f()", "Says it.") for n in range(3)]
    from kwindex.pieces import make

    piece = dict(zip(SECTIONS, make(entries), strict=True))
    for row in rows:
        bits = re.search(r"\((\d+) bits\)", row[1])
        if bits:
            assert len(piece[names(row[0])[0]]) * 8 == int(bits[1]) * len(entries), row


def whole_tensors(group: Any) -> list[list[float]]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    mine = torch.tensor([1.0, 2.0]) * (mesh.get_rank() + 1)
    made = [
        DTensor.from_local(mine if place != Replicate() else torch.tensor([5.0, 6.0]), mesh, [place], run_check=False)
        for place in (Shard(0), Replicate(), Partial("sum"), Partial("avg"))
    ]
    there = [distribute_tensor(torch.arange(4.0), mesh, [place]).to_local() for place in (Shard(0), Replicate())]
    return [x.full_tensor().tolist() for x in made] + [x.tolist() for x in there]


def what_placements_stand_for(rows: Rows) -> None:
    said = {row[0].strip("`"): row[1:] for row in rows}
    shard, replicate, added, mean, split, copied = run_ranks(whole_tensors, world=2, backend="gloo")[1]
    assert said["Shard(d)"][0].startswith("the concatenation")
    assert said["Replicate"][0].startswith("`x_0`")
    assert said['Partial("sum")'][0].startswith("the sum")
    assert said['Partial("avg")'][0].startswith("the mean")
    assert (shard, replicate, added, mean) == ([1.0, 2.0, 2.0, 4.0], [5.0, 6.0], [3.0, 6.0], [1.5, 3.0])
    assert (said["Shard(d)"][1], said["Replicate"][1]) == ("split", "copy")
    assert (split, copied) == ([2.0, 3.0], [0.0, 1.0, 2.0, 3.0])


TORCH_WORDS = {"right": 0, "n times too large": 1, "n times too small": -1}
BODIES = {
    "pieces in, pieces out": ["shard, pointwise, out shard"],
    "pieces, then `all_reduce` or `all_gather`, out `Replicate`": [
        "shard, all_reduce, out replicate",
        "shard, all_gather, out replicate",
    ],
    "a replicated weight meets sharded data": ["replicate W with varying X, out shard"],
    "replicated keys and values, sharded queries": ["replicate KV with shard Q"],
    "a replicated input, sliced by rank": ["replicate sliced by rank, out shard"],
    "replicated in, the same work everywhere, out `Replicate`": ["replicate, same work, out replicate"],
    "replicated in, the same work everywhere, out as shares of a sum": ["replicate, same work, out partial"],
    "one input in both a varying use and a `Replicate` output": ["replicate, varying use and replicate output"],
    "shares in, linear, shares out": ["partial, linear, out partial"],
    "shares, `all_reduce`, out `Replicate`": ["partial, all_reduce, out replicate"],
    '`Partial("avg")` out': ["shard, out partial avg"],
    '`Partial("avg")` in, pieces out': ["partial avg, reduced, sliced by rank, out shard"],
}
"""What a row is about, and the programs of func_map's tests that are run for it."""


def bodies(rows: Rows) -> None:
    """func_map's tests run each of these programs, against one process and as torch's local_map does it."""
    file = ROOT / "packages/func_map/tests/test_gradient_rules.py"
    top = syntax_tree(file.read_text(encoding="utf-8")).body
    (measured,) = [
        ast.literal_eval(node.value)
        for node in top
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "TORCH_2_13"
        if node.value is not None
    ]
    for body, ours, theirs in rows:
        assert ours == "right", body
        assert {measured[name] for name in BODIES[body]} == {TORCH_WORDS.get(theirs)}, body
    assert {row[0] for row in rows} == set(BODIES)


def bytes_of_a_plan(rows: Rows) -> None:
    assert [row[0] for row in rows] == ["gather", "reduce", "training step of a unit"]
    specs = [TensorSpec("w", (7, 4), torch.float32), TensorSpec("b", (5,), torch.float32)]
    for world in (1, 2, 3, 4):
        gather = GatherPlan.build(specs, world)
        assert gather.wire_bytes == (world - 1) * gather.block_bytes
        reduce = ReducePlan.build(specs, world, reduce_dtype=torch.bfloat16)
        assert reduce.wire_bytes == (world - 1) * reduce.block_bytes
        (lane,) = reduce.lanes
        assert lane.dtype == torch.bfloat16
        assert lane.flags == len(specs)


def what_a_call_gives(rows: Rows) -> None:
    assert len(rows) == 4

    def body(group: Any) -> list[str]:
        x = torch.ones(2)
        entry = CATALOG["all_reduce"]
        pending = comm_core.launch(entry, x, group, reduce_op="sum")
        finished = comm_core.run(entry, x, group, reduce_op="sum")
        waits = fc.all_reduce(x, "sum", group)
        kinds = [type(pending), type(finished), type(waits)]
        pending.wait()
        assert waits.tolist() == [2.0, 2.0]
        return [kind.__name__ for kind in kinds]

    assert World(2).run(body)[0] == [Pending.__name__, torch.Tensor.__name__, fc.AsyncCollectiveTensor.__name__]
    from torch.fx.experimental.proxy_tensor import make_fx

    def traced(group: Any) -> list[str]:
        graph = make_fx(lambda x: fc.all_reduce(x, "sum", group) + 1)(torch.ones(2)).graph
        return [str(node.target) for node in graph.nodes if node.op == "call_function"]

    calls = World(1).run(traced)[0]
    first = next(place for place, name in enumerate(calls) if "all_reduce" in name)
    assert "wait" in calls[first + 1]


def stages_of_collectives(rows: Rows) -> None:
    """A cell says something where the C core has a stage, and the sizes are where it goes from one way to the other."""
    source = (ROOT / "packages" / "comm_shm" / "csrc" / "collective.c").read_text(encoding="utf-8")
    most = int(re.findall(r"#define ONE_SHOT_BYTES (\d+)", source)[0])
    way = {f"all_reduce up to {most // 1024} KiB": "one_shot", "all_reduce above": "two_shot"}
    for name, *cells in rows:
        function = rf"(?s)^(?:shm_status shm_|static shm_status ){name.split()[0]}(?:_of_much)?\(.*?^}}"
        body = "".join(re.findall(function, source, re.MULTILINE))
        given = re.findall(rf"shm_stages {way.get(name, 'stages')} = {{(.*?)}}", body)[0]
        assert [bool(cell) for cell in cells] == [f".{stage} =" in given for stage in ("put", "reduce", "take")], name
