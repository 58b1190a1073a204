"""Registration by import, by torch's entry point, and its undoing; each in an interpreter of its own."""

import os
import subprocess
import sys

import pytest


def run_python(program, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.needs_shm
def test_importing_torch_is_enough():
    program = """
import torch
import torch.distributed as dist
dist.init_process_group("shm", store=dist.HashStore(), rank=0, world_size=1)
x = torch.ones(2); dist.all_reduce(x); print(x.tolist(), dist.get_backend())
"""
    assert run_python(program) == ["[1.0,", "1.0]", "shm"]


def test_importing_torch_loads_no_more_than_the_registration():
    program = """
import sys, torch
print(sorted(name for name in sys.modules if name.startswith(("comm_shm", "comm_core"))))
"""
    loaded = "".join(run_python(program))
    assert loaded == "['comm_shm','comm_shm.availability','comm_shm.registration']"


@pytest.mark.parametrize(
    ("first", "autoload"), [("torch", "1"), ("comm_shm", "1"), ("comm_shm", "0"), ("comm_core", "1")]
)
def test_import_registers_in_any_order_and_unregister_undoes_it(first, autoload):
    program = f"""
import {first}
import comm_shm, torch.distributed as dist
comm_shm.register()
print(dist.Backend.backend_list.count("shm"), dist.Backend("shm"))
comm_shm.unregister(); comm_shm.unregister()
print("shm" in dist.Backend.backend_list, hasattr(dist.Backend, "SHM"))
comm_shm.register()
print("shm" in dist.Backend.backend_list)
"""
    assert run_python(program, TORCH_DEVICE_BACKEND_AUTOLOAD=autoload) == ["1", "shm", "False", "False", "True"]


def test_autoload_never_breaks_the_import_of_torch():
    program = """
import warnings
import comm_shm.registration as registration
def fail(): raise RuntimeError("no")
registration.register = fail
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    registration.autoload()
print(len(caught))
"""
    assert run_python(program) == ["1"]


@pytest.mark.needs_shm
def test_kernels_for_functional_ops_come_with_the_first_group_and_go_with_unregister():
    program = """
import sys, torch, comm_shm, torch.distributed as dist
def there():
    return torch._C._dispatch_has_kernel_for_dispatch_key("_c10d_functional::all_gather_into_tensor", "CPU")
x = torch.ones(2)
before = there()
dist.init_process_group("shm", store=dist.HashStore(), rank=0, world_size=1)
during = there()
alone = "torch.distributed._functional_collectives" not in sys.modules
ops = torch.ops._c10d_functional
print(ops.wait_tensor(ops.all_gather_into_tensor(x, 1, dist.group.WORLD.group_name)).tolist())
comm_shm.unregister()
print(before, during, there(), alone)
"""
    assert run_python(program) == ["[1.0,", "1.0]", "False", "True", "False", "True"]
