"""gpt-oss: attention sinks, alternating sliding and full layers, clamped experts with biases.

Source: transformers 5.23, models/gpt_oss/modeling_gpt_oss.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LateCastRMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.moe import ROUTING, Experts, Router, SparseMLP
from loralens.core.architecture.rotary import rotate_chunks
from loralens.core.architecture.shape import Shape, by_layer_types
from loralens.core.question.recipe import Recipe
from loralens.core.tape.eager import with_sinks
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.tape import Tape


class GptOssAttention(SelfAttention):
    """Every head has a learned sink that takes part in the softmax."""

    def __init__(self, s: Shape, window: int | None, bias: bool) -> None:
        super().__init__(s, window, bias=bias, output_bias=bias)
        self.sinks = Parameter((s.heads,))

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, tables = self.s, call.shared["rotary"]
        q, k, v = self.project(t, x)
        q, k = rotate_chunks(t, q, tables, "attention query"), rotate_chunks(t, k, tables, "attention key")
        out = with_sinks(
            t, q, k, v, call.masks[self.mask], t.parameter(self.sinks), s.heads, s.kv_heads, s.attention_dropout
        )
        return self.o_proj(t, out.view(s.heads * s.head_dim))


class GptOss(CausalDecoder):
    """The causal language model."""

    caches = False
    both_masks = True

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8, head_dim=64)
        window = config.integer("sliding_window", default=128, high=2**31)
        default = tuple(None if index % 2 else window for index in range(s.layers))
        s = s.with_windows(by_layer_types(config, s.layers, default, window))
        experts = config.integer("num_local_experts", "num_experts", default=128, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=4, high=experts)
        bias = config.flag("attention_bias", True)

        def layer(window: int | None) -> DecoderLayer:
            router = Router(s.hidden, experts, chosen, bias=True)
            mlp = SparseMLP(
                router, Experts(s.hidden, s.intermediate, experts, s.act, transposed=True), router_name="router"
            )
            return DecoderLayer(s, GptOssAttention(s, window, bias), mlp, LateCastRMSNorm)

        self.assemble(s, layer, s.windows, norm=LateCastRMSNorm)

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """Half-width tables."""
        from loralens.core.architecture.blocks import Rotary

        call.shared["rotary"] = Rotary(self.s.rotated).tables(t, hidden)

    def attention_for(self, recipe: Recipe) -> str:
        """Sinks need the eager implementation."""
        return "eager" if recipe.attention == "sdpa" else recipe.attention

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]
