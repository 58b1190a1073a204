"""How much memory is left is asked of every control group that this process is in, before the kernel ends somebody."""

import os
from pathlib import Path

import pytest

from comm_core.errors import TransportError
from comm_shm import memory_left, segment

MIB = 1 << 20
V2 = {
    "proc/self/cgroup": "0::/a.slice/b.scope\n",
    "proc/self/mountinfo": "25 1 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
}
V1 = {
    "proc/self/cgroup": "4:cpu,cpuacct:/x\n3:memory:/outside/a/b\n0::/\n",
    "proc/self/mountinfo": "30 1 0:4 / / rw - tmpfs tmpfs rw\n31 1 0:5 / /cg/cpu rw - cgroup cgroup rw,cpu\n"
    "32 1 0:6 /outside /cg/memory rw - cgroup cgroup rw,memory\n",
}


def machine(root, files):
    """Write the files of a machine that has 1000 MiB free."""
    facts = {"proc/meminfo": "MemTotal: 9999999 kB\nMemAvailable:  1024000 kB\nHugePages_Total: 0\n", **files}
    for name, text in facts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def limits(folder, most, used, droppable=0, v1=False):
    """Return the files of a control group, in MiB."""
    limit, current = ("memory.limit_in_bytes", "memory.usage_in_bytes") if v1 else ("memory.max", "memory.current")
    most = most if isinstance(most, str) else most * MIB
    stat = f"anon 1\n{'total_' if v1 else ''}inactive_file {droppable * MIB}\n"
    return {
        f"{folder}/{limit}": f"{most}\n",
        f"{folder}/{current}": f"{used * MIB}\n",
        f"{folder}/memory.stat": stat,
    }


TOP = "sys/fs/cgroup"
MACHINES = {
    "no control groups": ({}, 1000),
    "no limit": ({**V2, **limits(f"{TOP}/a.slice/b.scope", "max", 30)}, 1000),
    "its own": ({**V2, **limits(f"{TOP}/a.slice/b.scope", 300, 100)}, 200),
    "that around it": ({**V2, **limits(f"{TOP}/a.slice/b.scope", 300, 100), **limits(f"{TOP}/a.slice", 90, 80)}, 10),
    "the outermost that is seen": ({**V2, **limits(TOP, 50, 20)}, 30),
    "files that can be dropped": ({**V2, **limits(f"{TOP}/a.slice/b.scope", 300, 290, 250)}, 260),
    "more than the limit": ({**V2, **limits(f"{TOP}/a.slice/b.scope", 300, 310)}, 0),
    "the machine has less": ({**V2, **limits(f"{TOP}/a.slice/b.scope", 5000, 0)}, 1000),
    "version 1, mounted from inside": ({**V1, **limits("cg/memory/a/b", 64, 4, 2, v1=True)}, 62),
    "version 1, not mounted": ({"proc/self/cgroup": "3:memory:/a\n", "proc/self/mountinfo": ""}, 1000),
}


@pytest.mark.parametrize("name", list(MACHINES))
def test_the_poorest_of_the_machine_and_its_control_groups_counts(tmp_path, name):
    files, want = MACHINES[name]
    assert memory_left.room_bytes(machine(tmp_path, files)) == want * MIB


@pytest.mark.needs_shm
def test_a_group_for_which_there_is_no_room_says_the_numbers(monkeypatch):
    monkeypatch.setattr(segment, "room_bytes", lambda: 4711)
    with pytest.raises(TransportError, match=r"no room for \d+ bytes of shared memory .*: 4711 bytes are left"):
        segment.create(2)


def group_to_limit():
    """Return where a control group with a limit for memory can be made here, or why it cannot."""
    folders = list(memory_left._control_groups(Path("/")))
    if os.geteuid() != 0 or not folders:
        return None, "needs root, and control groups for memory"
    folder, kind = folders[0]
    name = "memory.max" if kind == "cgroup2" else "memory.limit_in_bytes"
    made = folder / f"comm_shm_test_{os.getpid()}"
    try:
        made.mkdir()
    except OSError as error:
        return None, f"no control group can be made here: {error}"
    if not (made / name).exists():
        made.rmdir()
        return None, "control groups below this one have no limit for memory"
    return made, name


@pytest.mark.needs_shm
def test_a_real_limit_is_an_error_on_every_rank_and_ends_nobody(fleet):
    made, name = group_to_limit()
    if made is None:
        pytest.skip(name)

    def body(rank, world, store, made, name):
        import os
        from pathlib import Path

        import torch
        import torch.distributed as dist

        from comm_shm import symmetric

        dist.init_process_group("shm", store=store, rank=rank, world_size=world)
        memory = symmetric.memory_of()
        x = memory.empty((10,)).fill_(1.0)
        own = Path("/proc/self/cgroup").read_text()
        if rank == 1:
            (Path(made) / "cgroup.procs").write_text(str(os.getpid()))
            (Path(made) / name).write_text(str(300 << 20))
        dist.barrier()
        try:
            memory.empty((400 << 20,), torch.uint8)
            said = "nothing"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        return said, memory.rendezvous(x).two_shot_all_reduce().tolist(), own

    try:
        answers = fleet.run(body, 2, str(made), name)
    finally:
        made.rmdir()
    for how, (said, after, _) in answers:
        assert how == "returned"
        assert said.startswith("TransportError")
        assert "on rank 1" in said
        assert after == [2.0] * 10


def test_the_room_here_is_some_and_no_more_than_the_machine_has():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory_left.room_bytes() <= total
