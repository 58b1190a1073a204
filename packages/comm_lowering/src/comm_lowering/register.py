"""Turning the lowering on and off: it walks the catalogue, and everything it sets it can put back."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import comm_core
from comm_core import Missing
from comm_core.catalog import CATALOG
from comm_core.errors import ArgumentError
from comm_core.inductor_compat import forget_reads, keep_reads
from comm_lowering.policy import Policy

_LOCK = threading.RLock()


@dataclass(frozen=True, slots=True)
class _Active:
    policy: Policy
    restore: tuple[Callable[[], None], ...]


_active: _Active | None = None


def enable(policy: Policy | None = None) -> None:
    """Take over the lowering of collectives in Inductor, for everything compiled from now on in this process.

    What is already compiled stays as it is (`torch.compiler.reset()` drops it). Calling it again with the same
    policy changes nothing, with another policy replaces the first. Inductor's cache key gets a part of ours, so a
    cached graph is only used where it was lowered the same way.

    Args:
        policy: what to take over and how; `Policy()` where None.

    Raises:
        ArgumentError: `policy` is no `Policy`.
        TransportError: this torch lacks a name that the lowering needs; the message says which.

    Example:
        >>> enable(Policy(in_place="never"))
        >>> enabled().in_place
        'never'
        >>> disable()
        >>> enabled() is None
        True
    """
    policy = Policy() if policy is None else policy
    if not isinstance(policy, Policy):
        raise ArgumentError("enable", got=f"a {type(policy).__name__}", need="a comm_lowering.Policy or None")
    global _active
    from comm_lowering import inductor_compat as compat

    with _LOCK:
        if _active is None or _active.policy != policy:
            disable()
            compat.probe()
            _active = _Active(policy, tuple(_take_over(policy)))
        if not compat.pass_in_config():
            compat.install_pass(cache_key)


def disable() -> None:
    """Give the lowering of collectives back to Inductor: every table and setting is as it was before `enable`.

    Example:
        >>> disable()  # not enabled: nothing happens
    """
    global _active
    with _LOCK:
        if _active is None:
            return
        from comm_lowering import inductor_compat as compat

        for put_back in reversed(_active.restore):
            put_back()
        compat.remove_pass()
        _active = None


@contextmanager
def in_force() -> Iterator[Policy]:
    """Have a policy in force, in this thread: the one that is, else `Policy()` for as long as this lasts."""
    from comm_lowering import inductor_compat as compat

    before, keyed = enabled(), compat.pass_in_config()
    policy = before or Policy()
    enable(policy)
    try:
        yield policy
    finally:
        if before is None:
            disable()
        elif not keyed:
            compat.remove_pass()


def enabled() -> Policy | None:
    """Return the policy in force, or None where the lowering is Inductor's own.

    Example:
        >>> enabled() is None
        True
    """
    return None if _active is None else _active.policy


def cache_key() -> str:
    """Return what compiled code depends on beyond the graph: our version and sources, the policy, and the groups."""
    from comm_lowering import inductor_compat as compat

    policy = enabled()
    if policy is None:
        return "comm_lowering: off"
    return f"comm_lowering {_sources()} | {policy.describe()} | {compat.groups()}"


def _take_over(policy: Policy) -> Iterator[Callable[[], None]]:
    from comm_lowering import inductor_compat as compat
    from comm_lowering.kinds import HANDLERS, Site

    keep_reads("lowering")
    yield partial(forget_reads, "lowering")
    for entry in CATALOG.values():
        handler = HANDLERS[entry.lowering]
        if isinstance(handler, Missing):
            continue
        for name, writes in ((entry.twin, False), (entry.in_place, True)):
            if not isinstance(name, Missing):
                op: Any = compat.functional_op(name)
                yield compat.set_lowering(op, partial(handler, Site(entry, op, policy, writes)))


@cache
def _sources() -> str:
    """Return a hash over the sources of this package and of the core, whose catalogue decides the kinds."""
    digest = hashlib.sha256(comm_core.__version__.encode())
    for package in (Path(__file__).parent, Path(comm_core.__file__).parent):
        for file in sorted(package.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
