"""What a sharded module is besides trainable: memory, dtypes, evaluation, state, errors."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.func import functional_call

from comm_core.errors import ArgumentError, CommError, DtypeError, GroupError, PlacementError
from fsdp_collectives import Policy, full_parameters, report, shard
from fsdp_collectives.engine import sharded
from fsdp_collectives.units import find_units
from fsdp_collectives.visit import Visit
from packages.fsdp_collectives.tests.training import CharModel, batch, build, loss_of


def sharded_model(group, make=CharModel, policy=None):
    return shard(build(make), init_device_mesh("cpu", (group.world,)), policy)


class WatchedLinear(nn.Linear):
    """Notes how much memory the whole weights of all watched layers have whenever one of them runs."""

    weights: ClassVar[weakref.WeakSet] = weakref.WeakSet()

    def forward(self, x):
        storage = self.weight.untyped_storage()
        assert storage.nbytes() == self.in_features * self.out_features * self.weight.element_size()
        type(self).weights.add(storage)
        return super().forward(x)


def live_bytes():
    gc.collect()
    return sum(storage.nbytes() for storage in WatchedLinear.weights)


class Sampled(nn.Module):
    """A chain of watched layers that samples their memory between units, forward and backward."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(WatchedLinear(6, 6, bias=False) for _ in range(4))
        self.forward_bytes, self.backward_bytes = [], []

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
            self.forward_bytes.append(live_bytes())
            if x.requires_grad:
                x.register_hook(lambda _: self.backward_bytes.append(live_bytes()))
        return x


@pytest.mark.world(1, 2, 3)
def test_whole_parameters_are_gone_between_units(world):
    def body(group):
        WatchedLinear.weights.clear()
        model = sharded_model(group, Sampled)
        loss = model(torch.randn(2, 6, dtype=torch.float64)).sum()
        between = live_bytes()
        loss.backward()
        return model.forward_bytes, between, model.backward_bytes, live_bytes()

    one = 6 * 6 * 8
    for forward, between, backward, after in world.run(body):
        assert forward == [0, 0, 0, 0]
        assert between == after == 0
        assert len(backward) == 4
        assert max(backward) <= one  # at most the unit whose backward is starting


@pytest.mark.world(2)
def test_whole_frozen_parameters_are_gone_when_their_unit_is_done(world):
    def body(group):
        WatchedLinear.weights.clear()
        model = sharded_model(group, lambda: Sampled().requires_grad_(False))
        x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
        model(x).sum().backward()
        return model.backward_bytes, live_bytes(), x.grad.shape

    for backward, after, _ in world.run(body):
        assert len(backward) == 4
        assert max(backward) <= 2 * 6 * 6 * 8  # the unit that starts, and the one that is about to end
        assert after == 0


@pytest.mark.world(2)
def test_a_policy_may_keep_them_until_backward(world):
    def body(group):
        WatchedLinear.weights.clear()
        model = sharded_model(group, Sampled, Policy(reshard_after_forward=False))
        loss = model(torch.randn(2, 6, dtype=torch.float64)).sum()
        kept = live_bytes()
        loss.backward()
        return kept, live_bytes(), [unit.gathers for unit in report(model).units]

    assert world.run(body) == [(4 * 6 * 6 * 8, 0, [1, 1, 1, 1])] * 2


@pytest.mark.world(2)
def test_memory_is_gone_when_backward_never_comes(world):
    def body(group):
        WatchedLinear.weights.clear()
        model = sharded_model(group, Sampled, Policy(reshard_after_forward=False))
        for _ in range(3):
            loss = model(torch.randn(2, 6, dtype=torch.float64)).sum()
            del loss
            model.forward_bytes.clear()
        return live_bytes()

    assert world.run(body) == [0, 0]


