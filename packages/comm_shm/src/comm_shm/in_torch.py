"""What the first shm group of a process changes in torch, and `comm_shm.unregister()` changes back."""

from __future__ import annotations

from typing import Protocol

from comm_shm import ddp_compat, functional_compat, monitored_compat, timeout_compat


class Change(Protocol):
    """Something that is put into torch and taken out; either a second time changes nothing."""

    def install(self) -> None:
        """Put it in."""

    def uninstall(self) -> None:
        """Take it out, and nothing that somebody else has put over it."""


CHANGES: tuple[Change, ...] = (
    ddp_compat.HOOKS,
    functional_compat.KERNELS,
    monitored_compat.BARRIER,
    timeout_compat.SETTER,
)


def install() -> None:
    """Put in what groups over shared memory need."""
    for change in CHANGES:
        change.install()


def uninstall() -> None:
    """Take it out."""
    for change in CHANGES:
        change.uninstall()
