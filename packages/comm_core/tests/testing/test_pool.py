"""The processes of a pool: reused, replaced, and gone when the pool or the parent is gone."""

import os
import select
import signal
import subprocess
import sys
import textwrap

import pytest

from comm_core.errors import RankFailedError
from comm_core.testing import RankPool, close_shared_pool, run_ranks, shared_pool

LIMIT_S = 60.0

needs_pidfd = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="watches processes through pidfd")


def wait_gone(pidfds, limit=LIMIT_S):
    """Return the descriptors whose process has not ended within the limit."""
    left = set(pidfds)
    while left:
        ended, _, _ = select.select(left, [], [], limit)
        if not ended:
            return left
        left -= set(ended)
    return left


def pid_of(group):
    return os.getpid()


@pytest.fixture(scope="module")
def pool():
    with RankPool() as pool:
        yield pool


def test_processes_are_reused_and_the_pool_grows(pool):
    two = pool.run(pid_of, 2)
    three = pool.run(pid_of, 3)
    assert tuple(three) == pool.pids
    assert three[:2] == two == pool.run(pid_of, 2)
    assert os.getpid() not in three


@needs_pidfd
def test_closing_leaves_neither_process_nor_zombie():
    pool = RankPool()
    pidfds = [os.pidfd_open(pid) for pid in pool.run(pid_of, 3)]
    pids = {*pool.pids, *pool.run(lambda group: os.getppid(), 3)}  # the ranks and what they were forked from
    assert len(pids) == 4
    pool.close()
    assert not wait_gone(pidfds, 0.0)
    for pid in pids:
        with pytest.raises(ProcessLookupError):  # a zombie would still take the signal
            os.kill(pid, 0)
    assert pool.pids == ()
    assert len(pool.run(pid_of, 1)) == 1
    pool.close()


def test_no_descriptor_is_left_open(pool):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counts descriptors in /proc")
    pool.run(pid_of, 1)
    before = len(os.listdir("/proc/self/fd"))
    with RankPool() as other:
        other.run(pid_of, 2)
    assert len(os.listdir("/proc/self/fd")) == before


@needs_pidfd
def test_a_process_that_died_between_runs_is_replaced(pool):
    before = pool.run(pid_of, 2)
    pidfd = os.pidfd_open(before[1])
    os.kill(before[1], signal.SIGKILL)
    assert not wait_gone([pidfd])
    os.close(pidfd)
    after = pool.run(pid_of, 2)
    assert before[0] == after[0]
    assert before[1] != after[1]


@pytest.fixture
def interruptible():
    """Ctrl-C does what it does in a terminal, also where a shell started the tests in the background and ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_ends_its_ranks_and_the_pool_goes_on(pool):
    def body(group, owner):
        import threading

        if group.rank == 0:
            os.kill(owner, signal.SIGINT)
        threading.Event().wait()

    before = pool.run(pid_of, 2)
    with pytest.raises(KeyboardInterrupt):
        pool.run(body, 2, args=(os.getpid(),))
    assert not set(before) & set(pool.run(pid_of, 2))


@needs_pidfd
def test_what_the_ranks_are_forked_from_may_die(pool):
    forker = os.pidfd_open(pool.run(lambda group: os.getppid(), 1)[0])
    before = pool.run(pid_of, 2)
    signal.pidfd_send_signal(forker, signal.SIGKILL)
    assert not wait_gone([forker])
    os.close(forker)
    assert not set(before) & set(pool.run(pid_of, 2))


@needs_pidfd
def test_what_the_ranks_are_forked_from_may_die_during_a_run(pool):
    def body(group):
        import threading

        os.kill(os.getppid(), signal.SIGKILL)
        threading.Event().wait()

    before = pool.run(pid_of, 2)
    with pytest.raises(RankFailedError):
        pool.run(body, 2, timeout=LIMIT_S)
    assert not set(before) & set(pool.run(pid_of, 2))


def test_ranks_have_a_session_of_their_own(pool):
    assert pool.run(lambda group: os.getsid(0) == os.getpid(), 2) == [True, True]


def test_the_shared_pool_starts_again_after_closing():
    run_ranks(pid_of)
    before = shared_pool().pids
    close_shared_pool()
    assert not set(run_ranks(pid_of)) & set(before)


def test_a_forked_child_gets_ranks_of_its_own():
    ours = run_ranks(pid_of)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            theirs = run_ranks(pid_of)
            code = 0 if not set(ours) & set(theirs) else 2
            close_shared_pool()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert run_ranks(pid_of) == ours


PARENT = """
    import os, sys
    from comm_core.testing import run_ranks

    def body(group, path, how):
        with open(path, "a") as told:
            told.write(f"{os.getpid()}\\n")
        if how == "hold":
            import ctypes
            ctypes.PyDLL(None).pause()
        if how == "wait":
            import threading
            threading.Event().wait()

    run_ranks(body, world=2, timeout=300, args=tuple(sys.argv[1:]))
"""


@pytest.fixture
def parent(tmp_path):
    """Start a parent of two ranks; give its process and descriptors of the ranks, which run `how`."""
    script, told = tmp_path / "parent.py", tmp_path / "told"
    script.write_text(textwrap.dedent(PARENT))
    os.mkfifo(told)
    started, pidfds = [], []

    def start(how):
        reading = os.open(told, os.O_RDWR)  # a writer too, so that it never comes to its end
        command = [sys.executable, str(script), str(told), how]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True))
        said = b""
        while said.count(b"\n") < 2:
            assert select.select([reading], [], [], LIMIT_S)[0], "the ranks did not start"
            said += os.read(reading, 100)
        os.close(reading)
        pidfds.extend(os.pidfd_open(int(pid)) for pid in said.split())
        return started[0], pidfds

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for pidfd in pidfds:
        os.close(pidfd)


@needs_pidfd
@pytest.mark.parametrize("how", ["wait", "hold"])
def test_ranks_end_when_their_parent_is_killed(parent, how):
    process, pidfds = parent(how)
    process.kill()
    assert not wait_gone(pidfds)


@needs_pidfd
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_of_the_parent_ends_the_ranks(parent):
    process, pidfds = parent("wait")
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=LIMIT_S)[1]
    assert not wait_gone(pidfds, 0.0)


@needs_pidfd
def test_the_end_of_the_parent_is_the_end_of_the_ranks(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys\nfrom comm_core.testing import run_ranks\n"
        "print(*run_ranks(lambda group: os.getpid(), 3), flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pidfds = [os.pidfd_open(int(pid)) for pid in process.stdout.readline().split()]
        process.communicate(timeout=LIMIT_S)
    assert len(pidfds) == 3
    assert process.returncode == 0
    assert not wait_gone(pidfds)
    for pidfd in pidfds:
        os.close(pidfd)