@pytest.mark.world(2)
def test_nothing_of_a_step_is_left_to_the_garbage_collector(world):
    def body(group):
        visits, original = weakref.WeakSet(), Visit.__init__

        def noting(self, *args, **kwargs):
            original(self, *args, **kwargs)
            visits.add(self)

        model = sharded_model(group, lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
        model[0].bias.requires_grad_(False)
        x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
        alive = []
        gc.disable()
        Visit.__init__ = noting
        try:
            for backward in (True, False, True):
                value = model(x).sum()
                if backward:
                    value.backward()
                alive.append(len(visits))
                del value
                alive.append(len(visits))
        finally:
            Visit.__init__ = original
            gc.enable()
        return alive, len(x._backward_hooks)

    assert world.run(body) == [([2, 0, 2, 0, 2, 0], 0)] * 2


@pytest.mark.world(1, 3)
def test_evaluation_is_that_of_one_process_and_leaves_no_trace(world):
    def body(group):
        model = sharded_model(group).eval()
        with torch.no_grad():
            value = loss_of(model, batch(0))
        with torch.inference_mode():
            again = loss_of(model, batch(0))
        model.train()
        loss_of(model, batch(1)).backward()
        return value, again, [unit.open for unit in sharded(model).units]

    with torch.no_grad():
        want = loss_of(build(CharModel), batch(0))
    for value, again, opened in world.run(body):
        torch.testing.assert_close(value, want)
        torch.testing.assert_close(again, want)
        assert not any(opened)


@pytest.mark.world(1, 3)
def test_parameters_are_dtensors_at_all_times(world):
    def body(group):
        model = sharded_model(group)
        seen = []

        def look(*_):
            seen.append(all(isinstance(p, DTensor) for p in model.parameters()))

        model.blocks[0].qkv.register_forward_pre_hook(look)
        loss_of(model, batch(0)).backward()
        look()
        weight = model.state_dict()["blocks.0.qkv.weight"]
        assert weight.placements == (Shard(0),)
        assert len(weight.to_local()) == 21 // group.world
        return seen

    assert world.run(body) == [[True, True]] * world.size


@pytest.mark.world(2)
def test_state_dict_goes_round(world):
    def body(group):
        model, other = sharded_model(group), sharded_model(group, partial(CharModel))
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        other.load_state_dict(model.state_dict())
        with full_parameters(model) as want, full_parameters(other) as got:
            return all(torch.equal(got[name], want[name]) for name in want)

    assert world.run(body) == [True, True]


@pytest.mark.world(1, 3)
def test_full_parameters_are_the_original_ones(world):
    def body(group):
        model = sharded_model(group)
        original = dict(build(CharModel).named_parameters())
        with full_parameters(model) as full:
            assert full.keys() == original.keys()
            assert all(torch.equal(full[name], original[name]) for name in original)
            assert torch.equal(model.head.weight, original["head.weight"])
            loss_of(model, batch(0)).backward()  # gathers for itself, so that gradients are recorded
        assert isinstance(model.head.weight, DTensor)
        return model.head.weight.grad.full_tensor()

    model = build(CharModel)
    loss_of(model, batch(0)).backward()
    for got in world.run(body):
        torch.testing.assert_close(got, model.head.weight.grad)


def gradients_in_bfloat16(world):
    """The oracle: bfloat16 copies compute, float32 adds and divides."""
    model = build(CharModel).float()
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for rank in range(world):
        low = {name: p.detach().bfloat16().requires_grad_() for name, p in model.named_parameters()}
        rows = batch(0).chunk(world)[rank]
        logits = functional_call(model, low, (rows[:, :-1],))
        assert logits.dtype == torch.bfloat16
        F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).backward()
        for name, p in low.items():
            total[name] += p.grad.float()
    return {name: x / world for name, x in total.items()}


@pytest.mark.world(1, 2, 3)
def test_mixed_precision_computes_low_and_adds_high(world):
    def body(group):
        policy = Policy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        mesh = init_device_mesh("cpu", (group.world,))
        model = shard(build(CharModel).float(), mesh, policy)
        loss_of(model, batch(0).chunk(group.world)[group.rank]).backward()
        assert all(p.dtype == torch.float32 for p in model.parameters())
        got = {name: p.grad.full_tensor() for name, p in model.named_parameters()}
        return got, gradients_in_bfloat16(group.world)  # here, as bfloat16 depends on the number of threads

    for got, want in world.run(body):
        assert got.keys() == want.keys()
        for name in want:
            torch.testing.assert_close(got[name], want[name], rtol=1e-6, atol=1e-7)


