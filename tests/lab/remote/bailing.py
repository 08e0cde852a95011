"""Ling 1 and Ling 2: inclusionAI's modeling_bailing_moe.py and modeling_bailing_moe_v2.py, one model type.

Read in inclusionAI/Ming-UniVision 3bbdd2f, mingunivision/modeling_bailing_moe.py (whose other rotary class and gates for pictures
are left out), and in a public copy of BailingMoeV2's code.
"""

from __future__ import annotations

import torch
from lab.remote.experts import Gate, GroupGate, SparseBlock
from lab.remote.parts import (
    ComputedRotary,
    GatedMLP,
    RemoteCausal,
    RemoteDecoder,
    attend_eager,
    attend_sdpa,
    config_class,
    repeated,
    rotate_half,
    rotated,
)
from torch import nn


class Norm(nn.Module):
    """Llama's, cast after the weight."""

    def __init__(self, width, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden):
        dtype = hidden.dtype
        hidden = hidden.to(torch.float32)
        variance = hidden.pow(2).mean(-1, keepdim=True)
        hidden = hidden * torch.rsqrt(variance + self.eps)
        return (self.weight * hidden).to(dtype)


class GrownRotary(nn.Module):
    """Tables for as many positions as were asked for, made anew when it is first asked, in the dtype of what turns."""

    def __init__(self, width, positions):
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / (1e4 ** (torch.arange(0, width, 2).float() / width)), persistent=False)
        self.grow(positions, self.inv_freq.device, torch.get_default_dtype())
        self.known = None

    def grow(self, length, device, dtype):
        self.known = length
        places = torch.arange(length, device=device, dtype=self.inv_freq.dtype)
        angles = torch.outer(places, self.inv_freq.to(places.device))
        both = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos_cached", both.cos().to(dtype), persistent=False)
        self.register_buffer("sin_cached", both.sin().to(dtype), persistent=False)

    def forward(self, x, length):
        if self.known is None or length > self.known:
            self.grow(length, x.device, x.dtype)
        return self.cos_cached[:length].to(dtype=x.dtype), self.sin_cached[:length].to(dtype=x.dtype)


class Attention(nn.Module):
    """Query, key and value in one matrix; Ling 2 norms query and key and turns a part of them with the model's own tables."""

    def __init__(self, config):
        super().__init__()
        self.heads, self.keys = config.num_attention_heads, config.num_key_value_heads
        self.width = config.head_dim or config.hidden_size // self.heads
        self.groups = self.heads // self.keys
        self.eager = config._attn_implementation == "eager"
        self.query_key_value = nn.Linear(
            config.hidden_size, (self.heads + 2 * self.keys) * self.width, bias=config.use_qkv_bias
        )
        self.second = config.score_function == "sigmoid"
        if self.second:
            self.query_layernorm, self.key_layernorm = Norm(self.width), Norm(self.width)
        else:
            self.rotary_emb = GrownRotary(self.width, config.max_position_embeddings)
        self.dense = nn.Linear(self.heads * self.width, config.hidden_size, bias=config.use_bias)

    def turned(self, q, k, v, positions, tables):
        if not self.second:
            cos, sin = self.rotary_emb(v, k.shape[-2])
            return rotated(q, k, cos[positions], sin[positions]), (cos, sin)
        cos, sin = tables
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        width = cos.shape[-1]
        q_part, q_rest = q[..., :width], q[..., width:]
        k_part, k_rest = k[..., :width], k[..., width:]
        q_turned = (q_part * cos) + (rotate_half(q_part) * sin)
        k_turned = (k_part * cos) + (rotate_half(k_part) * sin)
        q_turned = torch.cat([q_turned, q_rest], dim=-1)
        k_turned = torch.cat([k_turned, k_rest], dim=-1)
        return (q_turned, k_turned), None

    def forward(self, hidden, mask, positions, tables):
        batch, length, _ = hidden.size()
        qkv = self.query_key_value(hidden)
        qkv = qkv.view(batch, length, self.heads + 2 * self.keys, self.width)
        q, k, v = qkv.split([self.heads, self.keys, self.keys], dim=-2)
        q = q.transpose(1, 2)
        k = k.transpose(1, 2)
        v = v.transpose(1, 2)
        if self.second:
            q = self.query_layernorm(q)
            k = self.key_layernorm(k)
        (q, k), _held = self.turned(q, k, v, positions, tables)
        k = repeated(k, self.groups)
        v = repeated(v, self.groups)
        if not self.eager and mask is not None:
            q = q.contiguous()
            k = k.contiguous()
            v = v.contiguous()
        out = attend_eager(q, k, v, mask, self.width) if self.eager else attend_sdpa(q, k, v, mask)
        out = out.transpose(1, 2).contiguous()
        out = out.reshape(batch, length, -1)
        return self.dense(out)


class Layer(nn.Module):
    def __init__(self, config, index):
        super().__init__()
        self.attention = Attention(config)
        gate = GroupGate if config.score_function == "sigmoid" else Gate
        dense = index < config.first_k_dense_replace
        self.mlp = (
            GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act)
            if dense
            else SparseBlock(config, gate)
        )
        self.input_layernorm = Norm(config.hidden_size)
        self.post_attention_layernorm = Norm(config.hidden_size)

    def forward(self, hidden, mask, positions, tables):
        residual = hidden
        hidden = self.input_layernorm(hidden)
        hidden = self.attention(hidden, mask, positions, tables)
        hidden = residual + hidden
        residual = hidden
        hidden = self.post_attention_layernorm(hidden)
        hidden = self.mlp(hidden)
        if isinstance(hidden, tuple):
            hidden, _routed = hidden
        hidden = residual + hidden
        return hidden


class BailingMoeModel(RemoteDecoder):
    embedding_name = "word_embeddings"

    def __init__(self, config):
        indices = iter(range(config.num_hidden_layers))
        super().__init__(config, lambda config: Layer(config, next(indices)), Norm)
        if config.score_function == "sigmoid":
            width = config.head_dim or config.hidden_size // config.num_attention_heads
            self.rotary_emb = ComputedRotary(int(width * config.partial_rotary_factor))

    def beside(self, embeddings, positions):
        return (self.rotary_emb(embeddings, positions) if hasattr(self, "rotary_emb") else None,)


class BailingMoeForCausalLM(RemoteCausal):
    config_class = config_class(
        "bailing_moe", hidden_act="silu", num_key_value_heads=None, use_qkv_bias=False, use_bias=False, head_dim=None,
        first_k_dense_replace=0, norm_topk_prob=True, num_shared_experts=None, score_function="softmax",
        max_position_embeddings=16384, tie_word_embeddings=False, partial_rotary_factor=1.0, routed_scaling_factor=1.0,
    )  # fmt: skip
    decoder = BailingMoeModel


MODELS = (BailingMoeForCausalLM,)
