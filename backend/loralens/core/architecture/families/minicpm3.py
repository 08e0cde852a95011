"""MiniCPM3: DeepSeek's latent attention with rotary by halves, dense MLPs, and scaled embeddings, branches and hidden states.

Source: transformers 5.23, models/minicpm3/modeling_minicpm3.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, rotate
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import hold_embeddings, position_ids
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.architecture.families.deepseek import LatentAttention
from loralens.core.architecture.families.granite import GraniteLayer
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape


class MiniCPM3Attention(LatentAttention):
    """The usual rotary embedding."""

    def turned(self, t: Tape, x: Tensor, tables: tuple[Tensor, Tensor], label: str) -> Tensor:
        """By halves."""
        return rotate(t, x, tables, label)


class MiniCPM3(CausalDecoder):
    """The causal language model."""

    caches = False
    default_targets = ("q_a_proj", "kv_a_proj_with_mqa")

    def __init__(self, config: Config) -> None:
        rope = config.integer("qk_rope_head_dim", default=32, high=65_536)
        nope = config.integer("qk_nope_head_dim", default=64, high=65_536)
        s = Shape.read(config.over({"head_dim": rope}), tied=True)
        value = config.integer("v_head_dim", default=max(1, s.hidden // s.heads), high=65_536)
        missing = "q_lora_rank" not in config.entries
        q_rank = config.integer("q_lora_rank") if config.has("q_lora_rank") else 768 if missing else None
        kv_rank = config.integer("kv_lora_rank", default=256)
        bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)

        def layer(_: object) -> GraniteLayer:
            attention = MiniCPM3Attention(s, q_rank, kv_rank, nope, rope, value, bias)
            return GraniteLayer(s, attention, GatedMLP(s.hidden, s.intermediate, mlp_bias, s.act))

        self.assemble(s, layer, s.windows)

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Scaled by the embedding itself."""
        hidden = ops.scale(t, self.embedding(t, TOKENS), "embeddings, multiplied")
        hold_embeddings(t, hidden, call)
        position_ids(t, call)
        self.masks(t, call)
        self.tables(t, hidden, call)
        return hidden

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """Of hidden states that are divided."""
        return super().logits(t, t.local(ops.scale(t, hidden, "hidden states, scaled")))