@pytest.mark.world(2)
def test_inputs_are_cast_and_other_tensors_left(world):
    class Casting(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 2))

        def forward(self, x, *, index):
            return (x @ self.weight)[index["rows"]]

    def body(group):
        mesh = init_device_mesh("cpu", (group.world,))
        model = shard(Casting(), mesh, Policy(param_dtype=torch.bfloat16))
        return model(torch.ones(3, 2), index={"rows": torch.tensor([0, 2])}).dtype

    assert world.run(body) == [torch.bfloat16] * 2


@pytest.mark.world(2)
def test_backward_twice_and_autograd_grad(world):
    def body(group):
        model = sharded_model(group)
        loss = loss_of(model, batch(0))
        (once,) = torch.autograd.grad(loss, [model.blocks[0].qkv.weight], retain_graph=True)
        loss.backward(retain_graph=True)
        loss.backward()
        return torch.equal(model.blocks[0].qkv.weight.grad.full_tensor(), 2 * once.full_tensor())

    assert world.run(body) == [True, True]


@pytest.mark.world(2)
def test_gradients_of_inputs_alone_close_the_units_again(world):
    def body(group):
        model = sharded_model(group, lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
        x = torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
        torch.autograd.grad(model(x).sum(), [x])
        return any(unit.open for unit in sharded(model).units), type(model[0].weight.data).__name__

    assert world.run(body) == [(False, "DTensor")] * 2


@pytest.mark.world(2)
def test_failures_of_the_users_code_leave_the_module_usable(world):
    class Layer(nn.Linear):
        fail = ""

        def forward(self, x):
            x = super().forward(x)
            if self.fail == "forward":
                raise LookupError
            if self.fail == "backward":
                x.register_hook(self.stop)
                return super().forward(x)
            return x

        def stop(self, gradient):
            raise LookupError

    def body(group):
        model = sharded_model(group, lambda: nn.Sequential(nn.Linear(2, 2), Layer(2, 2)))
        x = torch.ones(1, 2, dtype=torch.float64)
        for model[1].fail in ("forward", "backward"):
            with pytest.raises(LookupError):
                model(x).sum().backward()
            model.zero_grad()
        model[1].fail = ""
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(1.0)
        value = model(x)
        value.sum().backward()
        return value.tolist(), model[1].bias.grad.full_tensor().tolist()

    assert world.run(body) == [([[7.0, 7.0]], [1.0, 1.0])] * 2


@pytest.mark.world(2)
def test_an_output_that_is_a_view_of_a_parameter_stays_alive(world):
    class Returns(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.arange(6.0).view(3, 2))

        def forward(self):
            return self.weight[1:]

    def body(group):
        model = sharded_model(group, lambda: nn.ModuleList([Returns()]))
        rows = model[0]()
        (rows * rows).sum().backward()
        return model[0].weight.grad.full_tensor().tolist()

    assert world.run(body) == [[[0.0, 0.0], [4.0, 6.0], [8.0, 10.0]]] * 2


@pytest.mark.world(1, 3)
def test_clipping_and_freezing_after_sharding(world):
    def body(group):
        model = sharded_model(group)
        model.blocks[0].requires_grad_(False)
        loss_of(model, batch(0)).backward()
        model.zero_grad()
        model.blocks[0].requires_grad_(True)
        model.blocks[1].requires_grad_(False)
        loss_of(model, batch(0)).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        return norm, all(p.grad is None for p in model.blocks[1].parameters())

    model = build(CharModel)
    model.blocks[1].requires_grad_(False)
    loss_of(model, batch(0)).backward()
    want = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    for norm, frozen in world.run(body):
        torch.testing.assert_close(norm, want)
        assert frozen


@pytest.mark.world(1, 3)
def test_sparse_gradients_and_another_divisor(world):
    def body(group):
        policy = Policy(divide_by=2)
        model = sharded_model(group, lambda: nn.Embedding(4, 2, sparse=True), policy)
        model(torch.tensor([group.rank, 3])).sum().backward()
        return model.weight.grad.full_tensor()[:, 0].tolist()

    want = [0.5 * (rank < world.size) for rank in range(3)] + [0.5 * world.size]
    assert world.run(body) == [want] * world.size


@pytest.mark.world(1, 3)
def test_the_report_counts_what_happens(world):
    """Collectives and bytes of a step are counted on the wire and compared with the report."""

    def body(group):
        import copy

        from comm_core import transport as core_transport
        from fsdp_collectives import gather, reduce

        counted = []

        def counting(group):
            wire = copy.copy(core_transport(group))  # one transport serves a group for good
            for name, factor in (("all_gather", group.world - 1), ("reduce_scatter", 0)):
                count(wire, name, factor, counted)
            return wire

        model = sharded_model(group)
        gather.transport = reduce.transport = counting
        try:
            loss_of(model, batch(0)).backward()
        finally:
            gather.transport = reduce.transport = core_transport
        said = report(model)
        assert "blocks.1" in str(said)
        return len(counted), sum(counted), said.collectives, said.wire_bytes

    def count(wire, name, factor, counted):
        method = getattr(wire, name)

        def counts(x, *args, **kwargs):
            sent = x.nbytes * factor if factor else x.nbytes * (wire.world - 1) // wire.world
            counted.append(sent)
            return method(x, *args, **kwargs)

        setattr(wire, name, counts)

    for collectives, sent, said_collectives, said_bytes in world.run(body):
        assert (collectives, sent) == (said_collectives, said_bytes)
        assert (collectives > 0) == (world.size > 1)


def test_units_are_the_elements_of_lists_and_sequences():
    model = CharModel()
    names = [unit.name for unit in find_units(model)]
    assert names == ["", "blocks.0", "blocks.0.mlp.0", "blocks.0.mlp.2", "blocks.1", "blocks.1.mlp.0", "blocks.1.mlp.2"]
    assert [entry.name for entry in find_units(model)[0].entries] == [
        "positions",
        "tokens.weight",
        "norm.weight",
        "norm.bias",
        "head.weight",
    ]


def test_a_list_in_a_list_is_no_unit_but_its_elements_are():
    model = nn.ModuleList([nn.ModuleList([nn.Linear(1, 1), nn.ReLU()]), nn.Sequential(nn.Linear(1, 1))])
    assert [unit.name for unit in find_units(model)] == ["", "0.0", "1.0"]


def test_small_elements_stay_in_the_unit_around_them():
    names = [unit.name for unit in find_units(CharModel(), smallest=200)]
    assert names == ["", "blocks.0", "blocks.1"]


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.LazyLinear(2)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (nn.ReLU, ArgumentError, "without parameters"),
        (lambda: nn.Linear(1, 1, device="meta"), ArgumentError, "without data"),
        (Lazy, ArgumentError, "without data"),
        (lambda: nn.Sequential(nn.LSTM(1, 1)), ArgumentError, "LSTM"),
        (lambda: "a string", ArgumentError, "a str"),
    ],
)
def test_modules_that_cannot_be_sharded(make, error, words):
    with pytest.raises(error, match=words):
        shard(make(), None)


