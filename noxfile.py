"""Every task of the repository: `nox -s NAME`, `nox -l` lists them, plain `nox` runs lint, types and tests.

One environment, `.nox/commbook`, serves all of them, so torch is installed once. It is refreshed when the
constraints, a pyproject.toml or a C source changes. To use an interpreter of your own as it is (one with a
CUDA build of torch, say), install the packages there and name it: `COMMBOOK_PYTHON=/path/to/python nox`.
"""

import hashlib
import os
import shutil
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
ENV = ROOT / ".nox" / "commbook"
BESIDE = ("--numprocesses", "auto", "--maxprocesses", "4", "--dist", "loadfile")
CONSTRAINTS = ROOT / "constraints" / "cpu-2.13.txt"
DISTRIBUTIONS = sorted(
    file.parent for where in ("packages", "tools") for file in ROOT.glob(f"{where}/*/pyproject.toml")
)

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]


def fingerprint() -> str:
    """What the environment was made from; it is refreshed when this changes."""
    sources = [CONSTRAINTS, ROOT / "pyproject.toml"]
    for folder in DISTRIBUTIONS:
        sources += [folder / "pyproject.toml", *folder.glob("setup.py"), *folder.glob("src/**/*.[ch]")]
    digest = hashlib.blake2b(str(ROOT).encode(), digest_size=16)
    for path in sorted(sources):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def interpreter(session: nox.Session) -> str:
    """The Python of the shared environment, which is created or refreshed here when it has to be."""
    if own := os.environ.get("COMMBOOK_PYTHON"):
        return own
    python, stamp, made_from = ENV / "bin" / "python", ENV / "made-from", fingerprint()
    if not (python.exists() and stamp.exists() and stamp.read_text() == made_from):
        session.log("making the shared environment .nox/commbook; the first time this fetches torch")
        make(session, ENV, "--constraint", str(CONSTRAINTS))
        stamp.write_text(made_from)
    return str(python)


def make(session: nox.Session, env: Path, *words: str) -> None:
    """Makes an environment with everything in it, or refreshes it; the words go to pip, for what others need."""
    python = env / "bin" / "python"
    if not python.exists():
        session.run(sys.executable, "-m", "virtualenv", "--quiet", str(env), external=True)
    pip = (str(python), "-m", "pip", "install", *words)
    dev = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "dev")
    editable = [word for folder in DISTRIBUTIONS for word in ("--editable", str(folder))]
    session.run(*pip, *dev, external=True)
    session.run(*pip, "--quiet", "--no-build-isolation", *editable, external=True)


def run(session: nox.Session, *words: object) -> None:
    """Runs the shared interpreter with these words from the root of the repository."""
    python = interpreter(session)
    path = os.pathsep.join([str(Path(python).parent), os.environ.get("PATH", "")])
    settings = {"PATH": path, "PYTHONPATH": None, "PYTHONNOUSERSITE": "1", "NO_MKDOCS_2_WARNING": "1"}
    settings["PYTHONDONTWRITEBYTECODE"] = None  # each rank process of a test would compile our sources again
    session.run(python, *map(str, words), external=True, env=settings)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff (to mend: `nox -s lint -- --fix`)."""
    mend = "--fix" in session.posargs
    run(session, "-m", "ruff", "check", *(["--fix"] if mend else []), ".")
    run(session, "-m", "ruff", "format", *([] if mend else ["--check"]), ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of every package and tool with mypy, strict."""
    run(session, "-m", "mypy", *(folder / "src" for folder in DISTRIBUTIONS if (folder / "src").exists()))
    run(session, "-m", "mypy", "tools/gen", "tools/wheels")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests that need no GPU, docstring and page examples among them (`-- WORDS` go to pytest).

    A process for each core, four at most, takes a file at a time: `-- -n 0` runs all in one, as a debugger needs it.
    """
    run(session, "-m", "pytest", "-m", "not gpu and not browser", *BESIDE, *session.posargs)


@nox.session
def versions(session: nox.Session) -> None:
    """Run the tests on another torch, in an environment of its own (`-- 2.14.1`; further words go to pytest)."""
    if not session.posargs:
        session.error("which torch? nox -s versions -- 2.14.1")
    wanted, *words = session.posargs
    env = ENV.with_name(f"torch-{wanted}")
    make(session, env, f"torch=={wanted}")
    os.environ["COMMBOOK_PYTHON"] = str(env / "bin" / "python")
    run(session, "-m", "pytest", "-m", "not gpu and not browser", *BESIDE, *words)


@nox.session
def gpu(session: nox.Session) -> None:
    """Run the tests marked gpu, if there is a CUDA device."""
    found = "import torch; print(torch.cuda.device_count())"
    if not int(session.run(interpreter(session), "-c", found, external=True, silent=True)):
        session.log("This torch sees no CUDA device, so the tests marked gpu have nothing to run on.")
        return
    run(session, "-m", "pytest", "-m", "gpu", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Generate the reference and build the site, strictly (`-- --serve` shows it on 127.0.0.1:8000)."""
    serve = "--serve" in session.posargs
    run(session, "-m", "tools.gen", *([] if serve else ["--site"]))
    if serve:
        run(session, "-m", "mkdocs", "serve", "--dev-addr", "127.0.0.1:8000")


