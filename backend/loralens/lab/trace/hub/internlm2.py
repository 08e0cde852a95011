"""InternLM2 and 2.5: InternLM/InternLM2 on the Hub, modeling_internlm2.py as of version 2.5.

Read in OpenGVLab/InternVL 0c8993d, internvl_chat/internvl/model/internlm2/modeling_internlm2.py (2.0) and
DakeQQ/Native-LLM-for-Android, Export_ONNX/InternLM/modeling_modified/modeling_internlm2.py (2.5).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.activations import ACT2FN

from loralens.lab.trace.hub.parts import (
    ComputedRotary,
    HubRemoteAttention,
    HubRemoteDecoder,
    HubRMSNorm,
    RemoteCausal,
    Turned,
    own_config,
    rotated,
)


class HubInternLM2Attention(HubRemoteAttention):
    """Groups of query heads, each followed by its key and its value, in one matrix."""

    output_name = "wo"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.wqkv = nn.Linear(config.hidden_size, (self.heads + 2 * self.keys) * self.width, bias=config.bias)
        self.wo = nn.Linear(self.heads * self.width, config.hidden_size, bias=config.bias)
        self.rotary_emb = ComputedRotary(self.width)

    def turned(self, hidden: Tensor, positions: Tensor, *beside: Any) -> Turned:
        batch, length, _ = hidden.size()
        qkv = self.wqkv(hidden)
        qkv = qkv.view(batch, length, self.keys, 2 + self.groups, self.width)
        q = qkv[..., : self.groups, :]
        q = q.reshape(batch, length, self.heads, self.width).transpose(1, 2)
        k = qkv[..., -2, :].transpose(1, 2)
        v = qkv[..., -1, :].transpose(1, 2)
        cos, sin = self.rotary_emb(v, positions)
        q, k = rotated(q, k, cos, sin)
        return (q, k, v), (qkv, cos, sin)


class HubInternLM2MLP(nn.Module):
    """`w2(act(w1(x)) * w3(x))`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.w3 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.w2 = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.act = ACT2FN[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(self.act(self.w1(x)) * self.w3(x))


class HubInternLM2Layer(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.attention = HubInternLM2Attention(config)
        self.feed_forward = HubInternLM2MLP(config)
        self.attention_norm = HubRMSNorm(config.hidden_size)
        self.ffn_norm = HubRMSNorm(config.hidden_size)

    def forward(self, hidden: Tensor, mask: Tensor | None, positions: Tensor) -> Tensor:
        residual = hidden
        hidden = self.attention_norm(hidden)
        hidden = self.attention(hidden, mask, positions)
        hidden = residual + hidden
        residual = hidden
        hidden = self.ffn_norm(hidden)
        hidden = self.feed_forward(hidden)
        hidden = residual + hidden
        return hidden


class InternLM2Model(HubRemoteDecoder):
    """The stack."""

    embedding_name = "tok_embeddings"

    def __init__(self, config: Any) -> None:
        super().__init__(config, HubInternLM2Layer)


InternLM2Config = own_config("internlm2", hidden_act="silu", bias=True, num_key_value_heads=None)


class InternLM2ForCausalLM(RemoteCausal):
    """The causal language model."""

    config_class = InternLM2Config
    decoder = InternLM2Model
    head_name = "output"
