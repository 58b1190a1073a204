"""The names of the package: imported when they are asked for, all of them there, and no other."""

import subprocess
import sys

import pytest

import comm_core


def test_every_public_name_is_there_and_listed():
    assert all(getattr(comm_core, name) is not None for name in comm_core.__all__)
    assert set(comm_core.__all__) <= set(dir(comm_core))
    from comm_core import simulate

    assert comm_core.World is simulate.World


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'comm_core' has no attribute 'all_reduce'"):
        comm_core.all_reduce


def test_the_errors_come_without_torch():
    words = [sys.executable, "-c", "import sys, comm_core.errors; print('torch' in sys.modules)"]
    said = subprocess.run(words, capture_output=True, check=True, text=True, timeout=120).stdout
    assert said.split() == ["False"]


def test_compiled_code_finds_a_name_that_nobody_has_asked_for_before():
    program = """
import torch, comm_core
import torch.distributed as dist
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
from comm_core.catalog import CATALOG
entry = CATALOG["all_reduce"]
assert "run" not in vars(comm_core)
double = torch.compile(lambda x: comm_core.run(entry, x, dist.group.WORLD, reduce_op="sum") * 2, fullgraph=True,
                       backend="eager")
print(double(torch.ones(1)).item())
"""
    words = [sys.executable, "-c", program]
    assert subprocess.run(words, capture_output=True, check=True, text=True, timeout=120).stdout.split() == ["2.0"]
