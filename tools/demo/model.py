"""A small decoder-only transformer over characters, in plain PyTorch.

Attention and the MLP are functions of tensors, so that the tensor-parallel variant can map the very same functions
over shards of the weights.
"""

from __future__ import annotations

import torch
from corpus import VOCABULARY
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS, LAYERS, CONTEXT = 256, 8, 4, 64
HEAD = WIDTH // HEADS


def attention(x: torch.Tensor, qkv: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Causal self-attention of as many heads as the weights have.

    Shapes: x `(batch, time, WIDTH)`, qkv `(heads * 3 * HEAD, WIDTH)`, out `(WIDTH, heads * HEAD)` -> like x.
    """
    batch, time, _ = x.shape
    q, k, v = F.linear(x, qkv).view(batch, time, -1, 3, HEAD).permute(3, 0, 2, 1, 4).unbind(0)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F.linear(y.transpose(1, 2).reshape(batch, time, -1), out)


def mlp(x: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Two linear maps with a GELU between them.

    Shapes: x `(batch, time, WIDTH)`, up `(hidden, WIDTH)`, down `(WIDTH, hidden)` -> like x.
    """
    return F.linear(F.gelu(F.linear(x, up)), down)


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.qkv = nn.Parameter(torch.randn(3 * WIDTH, WIDTH) * 0.02)
        self.out = nn.Parameter(torch.randn(WIDTH, WIDTH) * 0.02)
        self.up = nn.Parameter(torch.randn(4 * WIDTH, WIDTH) * 0.02)
        self.down = nn.Parameter(torch.randn(WIDTH, 4 * WIDTH) * 0.02)
        self.attention = attention
        self.mlp = mlp

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes: `(batch, time, WIDTH)` -> the same."""
        x = x + self.attention(self.norm1(x), self.qkv, self.out)
        return x + self.mlp(self.norm2(x), self.up, self.down)


class Transformer(nn.Module):
    """Characters in, the cross-entropy of the next characters out."""

    def __init__(self) -> None:
        super().__init__()
        self.characters = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Parameter(torch.randn(CONTEXT, WIDTH) * 0.02)
        self.blocks = nn.ModuleList([Block() for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        """Shapes: two times `(batch, CONTEXT)` -> scalar mean loss."""
        x = self.characters(text) + self.places
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), following.flatten())


def new_model() -> Transformer:
    """Return the model with the same first weights each time."""
    torch.manual_seed(0)
    return Transformer()


def new_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of every variant."""
    return torch.optim.AdamW(model.parameters(), lr=1e-3)
