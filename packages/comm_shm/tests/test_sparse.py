"""all_reduce of sparse tensors: as over gloo where gloo is right, and against its definition."""

import pytest
import torch
import torch.distributed as dist

from comm_core.errors import MismatchError, ReduceOpError, TransportError
from comm_core.testing import run_ranks

pytestmark = [pytest.mark.needs_shm, pytest.mark.world(1, 2, 3, backend="shm")]

BY_GLOO = [torch.float32, torch.float64, torch.int64, torch.int32, torch.int8, torch.uint8]
SUMMED = [*BY_GLOO, torch.float16, torch.bfloat16, torch.int16, torch.bool, torch.complex64, torch.complex128]
SHAPES = {
    "matrix": (2, (6, 5)),
    "rows": (1, (9, 4)),
    "one dim": (1, (7,)),
    "a number": (0, ()),
    "three": (2, (3, 4, 2)),
}


def drawn(rank, dtype, shape=(9, 4), sparse=1):
    """Uneven numbers of elements, some of them given twice, and none on rank 1."""
    generator = torch.Generator().manual_seed(rank)
    nnz = 0 if rank == 1 else 1 + 3 * rank if sparse else 1
    rows = [torch.randint(0, size, (nnz,), generator=generator) for size in shape[:sparse]]
    indices = torch.stack(rows) if rows else torch.zeros((0, nnz), dtype=torch.int64)
    values = torch.randint(-9, 9, (nnz, *shape[sparse:]), generator=generator)
    values = values != 0 if dtype is torch.bool else values.to(dtype)
    if dtype.is_floating_point:
        values = values / 3
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=True)


def summed(world, dtype, shape=(9, 4), sparse=1):
    """The definition, dense: added in rank order, 16-bit floats in f32."""
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    total = torch.zeros(shape, dtype=wide)
    for rank in range(world):
        part = drawn(rank, dtype, shape, sparse).coalesce()
        dense = torch.zeros(shape, dtype=wide)
        dense[tuple(part.indices())] = part.values().to(wide)
        total = total | dense if dtype is torch.bool else total + dense
    return total.to(dtype)


def seen(x):
    values = x.values()
    return x.is_coalesced(), x.indices().tolist(), values.tolist(), str(values.dtype), tuple(x.shape)


@pytest.mark.parametrize("shape", list(SHAPES))
def test_it_is_what_gloo_gives(shape):
    sparse, sizes = SHAPES[shape]

    def body(group):
        answers = []
        for dtype in BY_GLOO:
            for later in (False, True):
                x = drawn(group.rank, dtype, sizes, sparse)
                work = dist.all_reduce(x, async_op=later)
                if later:
                    work.wait()
                    assert work.result()[0].layout is torch.sparse_coo
                answers.append(seen(x))
        return answers

    for world in (1, 2, 3):
        assert run_ranks(body, world, "shm") == run_ranks(body, world, "gloo")


def test_every_dtype_that_has_a_sum_is_its_definition_on_every_rank(world):
    def body(group):
        wrong = []
        for dtype in SUMMED:
            x = drawn(group.rank, dtype)
            dist.group.WORLD.allreduce([x]).wait()  # dist.all_reduce hands on a real copy of a complex sparse tensor
            dense = torch.zeros(x.shape, dtype=dtype)
            dense[tuple(x.indices())] = x.values()
            if not torch.equal(dense, summed(group.world, dtype)):
                wrong.append(str(dtype))
        return wrong

    assert world.run(body) == [[]] * world.size


def test_started_ones_keep_their_place_among_other_calls(world):
    def body(group):
        sums, works = [], []
        for step in range(5):
            x, y = drawn(group.rank, torch.float32), torch.full((3,), float(step))
            works += [dist.all_reduce(x, async_op=True), dist.all_reduce(y, async_op=True)]
            sums.append((x, y))
        other = torch.ones(2)
        dist.all_reduce(other)  # runs all of them first
        done = [work.is_completed() for work in works]
        futures = [
            work.get_future().wait()[0].layout is x.layout for work, (x, _) in zip(works[::2], sums, strict=True)
        ]
        return [seen(x) for x, _ in sums], [y.tolist() for _, y in sums], other.tolist(), done, futures

    for sparse, dense, other, done, futures in world.run(body):
        total = summed(world.size, torch.float32)
        assert all(torch.tensor(values).equal(total[indices[0]]) for _, indices, values, *_ in sparse)
        assert dense == [[float(step * world.size)] * 3 for step in range(5)]
        assert other == [float(world.size)] * 2
        assert done == [True] * 10
        assert futures == [True] * 5


