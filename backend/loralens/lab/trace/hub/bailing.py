"""Ling 1 and Ling 2: inclusionAI's modeling_bailing_moe.py and modeling_bailing_moe_v2.py, one model type.

Read in inclusionAI/Ming-UniVision 3bbdd2f, mingunivision/modeling_bailing_moe.py (whose other rotary class and gates for pictures
are left out), and in a public copy of BailingMoeV2's code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from loralens.lab.trace.hub.experts import GroupGate, HubGate, HubSparseBlock
from loralens.lab.trace.hub.parts import (
    ComputedRotary,
    HubGatedMLP,
    HubRemoteAttention,
    HubRemoteDecoder,
    HubRMSNorm,
    RemoteCausal,
    Turned,
    own_config,
    rotate_half,
    rotated,
)


class HubBailingNorm(HubRMSNorm):
    """Llama's, cast after the weight."""

    def forward(self, hidden: Tensor) -> Tensor:
        dtype = hidden.dtype
        hidden = hidden.to(torch.float32)
        variance = hidden.pow(2).mean(-1, keepdim=True)
        hidden = hidden * torch.rsqrt(variance + self.eps)
        return (self.weight * hidden).to(dtype)


class GrownRotary(nn.Module):
    """Tables for as many positions as were asked for, made anew when it is first asked, in the dtype of what turns."""

    inv_freq: Tensor
    cos_cached: Tensor
    sin_cached: Tensor
    known: int | None

    def __init__(self, width: int, positions: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / (1e4 ** (torch.arange(0, width, 2).float() / width)), persistent=False)
        self.grow(positions, self.inv_freq.device, torch.get_default_dtype())
        self.known = None

    def grow(self, length: int, device: Any, dtype: Any) -> None:
        self.known = length
        places = torch.arange(length, device=device, dtype=self.inv_freq.dtype)
        angles = torch.outer(places, self.inv_freq.to(places.device))
        both = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos_cached", both.cos().to(dtype), persistent=False)
        self.register_buffer("sin_cached", both.sin().to(dtype), persistent=False)

    def forward(self, x: Tensor, length: int) -> tuple[Tensor, Tensor]:
        if self.known is None or length > self.known:
            self.grow(length, x.device, x.dtype)
        return self.cos_cached[:length].to(dtype=x.dtype), self.sin_cached[:length].to(dtype=x.dtype)


class HubBailingAttention(HubRemoteAttention):
    """Query, key and value in one matrix; Ling 2 norms query and key and turns a part of them with the model's own tables."""

    output_name = "dense"

    def __init__(self, config: Any) -> None:
        super().__init__(config, config.head_dim)
        self.query_key_value = nn.Linear(
            config.hidden_size, (self.heads + 2 * self.keys) * self.width, bias=config.use_qkv_bias
        )
        self.second = config.score_function == "sigmoid"
        if self.second:
            self.query_layernorm, self.key_layernorm = HubBailingNorm(self.width), HubBailingNorm(self.width)
        else:
            self.rotary_emb = GrownRotary(self.width, config.max_position_embeddings)
        self.dense = nn.Linear(self.heads * self.width, config.hidden_size, bias=config.use_bias)

    def rotate(self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, tables: Any) -> Any:
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
        return (q_turned, k_turned), ()

    def turned(self, hidden: Tensor, positions: Tensor, *beside: Any) -> Turned:
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
        (q, k), held = self.rotate(q, k, v, positions, beside[0])
        return (q, k, v), (qkv, *held)


class HubBailingLayer(nn.Module):
    """Pre-norm attention, and an MLP or experts."""

    def __init__(self, config: Any, index: int) -> None:
        super().__init__()
        self.attention = HubBailingAttention(config)
        gate = GroupGate if config.score_function == "sigmoid" else HubGate
        dense = index < config.first_k_dense_replace
        self.mlp = (
            HubGatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act)
            if dense
            else HubSparseBlock(config, gate)
        )
        self.input_layernorm = HubBailingNorm(config.hidden_size)
        self.post_attention_layernorm = HubBailingNorm(config.hidden_size)

    def forward(self, hidden: Any, mask: Tensor | None, positions: Tensor, tables: Any) -> Tensor:
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


class BailingMoeModel(HubRemoteDecoder):
    """The stack; Ling 2 has one set of tables for all layers."""

    embedding_name = "word_embeddings"

    def __init__(self, config: Any) -> None:
        indices = iter(range(config.num_hidden_layers))
        super().__init__(config, lambda config: HubBailingLayer(config, next(indices)), HubBailingNorm)
        if config.score_function == "sigmoid":
            width = config.head_dim or config.hidden_size // config.num_attention_heads
            self.rotary_emb = ComputedRotary(int(width * config.partial_rotary_factor))

    def beside(self, embeddings: Tensor, positions: Tensor) -> Any:
        return (self.rotary_emb(embeddings, positions) if hasattr(self, "rotary_emb") else None,)


BailingMoeConfig = own_config(
    "bailing_moe", hidden_act="silu", num_key_value_heads=None, use_qkv_bias=False, use_bias=False, head_dim=None,
    first_k_dense_replace=0, norm_topk_prob=True, num_shared_experts=None, score_function="softmax",
    max_position_embeddings=16384, tie_word_embeddings=False, partial_rotary_factor=1.0, routed_scaling_factor=1.0,
)  # fmt: skip


class BailingMoeForCausalLM(RemoteCausal):
    """The causal language model."""

    config_class = BailingMoeConfig
    decoder = BailingMoeModel
