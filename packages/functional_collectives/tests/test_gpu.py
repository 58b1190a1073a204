"""On a CUDA device: NCCL with one rank, and results in flight on a stream."""

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this torch sees no CUDA device"),
]


def _all(group):
    import functional_collectives as fc

    torch.cuda.set_device(0)
    x = torch.arange(12.0, device="cuda").view(4, 3).requires_grad_()
    results = [
        fc.all_reduce(x, "sum"),
        fc.all_gather_tensor(x, 1),
        fc.reduce_scatter_tensor(x, "avg", 0),
        fc.all_to_all_single(x, None, None),
        fc.broadcast(x, 0),
        fc.permute_tensor(x, [0]),
    ]
    kinds = [type(y).__name__ for y in results]
    sum(y.square().sum() for y in results).backward()
    return kinds, [torch.equal(y.detach() + 0, x.detach()) for y in results], torch.equal(x.grad, 12 * x.detach())


@pytest.mark.world(1, backend="nccl")
def test_one_nccl_rank_has_the_identity_and_its_gradient(world):
    ((kinds, equal, grad_equal),) = world.run(_all)
    assert kinds == ["AsyncCollectiveTensor"] * 6
    assert equal == [True] * 6
    assert grad_equal


def _ordered(group):
    """A collective launched on one stream and used on another must have finished there."""
    import functional_collectives as fc

    torch.cuda.set_device(0)
    side = torch.cuda.Stream()
    x = torch.zeros(1 << 24, device="cuda")
    sums = []
    for step in range(5):
        with torch.cuda.stream(side):
            x.fill_(float(step))
            y = fc.all_reduce(x, "sum")
        torch.cuda.current_stream().wait_stream(side)
        sums.append(y.sum().item() / x.numel())
    return sums


@pytest.mark.world(1, backend="nccl")
def test_a_result_used_on_another_stream_is_finished(world):
    assert world.run(_ordered) == [[0.0, 1.0, 2.0, 3.0, 4.0]]


def _every_reduce_op(group):
    """Of one rank a reduction is the input itself, whatever the op and the dtype."""
    import functional_collectives as fc

    torch.cuda.set_device(0)
    wrong = []
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8):
        x = torch.arange(1, 7, device="cuda").to(dtype)
        for op in ("sum", "product", "min", "max", *(("avg",) if dtype.is_floating_point else ())):
            for y in (fc.all_reduce(x, op), fc.reduce_scatter_tensor(x, op, 0)):
                if y.dtype != dtype or not torch.equal(y + 0, x):
                    wrong.append(f"{op} {dtype}")
    return wrong


@pytest.mark.world(1, backend="nccl")
def test_reduce_ops_and_dtypes_on_nccl(world):
    assert world.run(_every_reduce_op) == [[]]


def _compiled(group, backend):
    import torch._dynamo

    import functional_collectives as fc

    torch.cuda.set_device(0)

    def program(x):
        y = fc.all_gather_tensor(fc.all_reduce(x * 2, "avg"), 1)
        return fc.reduce_scatter_tensor(y.sin(), "sum", 0) + fc.permute_tensor(fc.all_to_all_single(y, None, None), [0])

    torch._dynamo.reset()
    pair = []
    for f in (program, torch.compile(program, fullgraph=True, backend=backend)):
        x = torch.arange(24.0, device="cuda").view(6, 4).requires_grad_()
        y = f(x)
        y.square().sum().backward()
        pair.append((y.detach(), x.grad))
    return [torch.allclose(one, other) for one, other in zip(*pair, strict=True)]


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.world(1, backend="nccl", timeout=240.0)
def test_compiled_on_nccl_is_eager_forward_and_backward(world, backend):
    assert world.run(_compiled, backend) == [[True, True]]


def _input_freed(group):
    """The input of a collective in flight may be dropped: its memory is not given to what runs meanwhile."""
    import functional_collectives as fc

    torch.cuda.set_device(0)
    found = []
    for value in range(8):
        x = torch.full((1 << 22,), float(value), device="cuda")
        y = fc.all_gather_tensor(x, 0)
        del x
        noise = [torch.full((1 << 22,), -1.0, device="cuda") for _ in range(4)]
        found.append(bool((y == value).all()) and len(noise) == 4)
    return found


@pytest.mark.world(1, backend="nccl")
def test_the_memory_of_a_dropped_input_stays_until_the_wait(world):
    assert world.run(_input_freed) == [[True] * 8]


def _views_and_uses(group):
    """What waits and what does not is the same on a stream: views do not, and each use does."""
    import functional_collectives as fc

    torch.cuda.set_device(0)
    y = fc.all_reduce(torch.arange(6.0, device="cuda"), "sum")
    view = y.view(2, 3).t()
    before = type(view).__name__, len(fc.inflight())
    values = view.tolist()
    z = fc.all_reduce(torch.ones(2, device="cuda"), "sum")
    return before, values, z.cpu().tolist(), z.sum().item(), (z + y[:2]).device.type, len(fc.inflight())


@pytest.mark.world(1, backend="nccl")
def test_views_do_not_wait_and_uses_do(world):
    ((before, values, copied, total, device, left),) = world.run(_views_and_uses)
    assert before == ("AsyncCollectiveTensor", 1)
    assert values == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    assert (copied, total, device, left) == ([1.0, 1.0], 2.0, "cuda", 0)


def _waited_for_on_the_using_stream(group):
    """A wait orders the stream on which it happens, and the host runs on."""
    import functional_collectives as fc

    torch.cuda.set_device(0)
    side = torch.cuda.Stream()
    x = torch.ones(1 << 24, device="cuda")
    y = fc.all_reduce(x, "sum")
    with torch.cuda.stream(side):
        total = fc.wait_tensor(y).sum()
        done = torch.cuda.Event()
        done.record()
    done.synchronize()
    return total.item() / x.numel()


@pytest.mark.world(1, backend="nccl")
def test_a_wait_orders_the_stream_it_happens_on(world):
    assert world.run(_waited_for_on_the_using_stream) == [1.0]


def _backward_on_a_stream(group):
    import functional_collectives as fc

    torch.cuda.set_device(0)
    side = torch.cuda.Stream()
    x = torch.arange(1.0, 5.0, device="cuda", requires_grad=True)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        loss = (fc.all_reduce(x * 3, "sum") * fc.broadcast(x, 0)).sum()
    torch.cuda.current_stream().wait_stream(side)
    loss.backward()
    return x.grad.tolist()


@pytest.mark.world(1, backend="nccl")
def test_backward_runs_where_forward_ran(world):
    assert world.run(_backward_on_a_stream) == [[6.0, 12.0, 18.0, 24.0]]
