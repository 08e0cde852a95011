"""Mistral 4: DeepSeek-V3's latent attention and experts; queries scaled by position, routing by a softmax in 16 bits.

Source: transformers 5.23, models/mistral4/modeling_mistral4.py.
"""

from __future__ import annotations

from loralens.core.architecture.families.deepseek import DeepSeek, LatentAttention
from loralens.core.architecture.moe_sigmoid import SoftmaxGroupRouter
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import SEQUENCE
from loralens.core.tape.tape import Tape


class Mistral4Attention(LatentAttention):
    """The query is multiplied by a number for each position."""

    def scaled(self, t: Tape, q: Tensor) -> Tensor:
        """Times the positions' scale."""
        scale = t.new(SEQUENCE, q.dtype, 1, "attention: scale of each position")
        return ops.mul(t, q, scale, "attention query, scaled")


class Mistral4(DeepSeek):
    """The causal language model."""

    expert_targets = None
    attention = Mistral4Attention
    router = SoftmaxGroupRouter
    float32_routing = False
    q_rank: int | None = 1024
    shared, experts, chosen, width, dense = 1, 128, 4, 2048, 0
