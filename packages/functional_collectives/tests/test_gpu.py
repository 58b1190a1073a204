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
