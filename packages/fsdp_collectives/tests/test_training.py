"""A sharded module trains as the single process does: losses, gradients and parameters, in float64."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from comm_core.errors import GradientError
from fsdp_collectives import report, shard
from packages.fsdp_collectives.tests.training import (
    VOCABULARY,
    CharModel,
    adamw,
    assert_same,
    batch,
    build,
    loss_of,
    sgd,
    train_alone,
    train_sharded,
)


@pytest.mark.parametrize("optimizer", [sgd, adamw])
@pytest.mark.world(1, 2, 3)
def test_training_is_that_of_one_process(world, optimizer):
    alone = train_alone(CharModel, optimizer)
    assert alone[0][-1] < alone[0][0]
    assert_same(alone, world.run(train_sharded, CharModel, optimizer))


@pytest.mark.world(1, 3)
def test_gradients_of_several_backwards_add_up(world):
    alone = train_alone(CharModel, sgd, steps=2, backwards=3)
    assert_same(alone, world.run(train_sharded, CharModel, sgd, None, 2, 3))


def tied():
    return CharModel(tied=True)


@pytest.mark.world(1, 3)
def test_tied_parameters_stay_tied(world):
    """`parameters()` of torch counts a tied parameter once, and so does the engine."""
    assert_same(train_alone(tied, adamw), world.run(train_sharded, tied, adamw))


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.own, self.inner = nn.Linear(5, 5), inner

    def forward(self, x):
        return torch.tanh(self.inner(self.own(x)))


class TiedBlocks(nn.Module):
    """Two units share a whole module, and two others a parameter."""

    def __init__(self):
        super().__init__()
        inner = nn.Linear(5, 5)
        self.tokens = nn.Embedding(VOCABULARY, 5)
        self.blocks = nn.ModuleList([Wrapped(inner), Wrapped(inner), nn.Linear(5, 5), nn.Linear(5, 5)])
        self.blocks[3].weight = self.blocks[2].weight
        self.head = nn.Linear(5, VOCABULARY)

    def forward(self, tokens):
        x = self.tokens(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.mark.world(1, 3)
def test_parameters_shared_by_units_belong_to_the_root(world):
    def homes(group):
        model = shard(build(TiedBlocks), init_device_mesh("cpu", (group.world,)))
        return {unit.name: unit.tensors for unit in report(model).units}

    assert world.run(homes)[0] == {
        "(root)": 6,  # tokens, head's two, inner's two, the shared weight
        "blocks.0": 2,
        "blocks.1": 2,
        "blocks.2": 1,
        "blocks.3": 1,
    }
    assert_same(train_alone(TiedBlocks, adamw), world.run(train_sharded, TiedBlocks, adamw))


class Repeated(nn.Module):
    """One unit called three times in a forward."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, 5)
        self.blocks = nn.ModuleList([nn.Linear(5, 5)] * 3)
        self.head = nn.Linear(5, VOCABULARY)

    def forward(self, tokens):
        x = self.tokens(tokens)
        for block in self.blocks:
            x = torch.tanh(block(x))
        return self.head(x)


@pytest.mark.world(1, 3)
def test_a_unit_may_be_called_several_times(world):
    assert_same(train_alone(Repeated, sgd), world.run(train_sharded, Repeated, sgd))


def half_frozen():
    model = CharModel(depth=3)
    model.blocks[0].requires_grad_(False)  # a frozen unit
    model.blocks[1].qkv.requires_grad_(False)  # a mixed one
    model.blocks[2].norm.requires_grad_(False)
    model.tokens.requires_grad_(False)
    return model


def adapters_only():
    """Only the last norm of each block is trained, so gradients flow through frozen weights behind it."""
    model = CharModel(depth=3)
    model.requires_grad_(False)
    for block in model.blocks:
        block.scale.requires_grad_(True)
    return model


@pytest.mark.parametrize("make", [half_frozen, adapters_only])
@pytest.mark.world(1, 3)
def test_frozen_parameters_get_no_gradient(world, make):
    alone = train_alone(make, adamw)
    assert_same(alone, world.run(train_sharded, make, adamw))


class WithUnused(CharModel):
    """A unit that nothing calls, and a parameter within a used unit that nothing uses."""

    def __init__(self):
        super().__init__()
        self.spare = nn.ModuleList([nn.Linear(3, 3)])
        self.blocks[0].spare = nn.Linear(2, 2)


@pytest.mark.world(1, 3)
def test_unused_parameters_keep_no_gradient(world):
    """None, not zeros: AdamW with weight decay would move a parameter with zero gradient."""
    alone = train_alone(WithUnused, adamw)
    assert alone[1]["blocks.0.spare.weight"] is None
    assert_same(alone, world.run(train_sharded, WithUnused, adamw))


