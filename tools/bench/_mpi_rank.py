"""A rank of an MPI library, as mpi4py calls it: in place, and from one buffer into another."""

import sys

import numpy
from _taking_turns import Prepared, serve
from mpi4py import MPI


def prepare(size: int) -> Prepared:
    """Return the calls for messages of so many bytes of float32."""
    world = MPI.COMM_WORLD
    x = numpy.ones(size // 4, numpy.float32)
    y = numpy.empty_like(x)
    return {
        "in place": lambda: world.Allreduce(MPI.IN_PLACE, x, MPI.MAX),
        "two buffers": lambda: world.Allreduce(x, y, MPI.MAX),
    }


if __name__ == "__main__":
    serve(sys.argv[1], f"{sys.argv[2]}.{MPI.COMM_WORLD.Get_rank()}", prepare, MPI.COMM_WORLD.Barrier)
