"""The marker and the fixture, in pytest sessions of their own."""

import subprocess
import sys

import pytest

import comm_core_pytest as plugin

pytest_plugins = ["pytester"]


@pytest.mark.world(1, 3)
def test_the_fixture_runs_and_simulates(world):
    assert world.run(lambda group, x: (group.rank, x), "a") == [(rank, "a") for rank in range(world.size)]
    assert world.simulate(lambda group, x: (group.world, x), 5) == [(world.size, 5)] * world.size


@pytest.mark.world(2, backend="fake", timeout=30.0)
def test_the_marker_gives_backend_and_limit(world):
    assert world == plugin.Ranks(2, "fake", 30.0)
    assert world.run(lambda group: group.backend) == ["fake", "fake"]


def test_without_a_marker_the_sizes_are_one_two_three(pytester):
    pytester.makepyfile("def test_it(world): ...")
    result = pytester.runpytest("--collect-only", "-q")
    result.stdout.fnmatch_lines(["*test_it?world1?", "*test_it?world2?", "*test_it?world3?"])


@pytest.mark.parametrize("how", ["option", "ini"])
def test_tests_that_name_no_backend_run_on_each(pytester, how):
    pytester.makepyfile(
        """
        import pytest
        from comm_core.testing import run_ranks

        def name(group):
            return group.backend

        def test_it(world):
            assert world.run(name) == [world.backend] * world.size

        @pytest.mark.world(1, backend="fake")
        def test_of_one_backend(world):
            assert world.run(name) == ["fake"]

        @pytest.mark.usefixtures("world_backend")
        def test_of_its_own(request):
            assert run_ranks(name, 1) == [request.getfixturevalue("world_backend")]

        def test_by_argument(world_backend):
            assert run_ranks(name, 1) == [world_backend]
        """
    )
    if how == "ini":
        pytester.makeini("[pytest]\nworld_backends = gloo fake\n")
    words = [] if how == "ini" else ["--world-backends=gloo,fake"]
    result = pytester.runpytest("-v", "-p", "no:cacheprovider", *words)
    result.assert_outcomes(passed=11)
    said = result.stdout.str()
    for name in (
        "test_it[world1-gloo]",
        "test_it[world3-fake]",
        "test_of_one_backend[world1]",
        "test_of_its_own[gloo]",
    ):
        assert f"{name} PASSED" in said


def test_without_backends_it_is_the_default_one(pytester, monkeypatch):
    monkeypatch.setenv("COMM_CORE_BACKEND", "fake")
    pytester.makepyfile(
        """
        def test_it(world, world_backend):
            assert world.run(lambda group: group.backend) == ["fake"] * world.size
            assert world_backend == world.backend == "fake"
        """
    )
    result = pytester.runpytest("-v", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=3)
    assert "test_it[world1-default]" in result.stdout.str()


def test_a_backend_that_is_not_there_is_skipped_with_the_reason(pytester, monkeypatch):
    from comm_core.testing import backends

    monkeypatch.setattr(backends, "why_not", lambda backend: "it rains")
    pytester.makepyfile("import pytest\n\n@pytest.mark.world(2, backend='shm')\ndef test_it(world): world.run(print)")
    pytester.runpytest("-rs").stdout.fnmatch_lines(["*no backend 'shm': it rains*", "*1 skipped*"])


def test_a_class_marker_and_another_parameter(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.world(4, 1)
        class TestIt:
            @pytest.mark.parametrize("other", ["a", "b"])
            def test_it(self, world, other): ...

            @pytest.mark.world(2)
            def test_closest(self, world): ...

            @pytest.mark.parametrize("world", [7])
            def test_own(self, world): assert world == 7
        """
    )
    result = pytester.runpytest("--strict-markers", "-v", "-p", "no:cacheprovider")
    lines = [line for line in result.outlines if "PASSED" in line]
    assert len(lines) == 6, result.outlines
    assert sum("world4" in line for line in lines) == 2
    assert sum("world2" in line for line in lines) == 1


@pytest.mark.parametrize("marker", ["0", "'2'", "2, size=3", "True"])
def test_a_wrong_marker_is_an_error_of_collection(pytester, marker):
    pytester.makepyfile(f"import pytest\n\n@pytest.mark.world({marker})\ndef test_it(world): ...")
    result = pytester.runpytest("--collect-only")
    result.stdout.fnmatch_lines(["*pytest.mark.world: got *need sizes of 1 or more*"])
    assert result.ret != 0


def test_nccl_without_devices_is_skipped(pytester):
    pytester.makepyfile("import pytest\n\n@pytest.mark.world(64, backend='nccl')\ndef test_it(world): world.run(print)")
    pytester.runpytest("-rs").stdout.fnmatch_lines(["*NCCL needs a CUDA device per rank: 64*", "*1 skipped*"])


SESSION = """
    import os
    import pytest

    KEPT = {"pids": None}

    def pids(group):
        return os.getpid()

    @pytest.mark.world(2)
    def test_first(world):
        KEPT["pids"] = world.run(pids)

    @pytest.mark.world(2)
    def test_second(world):
        assert world.run(pids) == KEPT["pids"]

    def test_failing(world):
        if world.size == 3:
            world.run(lambda group: 1 // group.rank)
"""


@pytest.mark.parametrize("mode", ["importlib", "prepend"])
def test_a_session_of_a_user(pytester, mode):
    pytester.mkdir("deep")
    pytester.makepyfile(**{"deep/test_theirs": SESSION})
    result = pytester.runpytest_subprocess(f"--import-mode={mode}", timeout=120)
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*rank 0 of 3: got ZeroDivisionError*", "*1 // group.rank*"])


def test_importing_the_plugin_imports_no_torch():
    code = "import sys, comm_core_pytest; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
