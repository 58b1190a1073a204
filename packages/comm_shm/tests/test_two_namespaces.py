"""Two hosts as the kernel makes them: network and pid namespaces with a cable between, each with ranks of its own.

What docs/do/several_hosts.md says of bytes is read off the interfaces here.
It needs to be root and to be allowed to make namespaces; where it is not, it says why and is skipped.
"""

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs_shm

LIMIT_S = 90

RANK = r"""
import json, os, sys
from datetime import timedelta
import torch, torch.distributed as dist

rank, world, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
store = dist.TCPStore(address, 29511, world, is_master=rank == 0, timeout=timedelta(seconds=60))
dist.init_process_group("shm", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
group = dist.group.WORLD
x = torch.arange(1000.0) + rank
dist.all_reduce(x)
parts = [torch.empty(3) for _ in range(world)]
dist.all_gather(parts, torch.full((3,), float(rank)))
mine = torch.empty(2)
dist.reduce_scatter_tensor(mine, torch.arange(2.0 * world))
swapped = torch.empty(world)
dist.all_to_all_single(swapped, torch.arange(float(world)) + 10 * rank)
got = torch.empty(4)
work = dist.isend(torch.full((4,), float(rank)), (rank + 1) % world)
dist.recv(got, (rank - 1) % world)
work.wait()


def sent(call, interface="cs"):  # bytes that this host has sent, for each MiB
    dist.barrier()
    before = counted(interface)
    call()
    dist.barrier()
    return round((counted(interface) - before) / 2**20, 1)


def counted(interface):
    with open("/proc/net/dev") as file:
        return sum(int(line.split()[9]) for line in file if line.strip().startswith(interface))


def told_near():  # the first rank of each host sends to the second one
    first, second, *_ = next(ranks for ranks in group.hosts.members if rank in ranks)
    if rank == first:
        dist.send(one, second)
    if rank == second:
        dist.recv(one, first)


MiB = 2**18
one, all = torch.zeros(MiB), torch.zeros(MiB * world)
traffic = [
    sent(lambda: dist.all_reduce(one)),
    sent(lambda: dist.broadcast(one, 0)),
    sent(lambda: dist.all_gather_into_tensor(all, one)),
    sent(lambda: dist.reduce_scatter_tensor(one, all)),
    sent(lambda: dist.all_to_all_single(all, all.clone())),
]
near = [sent(told_near), sent(told_near, "lo:")]
dist.barrier()
os.write(1, b"\n" + json.dumps({
    "rank": rank, "traffic": traffic, "near": near, "sum": x[:2].tolist(),
    "hosts": [list(ranks) for ranks in group.hosts.members],
    "gathered": [part[0].item() for part in parts], "mine": mine.tolist(), "swapped": swapped.tolist(),
    "got": got.tolist(),
}).encode() + b"\n")
dist.barrier()
dist.destroy_process_group()
"""

DYING = r"""
import json, os, signal, sys, time
from datetime import timedelta
import torch.distributed as dist
from comm_shm import spanning_group

rank, world, address, dies = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], DIES


def end(*given):
    os.write(1, b"\n" + json.dumps({"rank": rank, "at": time.monotonic()}).encode() + b"\n")
    os.kill(os.getpid(), signal.SIGKILL)


if rank == dies:
    spanning_group.gloo_group = end
store = dist.TCPStore(address, 29511, world, is_master=rank == 0, timeout=timedelta(seconds=60))
try:
    dist.init_process_group("shm", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
except Exception as error:
    said = {"rank": rank, "at": time.monotonic(), "kind": type(error).__name__, "said": str(error)}
    os.write(1, b"\n" + json.dumps(said).encode() + b"\n")
"""

HOST = """
import os, sys, torch, torch.distributed
body, children = sys.argv[3], []
for rank in sys.argv[4:]:
    child = os.fork()
    if child == 0:
        sys.argv[1:] = [rank, sys.argv[1], sys.argv[2]]
        exec(compile(body, "rank", "exec"), {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)
    children.append(child)
sys.exit(max(os.waitpid(child, 0)[1] for child in children) != 0)
"""


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return "" if done.returncode == 0 else f"{' '.join(command)}: {done.stderr.strip() or done.returncode}"


