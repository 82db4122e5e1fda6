"""The encoder: a post-norm BERT without token types or pooler, sized for a board."""

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Config:
    vocab_size: int = 8000
    hidden_size: int = 128
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    intermediate_size: int = 512
    max_position_embeddings: int = 128
    layer_norm_eps: float = 1e-12


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        h = c.hidden_size
        self.heads, self.width = c.num_attention_heads, h // c.num_attention_heads
        self.query, self.key, self.value, self.output = (nn.Linear(h, h) for _ in range(4))
        self.up, self.down = nn.Linear(h, c.intermediate_size), nn.Linear(c.intermediate_size, h)
        self.attention_norm, self.output_norm = (nn.LayerNorm(h, eps=c.layer_norm_eps) for _ in range(2))

    def forward(self, x, bias):
        batch = x.shape[0]

        def split(y):
            return y.view(batch, -1, self.heads, self.width).transpose(1, 2)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = q @ k.transpose(-1, -2) / math.sqrt(self.width) + bias
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, -1, self.heads * self.width)
        x = self.attention_norm(x + self.output(mixed))
        return self.output_norm(x + self.down(nn.functional.gelu(self.up(x))))


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.words = nn.Embedding(c.vocab_size, c.hidden_size)
        self.positions = nn.Parameter(torch.zeros(c.max_position_embeddings, c.hidden_size))
        self.norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.num_hidden_layers))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.04)
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            nn.init.normal_(block.output.weight, std=0.01)
            nn.init.normal_(block.down.weight, std=0.01)

    def embed(self, input_ids):
        return self.norm(self.words(input_ids) + self.positions[: input_ids.shape[1]])

    def forward(self, input_ids, attention_mask):
        """`last_hidden_state`, [batch, sequence, hidden]."""
        bias = (1.0 - attention_mask[:, None, None, :].float()) * -10000.0
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x, bias)
        return x


def mean_pool(hidden, mask):
    mask = mask[..., None].float()
    return (hidden * mask).sum(1) / mask.sum(1)