class Branch(nn.Module):
    """Uses its second weight only when the data says so, which differs between ranks."""

    def __init__(self):
        super().__init__()
        self.always = nn.Linear(4, 4)
        self.sometimes = nn.Linear(4, 4)

    def forward(self, x, sometimes):
        x = self.always(x)
        return self.sometimes(x) if sometimes else x


@pytest.mark.world(1, 2, 3)
def test_a_parameter_that_only_one_rank_uses_gets_the_mean_everywhere(world):
    def body(group):
        model = shard(build(lambda: nn.ModuleList([Branch()])), init_device_mesh("cpu", (group.world,)))
        x = torch.full((2, 4), 1.0 + group.rank, dtype=torch.float64)
        model[0](x, group.rank == 0).square().sum().backward()
        return model[0].sometimes.bias.grad.full_tensor()

    alone = build(lambda: nn.ModuleList([Branch()]))
    alone[0](torch.ones(2, 4, dtype=torch.float64), True).square().sum().backward()
    for got in world.run(body):
        torch.testing.assert_close(got, alone[0].sometimes.bias.grad / world.size)


class Detour(nn.Module):
    """The output of one unit is computed and dropped."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, 4)
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, VOCABULARY)])

    def forward(self, tokens):
        x = self.blocks[0](self.tokens(tokens))
        self.blocks[1](x)
        return self.blocks[2](x)


@pytest.mark.world(1, 3)
def test_a_unit_that_backward_does_not_reach_keeps_no_gradient(world):
    alone = train_alone(Detour, adamw)
    assert alone[1]["blocks.1.weight"] is None
    assert_same(alone, world.run(train_sharded, Detour, adamw))


class Checkpointed(CharModel):
    """Activations of the blocks are recomputed: each block alone, all in one region, or the inside of each."""

    def __init__(self, region="block", use_reentrant=False):
        super().__init__()
        self.region = region
        self.settings = {"use_reentrant": use_reentrant}
        if region == "inside":
            for block in self.blocks:
                block.mlp = RecomputedMlp(block.mlp, self.settings)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        if self.region == "all":
            x = checkpoint(self.run_blocks, x, **self.settings)
        else:
            for block in self.blocks:
                x = checkpoint(block, x, **self.settings) if self.region == "block" else block(x)
        return self.head(self.norm(x))

    def run_blocks(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class RecomputedMlp(nn.Module):
    def __init__(self, mlp, settings):
        super().__init__()
        self.first, self.second = mlp[0], mlp[2]
        self.settings = settings

    def forward(self, x):
        return checkpoint(lambda x: self.second(F.gelu(self.first(x))), x, **self.settings)


@pytest.mark.parametrize(
    ("region", "use_reentrant"), [("block", False), ("all", False), ("inside", False), ("block", True), ("all", True)]
)
@pytest.mark.world(1, 3)
def test_activations_may_be_recomputed(world, region, use_reentrant):
    make = partial(Checkpointed, region, use_reentrant)
    assert_same(train_alone(make, sgd), world.run(train_sharded, make, sgd))


class RepeatedInRegion(Repeated):
    """The calls of one unit are recomputed together, so they borrow one gather, which has to live until the last."""

    def forward(self, tokens):
        return self.head(checkpoint(self.run_blocks, self.tokens(tokens), use_reentrant=False))

    def run_blocks(self, x):
        for block in self.blocks:
            x = block(torch.tanh(x))
        return x  # the unit's own output, so backward opens the unit before it recomputes


@pytest.mark.world(1, 3)
def test_several_calls_of_a_unit_may_be_recomputed_together(world):
    assert_same(train_alone(RepeatedInRegion, sgd), world.run(train_sharded, RepeatedInRegion, sgd))


@pytest.mark.world(1, 3)
def test_a_reentrant_checkpoint_within_a_unit_is_refused(world):
    def body(group):
        make = partial(Checkpointed, "inside", True)
        model = shard(build(make), init_device_mesh("cpu", (group.world,)))
        with pytest.raises(GradientError, match="use_reentrant=False"):
            loss_of(model, batch(0)).backward()

    world.run(body)


@pytest.mark.world(1, 3)
def test_checkpointing_without_early_stop(world):
    def body(group):
        with set_checkpoint_early_stop(False):
            return train_sharded(group, Checkpointed, sgd)

    assert_same(train_alone(Checkpointed, sgd), world.run(body))
