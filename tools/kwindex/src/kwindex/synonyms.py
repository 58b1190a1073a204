"""Other words for the same thing: what people of JAX, MPI and NCCL type, and usual abbreviations."""

from kwindex.spelling import fold

TABLE = (
    (("all_reduce",), ("AR", "psum", "lax.psum", "MPI_Allreduce", "ncclAllReduce", "allreduce")),
    (
        ("all_gather", "all_gather_into_tensor", "all_gather_tensor", "all_gather_single"),
        ("AG", "lax.all_gather", "MPI_Allgather", "ncclAllGather", "_all_gather_base", "allgather"),
    ),
    (
        ("reduce_scatter", "reduce_scatter_tensor", "reduce_scatter_single"),
        ("RS", "psum_scatter", "lax.psum_scatter", "MPI_Reduce_scatter", "ncclReduceScatter"),
    ),
    (
        ("all_to_all", "all_to_all_single"),
        ("a2a", "alltoall", "lax.all_to_all", "MPI_Alltoall", "MPI_Alltoallv"),
    ),
    (("permute_tensor", "permute"), ("ppermute", "lax.ppermute", "collective_permute", "sendrecv")),
    (("broadcast",), ("bcast", "MPI_Bcast", "ncclBroadcast")),
    (("wait_tensor", "wait"), ("sync", "synchronize", "MPI_Wait")),
    (("AsyncCollectiveTensor",), ("ACT", "async tensor")),
    (("functional_collectives", "_c10d_functional"), ("funcol", "ft_c")),
    (("fully_shard",), ("FSDP2", "ZeRO-3", "zero3")),
    (("local_map",), ("shard_map", "xmap")),
    (("DeviceMesh",), ("mesh",)),
    (("Placement", "placement_types", "Shard"), ("PartitionSpec",)),
    (("symm_mem", "SymmetricMemory", "symmetric_memory"), ("nvshmem", "multimem")),
    (("barrier",), ("MPI_Barrier",)),
)
"""Rows of (the names meant, best first) and (what people call them)."""

_MEANT = {fold(word): names for names, words in TABLE for word in words}


def meant_by(query: str) -> tuple[str, ...]:
    """Returns the names that a word of another vocabulary means, best first.

    Example:
        >>> meant_by("psum"), meant_by("A2A"), meant_by("gather")
        (('all_reduce',), ('all_to_all', 'all_to_all_single'), ())
    """
    return _MEANT.get(fold(query), ())
