"""The C sources with every compiler of this machine, warnings being errors, also for another processor."""

import platform
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


def levels(compiler, folder):
    """Return the vector units that the reductions are built for, and whether one is chosen when they are loaded."""
    out = folder / "reduce.o"
    words = [compiler, *core.STRICT, "-O2", "-fPIC", "-c", core.CSRC / "reduce.c", "-o", out]
    subprocess.run(list(map(str, words)), check=True, capture_output=True)
    symbols = subprocess.run(["nm", str(out)], check=True, capture_output=True, text=True).stdout.splitlines()
    ours = [line.split()[-2:] for line in symbols if "add_float" in line]
    names = {name.removeprefix("add_float.").split(".")[0] for _, name in ours}
    return names & {"avx512f", "avx2", "default"}, any(kind == "i" for kind, _ in ours)


@pytest.mark.skipif(platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc", reason="is for x86-64, glibc")
@pytest.mark.skipif(not (core.compilers() and shutil.which("nm")), reason="there is no C compiler, or no nm")
def test_every_compiler_builds_the_reductions_for_every_vector_unit(tmp_path):
    for compiler in core.compilers():
        if compiler != CROSS and knows_clones(compiler, tmp_path):
            assert levels(compiler, tmp_path) == ({"avx512f", "avx2", "default"}, True), compiler


def knows_clones(compiler, folder):
    """Whether a compiler has the attribute: gcc has, and clang from 14 on."""
    program = folder / "asked.c"
    program.write_text("#if !__has_attribute(target_clones)\n#error none\n#endif\n")
    return subprocess.run([compiler, "-fsyntax-only", str(program)], capture_output=True).returncode == 0


@pytest.mark.skipif(not core.compilers(), reason="there is no C compiler")
def test_the_collectives_compute_the_same_with_every_compiler(tmp_path):
    for compiler in core.compilers():
        if compiler == CROSS:
            continue
        done = core.build(tmp_path / "ranks", compiler, core.CSRC, "-O3", *core.STRICT[4:])
        assert done.returncode == 0, f"{compiler}: {done.stderr}"
        for world in (1, 2, 3):
            words = [tmp_path / "ranks", world, 4096, 60, world]
            done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, f"{compiler}: {done.stderr}"


@pytest.mark.skipif(not (shutil.which(CROSS) and shutil.which(QEMU)), reason=f"needs {CROSS} and {QEMU}")
def test_the_collectives_compute_the_same_on_aarch64(tmp_path):
    done = core.build(tmp_path / "ranks", CROSS, core.CSRC, "-static", "-O2")
    assert done.returncode == 0, done.stderr
    for world in (1, 2, 3):
        words = [QEMU, tmp_path / "ranks", world, 4096, 60, world]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
