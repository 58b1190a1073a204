"""The table of methods in docs/do/use_shm_backend.md against torch's process group and ours."""

import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

PAGE = Path(__file__).parents[3] / "docs" / "do" / "use_shm_backend.md"
INTERNAL = {"_pybind11_conduit_v1_", "BackendType"}
TORCHS = "torch's own"
REFUSED = "not offered"

pytestmark = pytest.mark.needs_shm


def rows():
    text = PAGE.read_text().split("## Every method of a process group")[1].split("\n## ")[0]
    found = {}
    for names, how in re.findall(r"^\| (`.*?) \| (.*?) \|$", text, flags=re.M):
        found |= dict.fromkeys(re.findall(r"`(\w+)`", names), how)
    return found


def methods():
    kinds = dist.ProcessGroup.BackendType
    names = [name for name in dir(dist.ProcessGroup) if not name.startswith("__")]
    return {name for name in names if not isinstance(getattr(dist.ProcessGroup, name), kinds)} - INTERNAL


@pytest.mark.skipif(torch.__version__ > "2.14", reason="the page lists the methods of torch 2.13")
def test_the_page_has_a_row_for_every_method_and_no_other():
    unknown = rows().keys() - methods()
    newer = {"all_gather_single", "all_gather_single_coalesced", "all_to_all_single", "reduce_scatter_single"}
    newer |= {"reduce_scatter_single_coalesced", "use_pg_for_symm_mem_rendezvous"}
    assert methods() <= rows().keys()
    assert unknown <= newer  # not in every torch that we support


def test_what_the_page_says_is_ours_is_and_nothing_else():
    from comm_shm.group import SharedMemoryGroup

    for name, how in rows().items():
        ours = getattr(SharedMemoryGroup, name) is not getattr(dist.ProcessGroup, name, None)
        assert ours == (not how.startswith((TORCHS, REFUSED))), name
