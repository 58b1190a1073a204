"""Other words for the same thing: what people of JAX, MPI, NCCL, Horovod and XLA type, and usual abbreviations."""

import re

from kwindex.spelling import fold

TABLE = (
    (
        ("all_reduce",),
        ("AR", "psum", "pmean", "pmax", "pmin", "lax.psum", "MPI_Allreduce", "ncclAllReduce", "allreduce"),
    ),
    (
        ("all_gather", "all_gather_into_tensor", "all_gather_tensor", "all_gather_single"),
        ("AG", "lax.all_gather", "MPI_Allgather", "ncclAllGather", "_all_gather_base", "allgather"),
    ),
    (
        ("reduce_scatter", "reduce_scatter_tensor", "reduce_scatter_single"),
        ("RS", "psum_scatter", "lax.psum_scatter", "MPI_Reduce_scatter", "reduce_scatter_block", "reducescatter"),
    ),
    (
        ("all_to_all", "all_to_all_single"),
        ("a2a", "alltoall", "lax.all_to_all", "MPI_Alltoall", "alltoallv", "alltoallw"),
    ),
    (("permute_tensor", "permute"), ("ppermute", "lax.ppermute", "collective_permute", "sendrecv")),
    (("broadcast",), ("bcast", "pbroadcast")),
    (("all_gather_v",), ("allgatherv",)),
    (("gather",), ("gatherv",)),
    (("scatter",), ("scatterv",)),
    (("wait_tensor", "wait"), ("sync", "synchronize", "MPI_Wait", "waitall")),
    (("init_process_group",), ("MPI_Init", "hvd.init", "distributed.initialize", "comm_init_rank", "comm_init_all")),
    (("destroy_process_group",), ("MPI_Finalize", "hvd.shutdown", "comm_destroy", "comm_free")),
    (("abort", "_abort_process_group"), ("comm_abort",)),
    (("split_group", "new_group"), ("comm_split", "comm_create", "axis_index_groups")),
    (("get_rank", "get_local_rank"), ("comm_rank", "hvd.rank", "axis_index", "process_index")),
    (("get_world_size",), ("comm_size", "hvd.size", "axis_size", "process_count", "device_count")),
    (("_coalescing_manager",), ("group_start", "group_end")),
    (("init_device_mesh",), ("make_mesh", "cart_create")),
    (("distribute_tensor",), ("device_put", "mark_sharding")),
    (("redistribute",), ("with_sharding_constraint",)),
    (("AsyncCollectiveTensor",), ("ACT", "async tensor")),
    (("functional_collectives", "_c10d_functional"), ("funcol", "ft_c")),
    (("fully_shard",), ("FSDP2", "ZeRO-3", "zero3", "FullyShardedDataParallel")),
    (("ColwiseParallel",), ("ColumnParallelLinear",)),
    (("RowwiseParallel",), ("RowParallelLinear",)),
    (("local_map",), ("shard_map", "xmap")),
    (("DeviceMesh",), ("mesh",)),
    (("Placement", "placement_types", "Shard"), ("PartitionSpec",)),
    (("symm_mem", "SymmetricMemory", "symmetric_memory"), ("nvshmem", "multimem")),
)
"""Rows of (the names meant, best first) and (what people call them, in any library)."""

LIBRARY = r"^(?:MPI_|nccl(?=[A-Z])|(?:jax\.)?lax\.|hvd\.|xm\.)([A-Za-z0-9_]{3,})$"
"""What a name of another library begins with; what follows means what it would alone. For JavaScript too."""

_MEANT = {fold(word): names for names, words in TABLE for word in words}


def meant_by(query: str) -> tuple[str, ...]:
    """Returns the names that a word of another vocabulary means, best first.

    Example:
        >>> meant_by("psum"), meant_by("A2A"), meant_by("gather")
        (('all_reduce',), ('all_to_all', 'all_to_all_single'), ())
        >>> meant_by("MPI_Comm_size"), meant_by("xm.all_reduce"), meant_by("lax.pmean")
        (('get_world_size',), ('all_reduce',), ('all_reduce',))
    """
    named = _MEANT.get(fold(query))
    if named is not None:
        return named
    foreign = re.match(LIBRARY, query)
    rest = foreign[1].lower() if foreign else ""
    return _MEANT.get(fold(rest), (rest,)) if rest else ()
