"""What shm groups change in torch, where somebody else has changed it, too; each in an interpreter of its own."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.needs_shm

BEGINNING = """
import datetime, functools, torch, comm_shm, torch.distributed as dist
from torch.distributed import distributed_c10d as c10d
from torch.nn.parallel import DistributedDataParallel as DDP
PLACES = [
    (DDP, "_register_builtin_comm_hook"),
    (c10d, "monitored_barrier"),
    (dist, "monitored_barrier"),
    (c10d, "_set_pg_timeout"),
]
def standing():
    return [getattr(owner, name) for owner, name in PLACES]
def begin():
    dist.init_process_group("shm", store=dist.HashStore(), rank=0, world_size=1)
calls = []
def wrap():
    for owner, name in PLACES:
        def wrapper(*args, _inner=getattr(owner, name), _name=name, **named):
            calls.append(_name)
            return _inner(*args, **named)
        setattr(owner, name, wrapper)
torchs = standing()
"""


def run_python(program):
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEGINNING + program], capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


def test_every_place_gets_its_own_back_and_is_taken_again():
    program = """
for _ in range(2):
    begin()
    ours = standing()
    print([one is other for one, other in zip(ours, torchs)] == [False] * 4, ours[1] is ours[2])
    dist.destroy_process_group()
    comm_shm.unregister()
    print(all(one is other for one, other in zip(standing(), torchs)))
    comm_shm.register()
"""
    assert run_python(program) == ["True", "True", "True"] * 2


def test_what_somebody_has_put_over_ours_stays():
    program = """
begin()
wrap()
theirs = standing()
comm_shm.unregister()
comm_shm.unregister()
print(all(one is other for one, other in zip(standing(), theirs)))
"""
    assert run_python(program) == ["True"]


def test_a_wrapper_of_ours_goes_on_working_after_ours_has_been_taken_out():
    program = """
begin()
wrap()
comm_shm.unregister()
gloo = dist.new_group(backend="gloo")
for group in (None, gloo):
    c10d.monitored_barrier(group)
    dist.monitored_barrier(group)
    c10d._set_pg_timeout(datetime.timedelta(seconds=7), group)
    model = DDP(torch.nn.Linear(2, 1), process_group=group)
    model._register_builtin_comm_hook(dist.BuiltinCommHookType.FP16_COMPRESS)
    model(torch.ones(1, 2)).sum().backward()
print(*calls)
"""
    one = ["monitored_barrier", "monitored_barrier", "_set_pg_timeout", "_register_builtin_comm_hook"]
    assert run_python(program) == one * 2


def test_a_wrapper_that_was_there_before_in_one_of_two_places_comes_back_to_it():
    program = """
def theirs(*args, **named):
    return torchs[1](*args, **named)
dist.monitored_barrier = theirs
begin()
dist.monitored_barrier()
comm_shm.unregister()
print(dist.monitored_barrier is theirs, c10d.monitored_barrier is torchs[1])
"""
    assert run_python(program) == ["True", "True"]


def test_a_kernel_that_somebody_has_put_over_ours_stays():
    program = """
begin()
library = torch.library.Library("_c10d_functional", "IMPL")
library.impl("all_gather_into_tensor", lambda x, world, name: x + 41, "CPU", allow_override=True)
comm_shm.unregister()
group = dist.group.WORLD.group_name
print(torch.ops._c10d_functional.all_gather_into_tensor(torch.ones(1), 1, group).item())
"""
    assert run_python(program) == ["42.0"]