@pytest.fixture
def cable():
    """Two network namespaces with a cable between: their names, the interface in each, and the first one's address."""
    missing = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root and {missing or 'ip, unshare'}")
    here = os.getpid() % 60000
    names = [f"commshm{here}a", f"commshm{here}b"]
    ends = [f"cs{here}a", f"cs{here}b"]
    net = f"10.{200 + here % 50}.{here // 50 % 250}"
    with ExitStack() as stack:
        for name in names:
            stack.callback(run, "ip", "netns", "del", name)
            failed = run("ip", "netns", "add", name)
            if failed:
                pytest.skip(f"may not make network namespaces: {failed}")
        link = ("ip", "link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1])
        failed = run(*link, "netns", names[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            failed = failed or run("ip", "-n", name, "addr", "add", f"{net}.{number}/24", "dev", end)
            failed = failed or run("ip", "-n", name, "link", "set", end, "up")
            failed = failed or run("ip", "-n", name, "link", "set", "lo", "up")
        failed = failed or run("ip", "netns", "exec", names[0], "unshare", "--pid", "--fork", "--mount-proc", "true")
        if failed:
            pytest.skip(f"may not connect namespaces: {failed}")
        yield list(zip(names, ends, strict=True)), f"{net}.1"


def run_between(cable, layout, body, tmp_path: Path):
    """Run `body` on ranks of two hosts; return the hosts' exit codes, the answers by rank, and all that was printed."""
    places, address = cable
    world, files, started = len(layout), [], []
    try:
        for letter, (name, end) in zip("ab", places, strict=True):
            ranks = [str(rank) for rank, host in enumerate(layout) if host == letter]
            inside = ["ip", "netns", "exec", name, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
            command = [*inside, sys.executable, "-c", HOST, str(world), address, body, *ranks]
            files.append((tmp_path / f"{letter}.out").open("w+"))
            surroundings = os.environ | {"GLOO_SOCKET_IFNAME": end, "OMP_NUM_THREADS": "1"}
            started.append(subprocess.Popen(command, stdout=files[-1], stderr=subprocess.STDOUT, env=surroundings))
        codes = [process.wait(LIMIT_S) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    printed = ""
    for file in files:
        file.seek(0)
        printed += file.read()
        file.close()
    answers = [json.loads(line) for line in printed.splitlines() if line.startswith('{"rank"')]
    return codes, sorted(answers, key=lambda answer: answer["rank"]), printed


@pytest.mark.parametrize("layout", ["abaab"])
def test_ranks_in_two_namespaces_share_memory_inside_and_use_the_network_between(cable, layout, tmp_path: Path):
    world = len(layout)
    codes, answers, printed = run_between(cable, layout, RANK, tmp_path)
    assert codes == [0, 0], printed
    first = float(sum(range(world)))
    hosts = [[rank for rank, host in enumerate(layout) if host == letter] for letter in "ab"]
    for rank, answer in enumerate(answers):
        assert max(answer.pop("near")) < 0.2  # of messages inside the host, on the cable and on the loopback device
        traffic, near = answer.pop("traffic"), layout.count(layout[rank])
        far = world - near
        least = [1.0, 1.0 if layout[rank] == "a" else 0.0, 1.0 * near, 1.0 * far, 1.0 * near * far]
        assert all(low <= real <= 1.15 * low + 0.2 for low, real in zip(least, traffic, strict=True)), traffic
        assert answer == {
            "rank": rank,
            "hosts": hosts,
            "sum": [first, first + world],
            "gathered": [float(peer) for peer in range(world)],
            "mine": [2.0 * rank * world, (2.0 * rank + 1) * world],
            "swapped": [10.0 * peer + rank for peer in range(world)],
            "got": [float((rank - 1) % world)] * 4,
        }
    assert len(answers) == world


@pytest.mark.parametrize(("layout", "dies"), [("abaab", 0), ("abaab", 1), ("abaab", 2), ("abaab", 4), ("ab", 1)])
def test_who_ends_while_gloo_connects_is_named_in_both_namespaces_within_a_second(cable, layout, dies, tmp_path: Path):
    _, answers, printed = run_between(cable, layout, DYING.replace("DIES", str(dies)), tmp_path)
    assert len(answers) == len(layout), printed
    died = answers.pop(dies)["at"]
    for answer in answers:
        assert answer["kind"] == "RankFailedError", answer
        assert f"rank {dies}, " in answer["said"], answer
        assert answer["at"] - died < 1.0, answer
