"""Which rank writes which cache line of the segment: as shared_memory.md, "Slots change hands", says."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from packages.comm_shm.tests import core

PAGE = Path(__file__).parents[3] / "docs" / "understand" / "shared_memory.md"
LINE, SLOT, RING, ENVELOPE = 64, 16384, 256 * 1024, 64
CHANGED = ("collective.c", "pipeline.c", "mail.c")
TOLD = {"collective.c": [("#include <string.h>\n", f'#include "{core.TESTS / "csrc" / "written.h"}"\n')]}
GIVES_BACK = "        atomic_store_explicit(&lane->tail, in->tail, memory_order_release);\n"
SHOWN = {
    "mail.c": [
        ("#define CACHE_LINE 64\n", f"#define CACHE_LINE {LINE}\nvoid gives_room(const shm_mail *, int, uint64_t);\n"),
        (GIVES_BACK, f"        gives_room(mail, source, in->tail);\n{GIVES_BACK}"),
        ("*(volatile unsigned char *)(at + i) = 0;", "*(volatile unsigned char *)(at + i) ^= 0xff;"),
    ]
}
WORLDS = (2, 3)
STAGED = ("all_gather", "all_reduce", "all_to_all", "broadcast", "reduce_scatter")
LITTLE, LARGE = 4096, 6 * 65536  # of an all_reduce
MESSAGES = (3000, 1, 0, 63, 64, 65, 40_000, RING - 3 * LINE, 1000, 700_001, 2 * RING, 7)


class Write(NamedTuple):
    """What one rank wrote into one slot."""

    step: int
    rank: int
    owner: int
    slot: int
    offset: int
    bytes: int

    def lines(self):
        end = self.offset + self.bytes
        return {(self.owner, self.slot, at) for at in range(self.offset // LINE, -(-end // LINE))}


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Return a function that builds a program with the C core, with pieces of text of it replaced."""
    compiler = core.compilers()[:1]
    if not compiler:
        pytest.skip("there is no C compiler")
    words = [*compiler, "-std=c11", "-pthread"]
    objects = tmp_path_factory.mktemp("unchanged")
    unchanged = [core.CSRC / name for name in core.PLAIN if name not in CHANGED]
    subprocess.run([*words, "-c", *map(str, unchanged)], check=True, cwd=objects)

    def built(main, *changes):
        folder = tmp_path_factory.mktemp("changed")
        names = {name for one in changes for name in one}
        sources = core.copy(folder, {name: [pair for one in changes for pair in one.get(name, [])] for name in names})
        files = [core.TESTS / "csrc" / main, *(sources / name for name in CHANGED), *sorted(objects.glob("*.o"))]
        subprocess.run([*words, f"-I{sources}", *map(str, files), "-o", str(folder / "program")], check=True)
        return folder / "program"

    return built