def told(call):
    try:
        call()
    except Exception as error:
        return type(error), str(error)
    return None, ""


@pytest.mark.world(2, 3, backend="shm")
def test_ranks_that_differ_are_told_and_the_group_goes_on(world):
    def body(group):
        last = group.rank == group.world - 1
        answers = [
            told(lambda: dist.all_reduce(drawn(group.rank, torch.float32, (9, 4 if last else 5)))),
            told(lambda: dist.all_reduce(drawn(group.rank, torch.float32, (8, 3) if last else (3, 8)))),
            told(lambda: dist.all_reduce(drawn(group.rank, torch.float64 if last else torch.float32))),
            told(lambda: dist.all_reduce(torch.ones(9, 4) if last else drawn(group.rank, torch.float32))),
        ]
        x = drawn(group.rank, torch.float32)
        dist.all_reduce(x)
        return answers, seen(x)[0]

    for answers, after in world.run(body):
        assert [kind for kind, _ in answers] == [MismatchError] * 4
        size, layout, dtype, dense = (said for _, said in answers)
        assert "sparse all_reduce of 45 float32" in size
        assert "sparse all_reduce of 36 float32" in size
        assert layout.count("sparse all_reduce of 24 float32 in layout") == 2
        assert "sparse all_reduce of 36 float64" in dtype
        assert "all_reduce(sum) of 36 float32" in dense
        assert after is True


def test_only_sums_of_coo_tensors_are_there(world):
    def body(group):
        answers = [
            told(lambda op=op: dist.all_reduce(drawn(group.rank, torch.float32), op))
            for op in (dist.ReduceOp.AVG, dist.ReduceOp.MAX, dist._make_nccl_premul_sum(2.0))
        ]
        rows = torch.sparse_coo_tensor(torch.zeros((1, 1), dtype=torch.int64), torch.ones(1).to(torch.uint16), (3,))
        answers.append(told(lambda: dist.all_reduce(rows)))
        csr = torch.eye(3).to_sparse_csr()
        return answers, [told(lambda: dist.all_reduce(csr)), told(lambda: dist.broadcast(csr.to_sparse_coo(), 0))]

    for ops, layouts in world.run(body):
        assert [kind for kind, _ in ops] == [ReduceOpError] * 4
        assert [said.split(";")[0].split("got ")[1] for _, said in ops] == [
            *(f"reduce op '{op}' for sparse tensors of torch.float32" for op in ("avg", "max", "premul_sum")),
            "reduce op 'sum' for sparse tensors of torch.uint16",
        ]
        assert [kind for kind, _ in layouts] == [TransportError] * 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.world(3, backend="shm")
def test_a_rank_without_room_for_what_the_others_have_tells_them(world):
    def body(group):
        from comm_shm.sparse import SparseSum

        def full(_self, _rank):
            raise MemoryError("none left")

        part, SparseSum._part = SparseSum._part, full if group.rank == 2 else SparseSum._part
        said = told(lambda: dist.all_reduce(drawn(group.rank, torch.float32)))
        SparseSum._part = part
        x = drawn(group.rank, torch.float32)
        dist.all_reduce(x)
        return said, seen(x)[0]

    for (kind, said), after in world.run(body):
        assert kind is MismatchError
        assert "rank 2: sparse all_reduce (refused: no room for what the others have)" in said
        assert after is True


def test_ddp_trains_an_embedding_with_sparse_gradients_as_over_gloo():
    def body(group):
        torch.manual_seed(0)
        table = torch.nn.Embedding(50, 8, sparse=True)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(table, torch.nn.Linear(8, 1)))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for step in range(4):
            words = torch.randint(0, 50, (3 + group.rank, 2), generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(words).square().sum().backward()
            assert table.weight.grad.is_sparse
            optimizer.step()
        return [p.tolist() for p in model.parameters()]

    for world in (1, 2):
        assert run_ranks(body, world, "shm") == run_ranks(body, world, "gloo")