@nox.session
def zensical(session: nox.Session) -> None:
    """Build the same site with Zensical, where the theme's makers go on; a failure is said and allowed."""
    env, copy = ENV.parent / "zensical", ENV.parent / "zensical-site"
    run(session, "-m", "tools.gen")
    if not (env / "bin" / "zensical").exists():
        session.run(sys.executable, "-m", "virtualenv", "--quiet", str(env), external=True)
        own = (str(env / "bin" / "python"), "-m", "pip", "install", "--quiet")
        session.run(*own, "zensical", "mkdocstrings-python>=2.0,<3", external=True)
    shutil.rmtree(copy, ignore_errors=True)
    for name in ("docs", "packages", "tools"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True)
    shutil.copy(ROOT / "mkdocs.yml", copy)
    with session.chdir(copy):
        done = session.run(str(env / "bin" / "zensical"), "build", external=True, success_codes=range(256))
    built = len(list((copy / "site").rglob("*.html")))
    session.log(f"Zensical built {built} pages into {copy / 'site'}" + ("" if done else "; it reported a failure"))


@nox.session
def browser(session: nox.Session) -> None:
    """Try the built site in a real browser: Chromium from PATH, or named with CHROMIUM=/path/to/it."""
    if not (ROOT / "site" / "index.html").exists():
        docs(session)
    run(session, "-m", "pip", "install", "--quiet", "playwright>=1.50", "axe-playwright-python>=0.1.4")
    run(session, "-m", "pytest", "-m", "browser", *BESIDE, "tests/browser", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Train a small model four ways on 2 ranks of this machine, and search the index."""
    run(session, "tools/demo/run.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks, one file per claim (`-- NAME ...` chooses)."""
    for script in sorted(ROOT.glob("tools/bench/[a-z]*.py")):
        if not session.posargs or script.stem in session.posargs:
            run(session, script)


@nox.session
def soak(session: nox.Session) -> None:
    """Make 10,000 groups, kill a rank at every moment of every collective, run random programs (`-- SECONDS`, 600)."""
    os.environ["COMM_SHM_SOAK"] = session.posargs[0] if session.posargs else "600"
    os.environ["COMM_SHM_CYCLES"] = "10000"
    long = [f"packages/comm_shm/tests/test_{name}.py" for name in ("resources", "phases", "fuzz")]
    run(session, "-m", "pytest", "-s", "--timeout=0", *long)


@nox.session
def matrix(session: nox.Session) -> None:
    """Compile every row of the contract, 1 to 4 ranks, three backends, gloo and shm (`-- -k WORDS` takes a part)."""
    os.environ["COMMBOOK_EVERY_ROW"] = "1"
    run(session, "-m", "pytest", "tests/contract/test_backends.py", *session.posargs)


@nox.session
def gen(session: nox.Session) -> None:
    """Write the generated files; `-- --check` only says which committed ones are stale."""
    run(session, "-m", "tools.gen", *session.posargs)


@nox.session
def wheels(session: nox.Session) -> None:
    """Build every wheel and try each one alone in an empty environment."""
    run(session, "-m", "tools.wheels", "wheels", *DISTRIBUTIONS)
