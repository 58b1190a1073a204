"""The distributions fit together: one version, exact pins, names that follow the folders, READMEs of the right size."""

from __future__ import annotations

import re
import stat
import tomllib
from typing import Any

import pytest

from kwindex.syntax import syntax_tree
from tools.gen.sources import ROOT, Distribution, distributions

ALL = distributions()
WITH_CODE = [d for d in ALL if d.package]
META = "commbook"
TEST_COMMAND = "python -m pip install nox && nox -s tests"
DEMO_COMMAND = "python -m pip install nox && nox -s demo"


def project(distribution: Distribution) -> dict[str, Any]:
    with open(distribution.folder / "pyproject.toml", "rb") as file:
        found: dict[str, Any] = tomllib.load(file)["project"]
    return found


def name(distribution: Distribution) -> str:
    return distribution.name


def required(distribution: Distribution) -> list[str]:
    extras = project(distribution).get("optional-dependencies", {}).values()
    return [*distribution.dependencies, *(one for extra in extras for one in extra)]


def test_all_distributions_are_found() -> None:
    folders = {d.folder.name for d in ALL if d.where.startswith("packages/")}
    assert folders == {path.name for path in (ROOT / "packages").iterdir() if path.is_dir()}
    assert {"kwindex", META} <= {d.name for d in ALL}


def test_all_have_one_version_python_and_license() -> None:
    facts = {(p["version"], p["requires-python"], p["license"]) for p in map(project, ALL)}
    assert len(facts) == 1, facts
    assert next(iter(facts))[1:] == (">=3.11", "BSD-3-Clause")


@pytest.mark.parametrize("distribution", WITH_CODE, ids=name)
def test_names_follow_the_folder(distribution: Distribution) -> None:
    assert distribution.package == distribution.folder.name
    assert distribution.name == distribution.folder.name.replace("_", "-")


@pytest.mark.parametrize("distribution", ALL, ids=name)
def test_siblings_are_pinned_exactly(distribution: Distribution) -> None:
    ours, version = {d.name for d in ALL}, project(distribution)["version"]
    for one in required(distribution):
        sibling = re.match(r"[\w-]+", one)
        assert sibling
        if sibling.group() in ours:
            assert re.fullmatch(rf"[\w-]+(\[\w+\])?=={re.escape(version)}", one)


@pytest.mark.parametrize("distribution", ALL, ids=name)
def test_torch_is_bounded_and_never_pinned(distribution: Distribution) -> None:
    for one in required(distribution):
        if one.startswith("torch"):
            assert one == "torch>=2.11,<2.15"


def test_the_meta_distribution_installs_all_others() -> None:
    (meta,) = [d for d in ALL if d.name == META]
    asked = {re.match(r"[\w-]+", one).group() for one in meta.dependencies}  # type: ignore[union-attr]
    assert asked == {d.name for d in ALL} - {META}


@pytest.mark.parametrize("distribution", WITH_CODE, ids=name)
def test_a_package_is_typed_and_its_version_is_the_distribution_s(distribution: Distribution) -> None:
    door = distribution.folder / "src" / str(distribution.package)
    assert (door / "py.typed").exists()
    said = re.search(r'(?m)^__version__ = "(.+)"$', (door / "__init__.py").read_text(encoding="utf-8"))
    assert said is None or said[1] == project(distribution)["version"]


@pytest.mark.parametrize("distribution", WITH_CODE, ids=name)
def test_entry_points_and_scripts_lead_to_something(distribution: Distribution) -> None:
    facts = project(distribution)
    groups = [facts.get("scripts", {}), *facts.get("entry-points", {}).values()]
    for target in (target for group in groups for target in group.values()):
        module, _, attribute = target.partition(":")
        stem = distribution.folder / "src" / module.replace(".", "/")
        (file,) = [path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.exists()]
        if attribute:
            tree = syntax_tree(file.read_text(encoding="utf-8"))
            assert attribute in {getattr(node, "name", None) for node in tree.body}


@pytest.mark.parametrize("distribution", ALL, ids=name)
def test_a_readme_can_be_read_in_a_minute(distribution: Distribution) -> None:
    text = (distribution.folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {distribution.name}\n")
    assert text.count("\n") <= 45


def test_the_readme_begins_with_the_two_commands_and_ci_runs_one() -> None:
    top = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:10]
    assert any(line.strip().startswith(DEMO_COMMAND) for line in top)
    assert any(line.strip().startswith(TEST_COMMAND) for line in top)
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert TEST_COMMAND in script.read_text(encoding="utf-8")


def test_the_constraints_pin_everything_and_name_no_host() -> None:
    lines = (ROOT / "constraints" / "cpu-2.13.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    assert not [line for line in lines if "://" in line]


def test_the_dev_tools_are_pinned() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        settings = tomllib.load(file)
    assert "project" not in settings, "the root is not a package"
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints" / "cpu-2.13.txt").read_text().splitlines()}
    wanted = {re.split(r"[<>=]", one)[0] for one in settings["dependency-groups"]["dev"]}
    assert wanted <= pinned
