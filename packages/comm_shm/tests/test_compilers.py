"""The C sources with every compiler of this machine, warnings being errors, also for another processor."""

import shutil
import subprocess
import sysconfig

import pytest

from packages.comm_shm.tests import core

QEMU = "qemu-aarch64"
CROSS = "aarch64-linux-gnu-gcc"


@pytest.mark.skipif(not core.compilers(), reason="there is no C compiler")
def test_every_compiler_takes_the_sources_without_a_warning(tmp_path):
    python = f"-I{sysconfig.get_path('include')}"
    for compiler in core.compilers():
        files = core.PLAIN if compiler == CROSS else [file.name for file in core.CSRC.glob("*.c")]
        for name in files:
            words = [compiler, *core.STRICT, "-O1", python, "-DPy_LIMITED_API=0x030B0000", "-c", core.CSRC / name]
            done = subprocess.run([*map(str, words), "-o", tmp_path / "out.o"], capture_output=True, text=True)
            assert done.returncode == 0, f"{compiler} {name}: {done.stderr[:2000]}"


@pytest.mark.skipif(not (shutil.which(CROSS) and shutil.which(QEMU)), reason=f"needs {CROSS} and {QEMU}")
def test_the_collectives_compute_the_same_on_aarch64(tmp_path):
    done = core.build(tmp_path / "ranks", CROSS, core.CSRC, "-static", "-O2")
    assert done.returncode == 0, done.stderr
    for world in (1, 2, 3):
        words = [QEMU, tmp_path / "ranks", world, 4096, 60, world]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
