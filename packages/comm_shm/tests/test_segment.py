"""The anonymous file behind a group."""

import os
from dataclasses import replace

import pytest

from comm_core.errors import TransportError
from comm_shm import rendezvous

pytestmark = pytest.mark.needs_shm


@pytest.fixture
def segment():
    from comm_shm import segment

    return segment


def test_a_segment_has_no_name_and_cannot_shrink(segment):
    memfd, name = segment.create(2)
    try:
        assert os.readlink(f"/proc/self/fd/{memfd}") == f"/memfd:{name} (deleted)"
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(memfd, 0)
        card = rendezvous.own_card(None, memfd, name)
        again = segment.fetch(card)
        assert os.fstat(again).st_ino == os.fstat(memfd).st_ino
        os.close(again)
    finally:
        os.close(memfd)


def test_something_else_under_that_number_is_refused(segment):
    reader, writer = os.pipe()
    with pytest.raises(TransportError, match=r"need the segment comm_shm-0.*rank 0 has given the group up"):
        segment.fetch(rendezvous.own_card(None, writer, "comm_shm-0"))
    os.close(reader)
    os.close(writer)


def test_a_descriptor_that_is_gone_is_refused(segment):
    with pytest.raises(TransportError, match=r"no access to rank 0's segment.*rank 0 has given the group up"):
        segment.fetch(replace(rendezvous.own_card(None, 10**6, "x")))


def test_no_room_is_an_error_with_the_numbers(segment, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        TransportError, match=r"no room for \d+ bytes of shared memory \(3 ranks, each with slots of \d+ bytes\)"
    ):
        segment.create(3)
    assert len(os.listdir("/proc/self/fd")) == before
