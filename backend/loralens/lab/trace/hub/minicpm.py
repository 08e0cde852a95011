"""MiniCPM 1, 2 and 4: openbmb's modeling_minicpm.py as MiniCPM4.1 has it; the sparse attention of 4.1 is another class, left out.

Read in wxthu/nas_tuner 316794f, modeling_minicpm.py.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from loralens.lab.trace.hub.parts import (
    CachedRotary,
    HubGatedMLP,
    HubRemoteDecoder,
    HubVarianceNorm,
    ProjectedAttention,
    RemoteCausal,
    own_config,
    rotate_half,
)


def turned(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary embedding in float32."""
    dtype = k.dtype
    cos = cos[positions].unsqueeze(1)
    sin = sin[positions].unsqueeze(1)
    wide_q = q.to(dtype=torch.float32, device=q.device)
    wide_k = k.to(dtype=torch.float32, device=k.device)
    q_turned = (wide_q * cos) + (rotate_half(wide_q) * sin)
    k_turned = (wide_k * cos) + (rotate_half(wide_k) * sin)
    return q_turned.to(dtype=dtype), k_turned.to(dtype=dtype)


class HubMiniCPMAttention(ProjectedAttention):
    """Query and key are turned in float32, by tables that are float32."""

    def __init__(self, config: Any) -> None:
        width = config.hidden_size // config.num_attention_heads
        super().__init__(config, CachedRotary(width, config.max_position_embeddings, torch.float32))

    def rotate(self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        return turned(q, k, cos, sin, positions)


class HubMiniCPMLayer(nn.Module):
    """Branches are scaled."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.self_attn = HubMiniCPMAttention(config)
        self.mlp = HubGatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act)
        self.input_layernorm = HubVarianceNorm(config.hidden_size)
        self.post_attention_layernorm = HubVarianceNorm(config.hidden_size)
        self.scale = config.scale_depth / math.sqrt(config.num_hidden_layers)

    def forward(self, hidden: Tensor, mask: Tensor | None, positions: Tensor) -> Tensor:
        residual = hidden
        hidden = self.input_layernorm(hidden)
        hidden = self.self_attn(hidden, mask, positions)
        hidden = residual + hidden * self.scale
        residual = hidden
        hidden = self.post_attention_layernorm(hidden)
        hidden = self.mlp(hidden)
        hidden = residual + hidden * self.scale
        return hidden


class MiniCPMModel(HubRemoteDecoder):
    """The stack; embeddings are scaled."""

    def __init__(self, config: Any) -> None:
        super().__init__(config, HubMiniCPMLayer, HubVarianceNorm)

    def embed(self, input_ids: Tensor) -> Tensor:
        return self.embed_tokens(input_ids) * self.config.scale_emb


MiniCPMConfig = own_config(
    "minicpm", hidden_act="silu", num_key_value_heads=None, attention_bias=False, max_position_embeddings=2048,
    tie_word_embeddings=True, scale_emb=1, dim_model_base=1, scale_depth=1,
)  # fmt: skip


class MiniCPMForCausalLM(RemoteCausal):
    """The causal language model."""

    config_class = MiniCPMConfig
    decoder = MiniCPMModel
    _tied_weights_keys: ClassVar = {"lm_head.weight": "model.embed_tokens.weight"}

    def head(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden / (self.config.hidden_size / self.config.dim_model_base))