def lines_of(program, *words):
    ran = subprocess.run([program, *map(str, words)], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    return ran.stdout.splitlines()


def writes(program, collective, world, size, calls):
    """Return what ranks put into slots, and the results that they wrote there for others."""
    found = {"put": [], "result": []}
    for line in lines_of(program, collective, world, size, SLOT, calls):
        what, *numbers = line.split()
        found[what].append(Write(*map(int, numbers)))
    steps = {(one.rank, one.step) for one in found["put"]}
    assert len(steps) >= 12 * (1 if collective == "broadcast" else world)
    assert all(one.slot == one.step % 4 for one in found["put"] + found["result"])
    return sorted(found["put"]), sorted(found["result"])


def owner_on_the_page(rank, step, world):
    page = " ".join(PAGE.read_text().split())
    (formula,) = re.findall(r"of the slots s mod 4 of all ranks, rank r has that of rank (\(r [^.]* n)\.", page)
    return eval(formula.replace("div", "//").replace("mod", "%"), {"r": rank, "s": step, "n": world})


def kept_lines(found):
    """Return the lines that a rank wrote which was also the last one to write them, and all lines."""
    last, kept = {}, set()
    for one in found:
        for line in one.lines():
            if last.get(line) == one.rank:
                kept.add(line)
            last[line] = one.rank
    return kept, last.keys()


def check_staged(program, collective, world):
    many, no_results = writes(program, collective, world, 12_000 if collective == "all_reduce" else 50_000, 13)
    assert no_results == []
    assert {one.step % 4 for one in many} == set(range(4))
    assert [one.owner for one in many] == [owner_on_the_page(one.rank, one.step, world) for one in many]
    if collective == "broadcast":
        assert {one.rank for one in many} == {0}
    else:
        kept, every = kept_lines(writes(program, collective, world, LITTLE, 13)[0])
        assert kept == set()
        assert len(every) >= 4 * world * LITTLE // LINE


def check_large_all_reduce(program, world):
    put, results = writes(program, "all_reduce", world, LARGE, 2)
    assert all(one.owner == one.rank for one in put)
    for_the_owner = {(one.step, one.owner, one.offset) for one in put}
    assert {one.rank for one in results} == set(range(world))
    assert all(one.owner == (one.rank + 1) % world for one in results)
    assert all((one.step, one.owner, one.offset) in for_the_owner for one in results)
    kept, every = kept_lines(sorted(put + results, key=lambda one: (one.step, one in results)))
    with_results = {line for one in results for line in one.lines()}
    assert not kept & with_results
    assert len(with_results) * (world - 1) == len(every)


@pytest.fixture(scope="module")
def slots_written(build):
    return build("slots_written.c", TOLD)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("collective", STAGED)
def test_slots_change_hands(slots_written, collective, world):
    check_staged(slots_written, collective, world)


@pytest.mark.parametrize("world", WORLDS)
def test_a_large_all_reduce_writes_results_where_it_has_read(slots_written, world):
    check_large_all_reduce(slots_written, world)


@pytest.mark.parametrize(
    ("old", "new", "caught"),
    [
        ("step / SHM_SLOTS : 0;", "0 * step : 0;", (check_staged, "all_gather")),
        ("step / SHM_SLOTS : 0;", "step : 0;", (check_staged, "all_to_all")),
        ("course->changes_hands ?", "1 ?", (check_large_all_reduce,)),
    ],
    ids=["slots are kept", "slots change at each step", "slots of reductions for others change hands, too"],
)
def test_slots_in_other_hands_are_found_out(build, old, new, caught):
    program = build("slots_written.c", TOLD, {"collective.c": [(old, new)]})
    check, *words = caught
    with pytest.raises(AssertionError):
        check(program, *words, 3)


def check_ring(program):
    """Compare what the receiver wrote each time that it gave room back with the messages whose room that was."""
    starts, end, given = [], 0, 0
    for size in MESSAGES:
        starts.append(end + ENVELOPE)
        end += ENVELOPE + -(-size // LINE) * LINE
    envelopes = {(start - ENVELOPE) // LINE for start in starts}
    messages = zip(starts, MESSAGES, strict=True)
    payload = {at // LINE for start, size in messages for at in range(start, start + size, LINE)}
    *pieces, received = lines_of(program, *MESSAGES)
    for line in pieces:
        numbers, places = line.split(":")
        before, then, elsewhere = map(int, numbers.split())
        assert (before, elsewhere) == (given, 0)
        room = range(before // LINE, -(-then // LINE))
        expected = [at % (RING // LINE) for at in room if at in payload]
        verdicts = {at % (RING // LINE) for at in room if at in envelopes}
        found = [at // LINE for at in map(int, places.split()) if at // LINE not in verdicts]
        assert found == sorted(expected)
        given = then
    assert given == end > 3 * RING
    assert int(received) == len(MESSAGES)


def test_the_receiver_writes_a_byte_into_each_line_of_a_message_before_it_gives_the_room_back(build):
    check_ring(build("ring_lines.c", SHOWN))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("i < bytes; i += CACHE_LINE", "i < 0 * bytes; i += CACHE_LINE"),
        ("i += CACHE_LINE", "i += 2 * CACHE_LINE"),
        ("i < bytes; i += CACHE_LINE", "i < bytes + CACHE_LINE; i += CACHE_LINE"),
        ("    take_over(ring, bytes - part);\n", ""),
    ],
    ids=["no line", "every other line", "one line more", "no line behind the end of the ring"],
)
def test_a_receiver_that_writes_other_lines_is_found_out(build, old, new):
    program = build("ring_lines.c", SHOWN, {"mail.c": [(old, new)]})
    with pytest.raises(AssertionError):
        check_ring(program)
