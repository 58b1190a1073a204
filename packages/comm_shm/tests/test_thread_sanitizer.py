"""The flag protocol in the real C code: ThreadSanitizer finds no race, and finds the ones that we put there.

It follows what release and acquire order, not what this processor happens to do, so a store that is too weak for
another processor is found here as well.
"""

import os
import subprocess

import pytest

from packages.comm_shm.tests import core

TSAN = "-fsanitize=thread"
WORLDS = [(1, 4096), (2, 4096), (3, 4096), (4, 65536)]
COLLECTIVES = int(os.environ.get("COMM_SHM_TSAN_COLLECTIVES", "120"))
MUTANTS = {
    "publish relaxed": ("wait.c", "->arrived, step, memory_order_release)", "->arrived, step, memory_order_relaxed)"),
    "wait relaxed": ("wait.c", "->arrived, memory_order_acquire), step)", "->arrived, memory_order_relaxed), step)"),
    "two slots": ("shm.h", "#define SHM_SLOTS 4", "#define SHM_SLOTS 2"),
    "a result is read a step early": ("pipeline.c", "size_t lag = stages->reduce == NULL ? 1 : 2;",
                                      "size_t lag = 1;"),
    "one card": ("shm.h", "cards[step & 1]", "cards[0]"),
    "all data on one card": ("collective.c", "shm_card_of(group, rank, course->first)->data",
                             "shm_card_of(group, rank, 0)->data"),
    "signal relaxed": ("symmetric.c", "->sent, 1, memory_order_release)", "->sent, 1, memory_order_relaxed)"),
    "signal taken relaxed": ("symmetric.c", "->sent, memory_order_acquire)", "->sent, memory_order_relaxed)"),
    "message relaxed": ("mail.c", "out->head, memory_order_release)", "out->head, memory_order_relaxed)"),
    "message read relaxed": ("mail.c", "memory_order_acquire) - in->tail", "memory_order_relaxed) - in->tail"),
    "room relaxed": ("mail.c", "in->tail, memory_order_release)", "in->tail, memory_order_relaxed)"),
    "room read relaxed": ("mail.c", "(&lane->tail, memory_order_acquire)", "(&lane->tail, memory_order_relaxed)"),
}  # fmt: skip


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tsan")
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    why = "there is no C compiler"
    for name in core.compilers():
        words = [name, TSAN, str(folder / "empty.c"), "-o", str(folder / "empty")]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode == 0 and subprocess.run([folder / "empty"], capture_output=True).returncode == 0:
            return name
        why = f"no C compiler here has ThreadSanitizer: {done.stderr.strip()[-200:]}"
    pytest.skip(why)


def program(folder, compiler, changes):
    made = folder / "ranks"
    done = core.build(made, compiler, core.copy(folder, changes), TSAN)
    assert done.returncode == 0, done.stderr
    return made


def ran(made, world, slot_bytes, collectives, seed):
    words = [str(made), str(world), str(slot_bytes), str(collectives), str(seed)]
    options = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1:exitcode=66"}
    return subprocess.run(words, capture_output=True, text=True, env=options, timeout=200)


def test_no_race_between_the_ranks_of_a_group(tmp_path, compiler):
    made = program(tmp_path, compiler, {})
    for seed, (world, slot_bytes) in enumerate(WORLDS):
        done = ran(made, world, slot_bytes, COLLECTIVES, seed)
        assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", list(MUTANTS))
def test_a_weaker_protocol_is_found_out(tmp_path, compiler, name):
    file, old, new = MUTANTS[name]
    made = program(tmp_path, compiler, {file: [(old, new)]})
    found = [ran(made, 2, 4096, COLLECTIVES, seed).returncode for seed in range(3)]
    assert any(code in (3, 4, 66) for code in found), found
