"""The demo's second part: index the packages and torch's originals, and answer one question."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ORIGINALS = (
    "distributed/_functional_collectives.py",
    "distributed/fsdp/_fully_shard/_fsdp_collectives.py",
    "_inductor/comm_lowering.py",
    "distributed/tensor/experimental/_func_map.py",
)
QUESTION = "allreduce"


def build_and_search() -> tuple[int, str]:
    """Build the index in a temporary folder; return the number of entries and the answer as kwindex prints it.

    Raises:
        RuntimeError: kwindex failed; what it said is in the message.
    """
    spec = importlib.util.find_spec("torch")
    torch_folder = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    sources = [*sorted(str(path) for path in ROOT.glob("packages/*/src")), *(str(torch_folder / o) for o in ORIGINALS)]
    with tempfile.TemporaryDirectory() as out:
        kwindex("build", *sources, "--out", out, "--json")
        entries = json.loads((Path(out) / "index.json").read_text(encoding="utf-8"))["entries"]
        return len(entries), kwindex("search", QUESTION, "--index", out, "--limit", "6")


def kwindex(*words: str) -> str:
    """Run kwindex and return its output."""
    done = subprocess.run([sys.executable, "-m", "kwindex", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"kwindex {words[0]}: {done.stderr}")
    return done.stdout
