"""A rank of our transport: the C core's own all_reduce, called from Python as mpi4py calls MPI's."""

import sys

import torch
import torch.distributed as dist
from _taking_turns import Prepared, serve

MAX = 4  # shm_reduce_op in shm.h; 0 is float32


def main(folder: str, rank: int, world: int) -> None:
    """Join the group and serve."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", world)
    dist.init_process_group("shm", store=store, rank=rank, world_size=world)
    group = dist.group.WORLD
    from comm_shm import _native

    handle = group._handle  # type: ignore[union-attr]

    def prepare(size: int) -> Prepared:
        x = torch.ones(size // 4)
        return {"in place": lambda x=x: _native.all_reduce(handle, x.data_ptr(), x.numel(), 0, MAX, 60.0)}

    serve(folder, f"shm.{rank}", prepare, group.barrier)  # type: ignore[union-attr]
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
