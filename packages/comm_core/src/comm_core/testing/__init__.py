"""Real ranks for tests: functions run on warm processes of this machine, and a pytest fixture that does it.

Importing this package starts no process and imports no torch.
"""

from comm_core.testing.backends import default_backend
from comm_core.testing.failures import RankFailure, RanksFailedError, RanksTimedOutError
from comm_core.testing.pool import RankPool
from comm_core.testing.shared_pool import close_shared_pool, run_ranks, shared_pool

__all__ = [
    "RankFailure",
    "RankPool",
    "RanksFailedError",
    "RanksTimedOutError",
    "close_shared_pool",
    "default_backend",
    "run_ranks",
    "shared_pool",
]