def test_parameters_on_two_devices():
    model = nn.Linear(1, 1)
    model.bias = nn.Parameter(torch.ones(1, device="meta"))
    with pytest.raises(ArgumentError, match="meta"):
        find_units(model)


def test_wrong_mesh_and_policy():
    with pytest.raises(GroupError, match="1-D DeviceMesh"):
        shard(nn.Linear(1, 1), None)
    with pytest.raises(ArgumentError, match="policy"):
        shard(nn.Linear(1, 1), None, "bf16")
    with pytest.raises(ArgumentError, match=r"not called on"):
        report(nn.Linear(1, 1))


@pytest.mark.world(2)
def test_more_wrong_meshes_and_sharding_twice(world):
    def body(group):
        mesh = init_device_mesh("cpu", (group.world, 1))
        with pytest.raises(GroupError, match="2-D"):
            shard(nn.Linear(1, 1), mesh)
        model = sharded_model(group)
        with pytest.raises(PlacementError, match="already"):
            shard(model, init_device_mesh("cpu", (group.world,)))
        with pytest.raises(RuntimeError, match="DTensor"):
            model.tokens(batch(0))  # a parameter used outside of its unit's forward

    world.run(body)


@pytest.mark.parametrize(
    "wrong",
    [
        {"param_dtype": torch.int32},
        {"param_dtype": "bf16"},
        {"reduce_dtype": torch.float8_e4m3fn},
        {"divide_by": 0},
        {"divide_by": float("inf")},
        {"smallest_unit": -1},
    ],
)
def test_wrong_policies(wrong):
    with pytest.raises(CommError, match="Policy") as caught:
        Policy(**wrong)
    assert isinstance(caught.value, (DtypeError, ArgumentError))
