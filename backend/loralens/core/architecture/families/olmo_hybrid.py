"""OLMo-Hybrid: three layers of a gated delta net, then one of OLMo-3's attention.

Source: transformers 5.23, models/olmo_hybrid/modeling_olmo_hybrid.py.
"""

from __future__ import annotations

from dataclasses import replace

from loralens.core.architecture.blocks import GatedMLP, LateCastRMSNorm, Rotary
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.architecture.families.delta import KINDS, DeltaNet, DeltaWidths, GatedNorm
from loralens.core.architecture.families.delta_rule import CHUNK
from loralens.core.architecture.families.mixed_layer import MixedLayer
from loralens.core.architecture.families.olmo2 import Olmo2Attention, Olmo2Layer
from loralens.core.architecture.families.state_space import hide_padding, layer_kinds, mixers_as
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class OlmoDelta(DeltaNet):
    """A gated delta net where everything has a projection of its own. `doubled`: beta goes up to two."""

    def __init__(self, hidden: int, w: DeltaWidths, act: str, *, doubled: bool) -> None:
        super().__init__(hidden, w, act)
        del self.norm, self.out_proj
        for name, width in (("q", w.keys), ("k", w.keys), ("v", w.values), ("g", w.values)):
            setattr(self, f"{name}_proj", Linear(hidden, width, name=f"linear attention {name}"))
        for name in ("a", "b"):
            setattr(self, f"{name}_proj", Linear(hidden, w.value_heads, name=f"linear attention {name}"))
        self.o_proj = Linear(w.values, hidden, name="linear attention out")
        self.o_norm = GatedNorm(w.value_dim)
        self._doubled = doubled

    def widths(self, w: DeltaWidths) -> dict[str, int]:
        """No joined projections."""
        return {}

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        w = self._w
        x = hide_padding(t, x, call)
        parts = [self.q_proj(t, x), self.k_proj(t, x), self.v_proj(t, x)]
        mixed = ops.cat(t, parts, 2 * w.keys + w.values, "linear attention: query, key and value")
        t.end(*parts)
        mixed = self.conv1d(t, mixed, self._act)
        q, k, v = ops.split(t, mixed, [w.keys, w.keys, w.values], "linear attention: query, key and value")
        beta = ops.sigmoid(t, self.b_proj(t, x), "linear attention: beta")
        if self._doubled:
            beta = t.replace(beta, ops.scale(t, beta, "linear attention: 2 * beta"))
        g = self._decay(t, self.a_proj(t, x))
        out = w.rule(t, q, k, v, g, beta)
        gate = self.g_proj(t, x)
        out = self.o_norm(t, out.view(w.value_dim), gate.view(w.value_dim)).view(w.values)
        projected: Tensor = self.o_proj(t, out)
        return projected


class OlmoHybridAttention(Olmo2Attention):
    """Turned in float32, or not at all."""

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary embedding where the config has one."""
        return super().position(t, q, k, call) if "rotary" in call.shared else (q, k)


class OlmoHybridLayer(Olmo2Layer):
    """Norms behind each branch."""

    def __init__(self, s: Shape, bias: bool) -> None:
        super().__init__(s, bias)
        self.self_attn = OlmoHybridAttention(s, bias)


class OlmoLinearLayer(MixedLayer):
    """A delta net, then the MLP."""

    def arguments(self, call: Call) -> Call:
        """Not handed the rotary tables."""
        return replace(call, shared={name: value for name, value in call.shared.items() if name != "rotary"})


class OlmoHybrid(CausalDecoder):
    """The causal language model."""

    mixes = True
    caches = False
    turn = CHUNK

    def __init__(self, config: Config) -> None:
        s = Shape.read(config)
        rope = config.nested("rope_parameters")
        told = rope if rope is not None and "rope_theta" in rope.entries else config
        if told.entries.get("rope_theta", 1.0) is None:
            s = s.with_rotated(0)  # as the released models have it
        default = ["full_attention" if index % 4 == 3 else "linear_attention" for index in range(s.layers)]
        if "full_attention" not in default:
            default[-1] = "full_attention"
        kinds = layer_kinds(config, ("layer_types",), default, KINDS)
        heads = config.integer("linear_num_key_heads", default=s.heads, high=MAX_HEADS)
        w = DeltaWidths.read(config, s.heads, s.heads, max(1, int(0.75 * s.hidden / heads)), None)
        bias, doubled = config.flag("attention_bias", False), config.flag("linear_allow_neg_eigval", True)

        def layer(kind: str) -> Module:
            if kind == "full_attention":
                return OlmoHybridLayer(s, bias)
            mlp = GatedMLP(s.hidden, s.intermediate, act=s.act)
            return OlmoLinearLayer(
                s, "linear_attn", OlmoDelta(s.hidden, w, s.act, doubled=doubled), mlp, LateCastRMSNorm
            )

        self.assemble(s, layer, kinds, norm=LateCastRMSNorm)

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """Tables stay in float32."""
        if self.s.rotated:
            call.shared["rotary"] = Rotary(self.s.rotated, float32=True).tables(t, hidden)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """Which kernels run."""
        return [*super().assumptions(recipe), mixers_as(recipe)]
