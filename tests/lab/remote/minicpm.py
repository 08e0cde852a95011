"""MiniCPM 1, 2 and 4: openbmb's modeling_minicpm.py as MiniCPM4.1 has it; the sparse attention of 4.1 is another class, left out.

Read in wxthu/nas_tuner 316794f, modeling_minicpm.py.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from lab.remote.parts import (
    CachedRotary,
    GatedMLP,
    RemoteCausal,
    RemoteDecoder,
    VarianceNorm,
    attend_eager,
    attend_sdpa,
    config_class,
    repeated,
    rotate_half,
)
from torch import nn


def turned(q, k, cos, sin, positions):
    """Rotary embedding in float32."""
    dtype = k.dtype
    cos = cos[positions].unsqueeze(1)
    sin = sin[positions].unsqueeze(1)
    wide_q = q.to(dtype=torch.float32, device=q.device)
    wide_k = k.to(dtype=torch.float32, device=k.device)
    q_turned = (wide_q * cos) + (rotate_half(wide_q) * sin)
    k_turned = (wide_k * cos) + (rotate_half(wide_k) * sin)
    return q_turned.to(dtype=dtype), k_turned.to(dtype=dtype)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.num_attention_heads
        self.keys = config.num_key_value_heads
        self.width = config.hidden_size // self.heads
        self.groups = self.heads // self.keys
        self.eager = config._attn_implementation == "eager"
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.width, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, self.keys * self.width, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, self.keys * self.width, bias=bias)
        self.o_proj = nn.Linear(self.heads * self.width, config.hidden_size, bias=bias)
        self.rotary_emb = CachedRotary(self.width, config.max_position_embeddings, torch.float32)

    def forward(self, hidden, mask, positions):
        batch, length, _ = hidden.size()
        q = self.q_proj(hidden)
        k = self.k_proj(hidden)
        v = self.v_proj(hidden)
        q = q.view(batch, length, self.heads, self.width).transpose(1, 2)
        k = k.view(batch, length, self.keys, self.width).transpose(1, 2)
        v = v.view(batch, length, self.keys, self.width).transpose(1, 2)
        cos, sin = self.rotary_emb(v, k.shape[-2])
        q, k = turned(q, k, cos, sin, positions)
        k = repeated(k, self.groups)
        v = repeated(v, self.groups)
        if not self.eager and mask is not None:
            q = q.contiguous()
            k = k.contiguous()
            v = v.contiguous()
        out = attend_eager(q, k, v, mask, self.width) if self.eager else attend_sdpa(q, k, v, mask)
        out = out.transpose(1, 2).contiguous()
        out = out.reshape(batch, length, -1)
        return self.o_proj(out)


class Layer(nn.Module):
    """Branches are scaled."""

    def __init__(self, config):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act)
        self.input_layernorm = VarianceNorm(config.hidden_size)
        self.post_attention_layernorm = VarianceNorm(config.hidden_size)
        self.scale = config.scale_depth / math.sqrt(config.num_hidden_layers)

    def forward(self, hidden, mask, positions):
        residual = hidden
        hidden = self.input_layernorm(hidden)
        hidden = self.self_attn(hidden, mask, positions)
        hidden = residual + hidden * self.scale
        residual = hidden
        hidden = self.post_attention_layernorm(hidden)
        hidden = self.mlp(hidden)
        hidden = residual + hidden * self.scale
        return hidden


class MiniCPMModel(RemoteDecoder):
    def __init__(self, config):
        super().__init__(config, Layer, VarianceNorm)

    def embed(self, input_ids):
        return self.embed_tokens(input_ids) * self.config.scale_emb


class MiniCPMForCausalLM(RemoteCausal):
    config_class = config_class(
        "minicpm", hidden_act="silu", num_key_value_heads=None, attention_bias=False, max_position_embeddings=2048,
        tie_word_embeddings=True, scale_emb=1, dim_model_base=1, scale_depth=1,
    )  # fmt: skip
    decoder = MiniCPMModel
    _tied_weights_keys: ClassVar = {"lm_head.weight": "model.embed_tokens.weight"}

    def head(self, hidden):
        return self.lm_head(hidden / (self.config.hidden_size / self.config.dim_model_base))


MODELS = (MiniCPMForCausalLM,)
