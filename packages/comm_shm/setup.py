"""Builds the C extension; everything else is in pyproject.toml.

The extension is optional: where it cannot be built the package still installs, and `comm_shm.why_not()` says why the
backend is missing.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("csrc")

native = Extension(
    "comm_shm._native",
    sources=sorted(map(str, SOURCES.glob("*.c"))),
    depends=sorted(map(str, SOURCES.glob("*.h"))),
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    extra_compile_args=[
        "-std=c11",
        "-O3",
        "-Wall",
        "-Wextra",
        "-fvisibility=hidden",
        "-ffp-contract=off",  # a fused multiply-add would round differently from one build to another
        "-fno-trapping-math",  # min and max become vector instructions; no result changes
    ],
    py_limited_api=True,
    optional=True,
)

setup(
    ext_modules=[native] if sys.platform == "linux" else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
