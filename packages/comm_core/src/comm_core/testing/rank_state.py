"""The state of a rank process that one run must not hand on to the next."""

from __future__ import annotations

import os
import random
import sys

import torch

from comm_core.testing.wire import RunOrder, Surroundings

SEED = 0


def take_over(surroundings: Surroundings, order: RunOrder) -> None:
    """Set environment, import path and working directory to the parent's, and the variables of a launcher."""
    environment = dict(surroundings.environment)
    environment.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    rank, world = str(order.rank), str(order.world)
    environment |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    if environment != dict(os.environ):
        os.environ.clear()
        os.environ.update(environment)
    if sys.path != surroundings.import_path:
        sys.path[:] = surroundings.import_path
    if surroundings.folder is not None:
        os.chdir(surroundings.folder)


def reset(order: RunOrder) -> None:
    """Put back what a function may have changed: seeds, modes, defaults, threads, compiled code, the device."""
    random.seed(SEED)
    torch.manual_seed(SEED)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(SEED)
    torch.set_num_threads(1)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    if torch.are_deterministic_algorithms_enabled():  # the setter imports the compiler, which takes seconds
        torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    if "nccl" in order.backend and torch.cuda.device_count() > 0:
        torch.cuda.set_device(order.rank % torch.cuda.device_count())
