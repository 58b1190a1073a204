"""How good the search is: golden queries asked of our packages and of torch's, the figures, and what they miss.

`python -m tools.gen.quality_page` prints the page; the generator runs that beside its other work.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from kwindex import build
from kwindex.quality import Figures, Result, evaluate, read_golden, strata
from kwindex.ready import open_searcher

from .reference import HEAD, cell
from .sources import ROOT, Output

PAGE = "docs/index/generated/search_quality.md"
GOLDEN = ROOT / "tools/kwindex/golden"
INTRODUCTION = """\
{count} queries with the entries that they should find, asked of {entries:,} entries of {files} files: our packages, and
torch {version}'s modules that the handbook is about with their neighbours. MRR@10 is the mean of one over the place of
the first right hit (0 where it is not among ten); *first* is the part whose first hit is right. To ask them again:
`nox -s bench -- kwindex_quality`.

The search was fitted to the *tuned* half, {tuned} queries; {half} of these had been held out before and were then
looked at. The *held-out* half was written from the names in the index, without a look at the ranking, and asked once:
the column *held out, asked first* is that blind answer, recorded before anything was changed. Then the table of other
libraries' words (MPI, NCCL, JAX, Horovod, XLA) was completed, because the synonyms had come out worst: the last
columns are not blind, above all not for synonyms. The strata *told operator* and *concept* were written
and asked later, in the same way, with torch's prims among the sources.
"""
FIRST = GOLDEN / "first_asked.json"
EARLIER = 85
"""How many of the tuned queries were a held-out half before."""
JUDGED = ROOT / "docs/assets/bench/kwindex_judged.json"
JUDGES = """\
The index of all of torch {torch} was held against two judges that know nothing of kwindex. `ast`, walked, sees
{by_ast:,} definitions: kwindex lacks {not_found} of them and names {false_by_ast} others. Of its
{ours:,} Universal Ctags does not see {unseen_by_ctags}, and of these {false} do not stand in the source. The other
{other_names:,} names (fields, constants, variables, aliases, imports) were looked for in the lines that they are said
to stand in: {other_false} are not there. To judge again, with `ctags` installed:
`python tools/bench/kwindex_judged.py`.
"""
LIMIT_S = 300


def started() -> subprocess.Popen[str]:
    """A process that makes the page."""
    return subprocess.Popen([sys.executable, "-m", __name__], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def page(process: subprocess.Popen[str]) -> Output:
    """The page, when the process that makes it is done.

    Raises:
        SystemExit: it failed; what went wrong stands above.
    """
    text, _ = process.communicate(timeout=LIMIT_S)
    if process.returncode:
        raise SystemExit(f"{__name__} failed")
    return Output(PAGE, text, committed=False)


def written() -> str:
    """The text of the page, from a run of all golden queries."""
    named = tomllib.loads((GOLDEN / "corpus.toml").read_text(encoding="utf-8"))
    sources = [ROOT / part for part in named["ours"]] + [torch_folder() / part for part in named["torch"]]
    with tempfile.TemporaryDirectory() as folder:
        built = build([source for source in sources if source.exists()], folder)
        results = evaluate(open_searcher(folder).search, read_golden(GOLDEN / "queries.tsv"))
    version = importlib.metadata.version("torch").partition("+")[0]
    tuned = sum(one.golden.half == "tuned" for one in results)
    sizes = {"entries": built.entries, "files": built.files, "count": len(results), "tuned": tuned, "half": EARLIER}
    said = INTRODUCTION.format(version=version, **sizes)
    lines = [f"{HEAD}# Search quality", "", said, *figures(results), "", "## What it misses", "", *missed(results)]
    judged = JUDGES.format_map(json.loads(JUDGED.read_text(encoding="utf-8")))
    return "\n".join([*lines, "", "## Names that are not there", "", judged])


def torch_folder() -> Path:
    """Where torch is installed; it is not imported."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None, "torch is not installed"
    assert spec.origin is not None, "torch is not a package"
    return Path(spec.origin).parent


def figures(results: list[Result]) -> list[str]:
    """A row for each stratum and one for all."""
    rows = [
        "| stratum | queries | tuned: MRR@10 | first | held out, asked first: MRR@10 | first "
        "| held out: MRR@10 | first |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    asked_first = json.loads(FIRST.read_text(encoding="utf-8"))["strata"]
    for name, halves in strata(results).items():
        blind = Figures(**asked_first[name]["held"])
        cells = [f"{one.mrr:.3f} | {one.success:.3f}" for one in (halves["tuned"], blind, halves["held"])]
        rows.append(f"| {name} | {halves['both'].queries} | {' | '.join(cells)} |")
    return rows


def missed(results: list[Result]) -> list[str]:
    """A row for each query whose first hit is wrong."""
    rows = [
        f"| `{cell(one.golden.query)}` | {one.golden.stratum} | {one.golden.half} | {one.place or 'not found'} "
        f"| {', '.join(f'`{name}`' for name in one.found[:1])} |"
        for one in results
        if one.place != 1
    ]
    return ["| query | stratum | half | place | first hit |", "|---|---|---|---|---|", *rows] if rows else ["Nothing."]


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    print(written(), end="")
