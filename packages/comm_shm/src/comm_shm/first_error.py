"""One error for all ranks of several hosts: the first one that a rank writes into the store."""

from __future__ import annotations

import contextlib
import json
from datetime import timedelta
from typing import TYPE_CHECKING

from comm_core import errors
from comm_core.errors import CommError

if TYPE_CHECKING:
    from comm_shm.torch_compat import Store

KEY = "shm/fault"


def first(store: Store, error: CommError) -> CommError:
    """Write an error into the store, unless one stands there; return the one that stands there then."""
    kind = next(name for name in vars(errors) if getattr(errors, name) is type(error))
    mine = json.dumps([kind, error.where, error.got, error.need, error.hint])
    try:
        return _error(json.loads(store.compare_set(KEY, "", mine)))
    except (RuntimeError, ValueError):  # the store went with the rank that served it
        return _error(json.loads(mine))


def told(store: Store, within: timedelta) -> CommError | None:
    """Return the error that stands in the store, or comes there in time; None if there is none, or no store."""
    with contextlib.suppress(RuntimeError, ValueError):
        store.wait([KEY], within)
        return _error(json.loads(store.get(KEY)))
    return None


def stands(store: Store) -> bool:
    """Return whether an error stands in the store.

    Raises:
        RuntimeError: the store cannot be reached.
    """
    return bool(store.check([KEY]))


def _error(said: list[str]) -> CommError:
    error: CommError = getattr(errors, said[0])(*said[1:])
    return error
