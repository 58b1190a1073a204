"""Models and training loops that the tests of the engine share: one process against sharded ranks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from fsdp_collectives import full_parameters, shard

ROWS = 6  # of the global batch: divisible by the worlds 1, 2 and 3
VOCABULARY = 11


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, -1)).unbind(-2)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended)
        return x + self.scale * self.mlp(x)


class CharModel(nn.Module):
    """A decoder-only transformer of characters; 7 rows and 5 rows do not divide evenly."""

    def __init__(self, width=7, depth=2, tied=False):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(torch.randn(5, width) * 0.1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def batch(step):
    """The same global batch on every rank and in the single process."""
    generator = torch.Generator().manual_seed(100 + step)
    return torch.randint(VOCABULARY, (ROWS, 6), generator=generator)


def loss_of(model, rows):
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.3, momentum=0.9)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)


def build(make, seed=0):
    torch.manual_seed(seed)
    return make().double()


def train_alone(make: Callable, optimizer: Callable, steps=3, backwards=1, loss=loss_of):
    """Train in one process; return the losses, the last gradients and the final parameters."""
    model = build(make)
    chosen = optimizer([p for p in model.parameters() if p.requires_grad])
    losses = []
    for step in range(steps):
        chosen.zero_grad()
        for part in range(backwards):
            value = loss(model, batch(step * backwards + part))
            value.backward()
        losses.append(value.item())
        chosen.step()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return losses, gradients, {name: p.detach() for name, p in model.named_parameters()}


def train_sharded(group, make, optimizer, policy=None, steps=3, backwards=1, loss=loss_of):
    """Train the same on this rank's rows of each batch; return the same three things."""
    model = shard(build(make), init_device_mesh("cpu", (group.world,)), policy)
    chosen = optimizer([p for p in model.parameters() if p.requires_grad])
    losses = []
    for step in range(steps):
        chosen.zero_grad()
        for part in range(backwards):
            mine = batch(step * backwards + part).chunk(group.world)[group.rank]
            value = loss(model, mine)
            value.backward()
        losses.append(mean_over_ranks(value, group))
        chosen.step()
    gradients = {name: None if p.grad is None else p.grad.full_tensor() for name, p in model.named_parameters()}
    with full_parameters(model) as full:
        return losses, gradients, {name: x.clone() for name, x in full.items()}


def mean_over_ranks(value, group):
    from comm_core import catalog, run

    return run(catalog.ALL_REDUCE, value.detach(), group, reduce_op="avg").item()


def assert_same(alone, sharded_results):
    """Every rank has the losses, gradients and parameters of the single process."""
    losses, gradients, parameters = alone
    for got_losses, got_gradients, got_parameters in sharded_results:
        torch.testing.assert_close(got_losses, losses, rtol=1e-10, atol=1e-12)
        assert got_gradients.keys() == gradients.keys()
        for name, want in gradients.items():
            got = got_gradients[name]
            assert (got is None) == (want is None), name
            if want is not None:
                torch.testing.assert_close(
                    got, want, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
                )
        for name, want in parameters.items():
            # AdamW divides by the root of a gradient's square: where that is small, rounding counts for more
            torch.testing.assert_close(got_parameters[name], want, rtol=1e-8, atol=1e-10)
