"""What a rank reads and writes, counted in the C core: as shared_memory.md and share_buffers_between_ranks.md say."""

import re
import subprocess
from pathlib import Path

import pytest

from packages.comm_shm.tests import core

ROOT = Path(__file__).parents[3]
SLOT = 16384
LITTLE, MUCH = 6144, 6 * 65536  # of both, every rank's part is a whole number of lines; the first goes in one shot


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """Return what each rank of a group read and wrote, by what was called."""
    folder = tmp_path_factory.mktemp("counted")
    counting = ("#include <string.h>\n", f'#include "{core.TESTS / "csrc" / "counted.h"}"\n')
    sources = core.copy(folder, {"collective.c": [counting], "symmetric.c": [counting]})
    program = folder / "bytes_moved"
    files = [core.TESTS / "csrc" / "bytes_moved.c", *(sources / name for name in core.PLAIN)]
    words = [core.compilers()[0], "-std=c11", "-O1", "-pthread", f"-I{sources}", *files, "-o", program]
    subprocess.run(list(map(str, words)), check=True)

    def run(world, size):
        ran = subprocess.run([program, str(world), str(size), str(SLOT)], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        found = {}
        for line in ran.stdout.splitlines():
            what, rank, *moved = line.split()
            found.setdefault(what, {})[int(rank)] = tuple(map(int, moved))
        assert {len(of) for of in found.values()} == {world}
        return found

    return run


def value(formula, size, world):
    """Compute what a cell of a table says, as `2 S + 2 (n - 1) S / n`."""
    product = re.sub(r"(?<=[\dn)]) +(?=[S(])", "*", formula)
    assert re.fullmatch(r"[-+*/ ()\dnS]+", product), formula
    return eval(product, {"__builtins__": {}}, {"S": size, "n": world})


def rows(page, heads):
    """Return what a rank reads and writes, by the first cell, of the table with these heads."""
    lines = (ROOT / "docs" / page).read_text().split(f"{heads}\n")[1].split("\n\n")[0].splitlines()[1:]
    cells = ([cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines)
    return {first: (read, written) for first, read, written, *_ in cells}


def said(formulas, size, world):
    return tuple(value(formula, size, world) for formula in formulas)


@pytest.mark.parametrize("world", [2, 3])
def test_staged_all_reduces_move_what_their_table_says(counted, world):
    table = rows("understand/shared_memory.md", "| what | reads | writes |")
    little, much = (counted(world, size)["all_reduce"] for size in (LITTLE, MUCH))
    assert table.keys() == {"all_reduce in one shot", "all_reduce in two shots", "memcpy of S"}
    assert set(little.values()) == {said(table["all_reduce in one shot"], LITTLE, world)}
    assert set(much.values()) == {said(table["all_reduce in two shots"], MUCH, world)}
    assert table["memcpy of S"] == ("S", "S")


@pytest.mark.parametrize("world", [2, 3])
def test_collectives_on_shared_buffers_move_what_their_table_says(counted, world):
    table = rows("do/share_buffers_between_ranks.md", "| what | reads | writes | the least there can be |")
    found = counted(world, MUCH)
    of = {
        "one_shot_all_reduce()": "one_shot_all_reduce",
        "two_shot_all_reduce()`, in place": "two_shot_all_reduce",
        "all_gather(out)": "all_gather",
        "reduce_scatter()": "reduce_scatter",
        "staged `dist.all_reduce`, above 12 KiB": "all_reduce",
    }
    for row, what in of.items():
        assert set(found[what].values()) == {said(table.pop(row), MUCH, world)}, row
    assert table == {"all_gather()": ("0", "0")}  # which calls nothing: the result is a view
