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
