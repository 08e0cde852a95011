"""Granite: Llama with multipliers on embeddings, branches and logits.

Source: transformers 5.23, models/granite/modeling_granite.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class GraniteLayer(DecoderLayer):
    """Each branch is multiplied before it joins the residual stream."""

    def branch(self, t: Tape, x: Tensor) -> Tensor:
        """Times `residual_multiplier`."""
        return ops.scale(t, x, "branch, multiplied")


class Granite(CausalDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config)
        bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)

        def layer(_: object) -> GraniteLayer:
            return GraniteLayer(
                s, SelfAttention(s, bias=bias, output_bias=bias), GatedMLP(s.hidden, s.intermediate, mlp_bias, s.act)
            )

        self.assemble(s, layer, s.windows)

    def scaled_embeddings(self, t: Tape, tokens: Tensor, call: Call) -> Tensor:
        """Times `embedding_multiplier`; the product takes the embeddings' place as local variable."""
        call.held.clear()
        hidden = ops.scale(t, tokens, "embeddings, multiplied")
        call.held.append(hidden)
        return hidden

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """Divided by `logits_scaling`."""
        return ops.scale(t, super().logits(t, hidden), "logits, scaled")
