"""Small models written after LitGPT's and torchtune's published code, to be run by real torch: the tests' oracle.

Names and structure follow lit_gpt/model.py and lit_gpt/lora.py (October 2023) and torchtune/modules (0.4).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

CHUNK = 128


class FloatNorm(nn.Module):
    """RMS norm in float32; `late`: cast after the weight (LitGPT) instead of before it (torchtune)."""

    def __init__(self, width: int, *, late: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.late = late

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return (self.scale * normed).to(x.dtype) if self.late else normed.type_as(x) * self.scale


class Mlp(nn.Module):
    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(hidden, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class MergedLora(nn.Module):
    """LoRA of query and value on the fused projection."""

    def __init__(self, hidden: int, rank: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, 3 * hidden, bias=False)
        self.lora_a = nn.Parameter(torch.zeros(2 * rank, hidden))
        self.lora_b = nn.Parameter(torch.zeros(2 * hidden, rank))
        self.dropout = nn.Dropout(dropout)
        places = torch.cat([torch.arange(hidden), torch.arange(2 * hidden, 3 * hidden)])
        self.register_buffer("places", places, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        base = self.linear(x)
        low = functional.linear(self.dropout(x), self.lora_a)
        update = functional.conv1d(low.transpose(-2, -1), self.lora_b.unsqueeze(-1), groups=2).transpose(-2, -1)
        turned = update.transpose(0, 1)
        zeros = turned.new_zeros((*turned.shape[:-1], base.shape[-1])).view(-1, base.shape[-1])
        padded = zeros.index_copy(1, self.places, turned.reshape(-1, turned.shape[-1]))
        return base + padded.view(*turned.shape[:-1], base.shape[-1]).transpose(0, 1) * 2.0


def half_rotation(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    middle = x.size(-1) // 2
    rotated = torch.cat((-x[..., middle:], x[..., :middle]), dim=-1)
    return ((x * cos) + (rotated * sin)).to(x.dtype)


class LitBlock(nn.Module):
    def __init__(self, hidden: int, heads: int, inner: int, rank: int, dropout: float) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = (FloatNorm(hidden, late=True) for _ in range(2))
        self.attn, self.proj = MergedLora(hidden, rank, dropout), nn.Linear(hidden, hidden, bias=False)
        self.mlp, self.heads = Mlp(hidden, inner), heads

    def attention(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        batch, length, hidden = x.shape
        width = hidden // self.heads
        fused = self.attn(x).view(batch, length, self.heads, 3, width).permute(0, 2, 3, 1, 4)
        q, k, v = (part.reshape(batch, -1, length, width) for part in fused.split((1, 1, 1), dim=2))
        q, k = (torch.cat((half_rotation(part[..., :width], cos, sin), part[..., width:]), dim=-1) for part in (q, k))
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        return self.proj(out.reshape(batch, length, hidden))

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x = self.attention(self.norm_1(x), cos, sin) + x
        return self.mlp(self.norm_2(x)) + x


class LitModel(nn.Module):
    def __init__(self, shape: dict[str, int], length: int, rank: int, dropout: float) -> None:
        super().__init__()
        hidden, heads = shape["hidden"], shape["heads"]
        self.wte = nn.Embedding(shape["vocabulary"], hidden)
        self.blocks = nn.ModuleList(
            LitBlock(hidden, heads, shape["inner"], rank, dropout) for _ in range(shape["layers"])
        )
        self.norm, self.head = FloatNorm(hidden, late=True), nn.Linear(hidden, shape["vocabulary"], bias=False)
        for name in ("cos", "sin"):
            self.register_buffer(name, torch.zeros(length, hidden // heads, dtype=torch.float32))

    def forward(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        x = self.wte(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return [self.head(piece) for piece in self.norm(x).split(CHUNK, dim=1)]


def lit_step(model: LitModel, tokens: torch.Tensor, labels: torch.Tensor) -> None:
    """The script's step: outputs in float32, the loss chunk by chunk, the logits still a local variable in backward."""
    logits = [piece.float() for piece in model(tokens)]
    targets = labels.split(CHUNK, dim=1)
    losses = [
        functional.cross_entropy(piece.reshape(-1, piece.size(-1)), target.reshape(-1), reduction="none")
        for piece, target in zip(logits, targets, strict=True)
    ]
    torch.cat(losses).mean().backward()
    del logits


