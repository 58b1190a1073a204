"""`python -m tools.wheels OUT FOLDER...`: every wheel installs alone, imports, and brings nothing undeclared.

Each wheel goes with the siblings that it pins into an empty environment of its own. The third-party
distributions that it declares (torch among them) are made visible there as links, so that they are not
installed again; whatever is not declared stays out of sight.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TRY = """
import importlib, importlib.util, sys
wanted, others = sys.argv[1].split(), sys.argv[2].split()
for name in wanted:
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        getattr(module, public)
seen = [name for name in others if importlib.util.find_spec(name)]
sys.exit(f"also importable: {seen}" if seen else 0)
"""


@dataclass(frozen=True)
class Wheel:
    """A built wheel: its distribution's name, its file, the packages inside, and what it requires."""

    name: str
    file: Path
    packages: tuple[str, ...]
    requirements: tuple[Requirement, ...]


def build(folder: Path, out: Path) -> Wheel:
    """Builds one wheel with the build tools of this environment."""
    with tempfile.TemporaryDirectory() as empty:
        pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", empty, str(folder))
        (built,) = Path(empty).glob("*.whl")
        out.mkdir(parents=True, exist_ok=True)
        file = out / built.name
        file.write_bytes(built.read_bytes())
    return read(file)


def read(file: Path) -> Wheel:
    """Reads a wheel's metadata."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        parsed = Metadata.from_email(archive.read(metadata), validate=True)
    tops = {name.split("/")[0] for name in names if "/" in name}
    packages = sorted(top for top in tops if not top.endswith((".dist-info", ".data")))
    return Wheel(canonicalize_name(parsed.name), file, tuple(packages), tuple(parsed.requires_dist or ()))


def asked_for(requirements: tuple[Requirement, ...], extras: frozenset[str]) -> list[Requirement]:
    """The requirements that hold on this machine with these extras."""
    situations = [{"extra": extra} for extra in ("", *extras)]
    return [r for r in requirements if r.marker is None or any(r.marker.evaluate(s) for s in situations)]


def closure(wheel: Wheel, ours: dict[str, Wheel]) -> tuple[dict[str, Wheel], dict[str, Distribution]]:
    """Everything that a wheel needs, directly or not: our wheels, and distributions of this environment."""
    own: dict[str, Wheel] = {wheel.name: wheel}
    others: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = asked_for(wheel.requirements, frozenset())
    while todo:
        need = todo.pop()
        name, extras = canonicalize_name(need.name), frozenset(need.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name in ours:
            own[name] = ours[name]
            todo += asked_for(ours[name].requirements, extras)
        else:
            others[name] = distribution(name)
            todo += asked_for(tuple(map(Requirement, others[name].requires or ())), extras)
    return own, others


def link(found: dict[str, Distribution], folder: Path) -> None:
    """Fills a folder with links to what these distributions installed."""
    folder.mkdir()
    for one in found.values():
        tops = {file.parts[0] for file in one.files or ()} - {"..", "__pycache__"}
        for top in sorted(tops):
            target = Path(str(one.locate_file(top)))
            if target.exists() and not (folder / top).exists():
                (folder / top).symlink_to(target)


def alone(wheel: Wheel, ours: dict[str, Wheel]) -> str:
    """Installs one wheel in an empty environment and imports it; returns what is wrong, or nothing."""
    own, others = closure(wheel, ours)
    with tempfile.TemporaryDirectory() as temporary:
        home, links = Path(temporary, "env"), Path(temporary, "declared")
        venv.create(home, with_pip=False)
        link(others, links)
        (site,) = home.glob("lib/python*/site-packages")
        (site / "declared.pth").write_text(f"{links}\n")
        python = home / "bin" / "python"
        files = [str(one.file) for one in own.values()]
        pip("--python", str(python), "install", "--no-deps", "--no-index", *files)
        pip("--python", str(python), "check")
        wanted = {package for one in own.values() for package in one.packages}
        rest = {package for one in ours.values() for package in one.packages} - wanted
        words = [str(python), "-I", "-c", TRY, " ".join(sorted(wanted)), " ".join(sorted(rest))]
        tried = subprocess.run(words, cwd=temporary, capture_output=True, text=True, check=False)
    return "\n".join(tried.stderr.strip().splitlines()[-3:]) if tried.returncode else ""


def pip(*words: str) -> None:
    """Runs pip and shows what it said if it fails."""
    ran = subprocess.run([sys.executable, "-m", "pip", "--quiet", *words], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"pip {' '.join(words)}:\n{ran.stdout}{ran.stderr}")


def main(out: str, *folders: str) -> int:
    """Builds all, tries all, prints one line each; returns the exit code."""
    built = [build(Path(folder), Path(out)) for folder in folders]
    ours = {wheel.name: wheel for wheel in built}
    failed = 0
    for wheel in built:
        problem = alone(wheel, ours)
        failed += bool(problem)
        print(
            f"{wheel.name:24} {problem or 'installs alone, imports, nothing else of ours in sight'}",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