class TuneLayer(nn.Module):
    def __init__(self, hidden: int, heads: int, kv_heads: int, inner: int) -> None:
        super().__init__()
        width = hidden // heads
        self.norm_1, self.norm_2 = (FloatNorm(hidden, late=False) for _ in range(2))
        self.q, self.o = (nn.Linear(hidden, hidden, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(hidden, kv_heads * width, bias=False) for _ in range(2))
        self.mlp, self.heads, self.kv_heads = Mlp(hidden, inner), heads, kv_heads

    @staticmethod
    def rotary(x: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        pairs = x.float().reshape(*x.shape[:-1], -1, 2)
        table = cache.view(-1, pairs.size(1), 1, pairs.size(3), 2)
        turned = torch.stack(
            [
                pairs[..., 0] * table[..., 0] - pairs[..., 1] * table[..., 1],
                pairs[..., 1] * table[..., 0] + pairs[..., 0] * table[..., 1],
            ],
            -1,
        )
        return turned.flatten(3).type_as(x)

    def attention(self, x: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        batch, length, hidden = x.shape
        width, groups = hidden // self.heads, self.heads // self.kv_heads
        q = self.rotary(self.q(x).view(batch, length, self.heads, width), cache).transpose(1, 2)
        k = self.rotary(self.k(x).view(batch, length, self.kv_heads, width), cache)
        v = self.v(x).view(batch, length, self.kv_heads, width)
        k, v = (
            part.unsqueeze(3)
            .expand(batch, length, self.kv_heads, groups, width)
            .reshape(batch, length, self.heads, width)
            .transpose(1, 2)
            for part in (k, v)
        )
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(out.transpose(1, 2).contiguous().view(batch, length, hidden))

    def forward(self, x: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm_1(x), cache)
        return x + self.mlp(self.norm_2(x))


class TuneLora(nn.Module):
    """A frozen linear layer with an adapter."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Linear(base.in_features, rank, bias=False)
        self.lora_b = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + 2.0 * self.lora_b(self.lora_a(x))


def adapted(layer: TuneLayer, rank: int) -> TuneLayer:
    """The layer with adapters on all of its linear layers but the key's, as torchtune's configs have them."""
    layer.requires_grad_(False)
    for module, names in ((layer, ("q", "v", "o")), (layer.mlp, ("gate", "up", "down"))):
        for name in names:
            setattr(module, name, TuneLora(getattr(module, name), rank))
    return layer


class TuneModel(nn.Module):
    def __init__(self, shape: dict[str, int], length: int) -> None:
        super().__init__()
        hidden = shape["hidden"]
        self.wte = nn.Embedding(shape["vocabulary"], hidden)
        self.layers = nn.ModuleList(
            TuneLayer(hidden, shape["heads"], shape["kv_heads"], shape["inner"]) for _ in range(shape["layers"])
        )
        self.norm, self.head = FloatNorm(hidden, late=False), nn.Linear(hidden, shape["vocabulary"], bias=False)
        table = torch.zeros(length, hidden // shape["heads"] // 2, 2, dtype=torch.float32)
        self.register_buffer("cache", table)

    def hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.wte(tokens)
        for layer in self.layers:
            x = layer(x, self.cache)
        return self.norm(x)


def tune_step(model: TuneModel, tokens: torch.Tensor, labels: torch.Tensor, chunks: int) -> None:
    """The recipe's step: whole logits in float32 and deleted, or `chunks` 16-bit pieces that the loss upcasts."""
    hidden = model.hidden(tokens)
    if chunks == 1:
        logits = model.head(hidden).float()
        del hidden
        loss = functional.cross_entropy(logits.reshape(-1, logits.size(-1)), labels.reshape(-1))
        del logits
    else:
        pieces = [model.head(piece) for piece in hidden.chunk(chunks, dim=1)]
        del hidden
        loss = sum(
            functional.cross_entropy(piece.reshape(-1, piece.size(-1)).float(), target.reshape(-1), reduction="sum")
            for piece, target in zip(pieces, labels.chunk(chunks, dim=1), strict=True)
        )
        del pieces
    loss.backward()


def old_tune_step(model: TuneModel, tokens: torch.Tensor, labels: torch.Tensor) -> None:
    """The step before 0.3: a shifted copy of the logits, handed over transposed and kept through backward."""
    logits = model.head(model.hidden(tokens)).float()
    logits = logits[..., :-1, :].contiguous()
    logits = logits.transpose(1, 2)
    functional.cross_entropy(logits, labels[..., 1:].contiguous()).backward()
    del logits
