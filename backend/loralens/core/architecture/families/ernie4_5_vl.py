"""ERNIE 4.5 VL: text and pictures each have experts of their own in every sparse layer; its language model.

Source: transformers 5.23, models/ernie4_5_vl_moe/{modeling,processing}_ernie4_5_vl_moe.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.blocks import GatedMLP, rotate_half
from loralens.core.architecture.config import MAX_EXPERTS, MAX_WIDTH, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.families.ernie4_5 import ErnieRouter
from loralens.core.architecture.families.qwen_positions import pictured
from loralens.core.architecture.families.state_space import layer_kinds
from loralens.core.architecture.media import Pictures
from loralens.core.architecture.module import Module
from loralens.core.architecture.moe import ROUTING, Experts
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.tape import masked, ops
from loralens.core.tape.selecting import divide_by, gather
from loralens.core.tape.size import BATCH, SEQUENCE, TOKENS, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.parameter import Parameter
    from loralens.core.tape.tape import Tape

ENDS: Final = 2  # tokens around a picture that go to its experts with it


def _turned(t: Tape, x: Tensor, tables: tuple[Tensor, Tensor], label: str) -> Tensor:
    """By pairs in float32: x and its rotated pairs are each cast, and the sum is cast back."""
    cos, sin = tables
    direct = ops.mul(t, ops.cast(t, x, "float32", f"{label} in float32"), cos, f"{label}: x*cos")
    half = ops.cast(t, rotate_half(t, x, label), "float32", f"{label}: rotated half in float32")
    turned = ops.mul(t, half, sin, f"{label}: half*sin")
    t.end(half)
    return ops.add(t, direct, turned, f"{label} after rotary")


class ErnieVLAttention(SelfAttention):
    """Everything that turns is float32; the tables have every value twice already."""

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary by pairs, on float32 copies, cast back."""
        tables = call.shared["rotary"]
        q_out, k_out = _turned(t, q, tables, "attention query"), _turned(t, k, tables, "attention key")
        return (
            ops.cast(t, q_out, q.dtype, "attention query, cast back"),
            ops.cast(t, k_out, k.dtype, "attention key, cast back"),
        )


class ErnieVLRouter(ErnieRouter):
    """Returns its logits too."""

    def routed(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (rows, experts), weights and numbers of the chosen experts, (rows, chosen) each; in float32."""
        weight = self.adapter.weight(t, "weight", self.weight) if self.adapter and t.adapters else None
        wide = ops.cast(t, x, "float32", "router: input in float32")
        weight = ops.cast(
            t, t.parameter(self.weight) if weight is None else weight, "float32", "router: weight in float32"
        )
        logits = ops.linear(t, wide, self.weight, "router: logits", None, weight)
        scores = ops.softmax(t, logits, "float32", "router: scores")
        picked = ops.divide(scores.numel, scores.width) * self.chosen
        with t.temporary(scores.numel, "float32", scores.width, "router: biased scores"):
            best = t.new(picked, "float32", self.chosen, "router: biased scores of the chosen")
            numbers = t.new(picked, "int64", self.chosen, "router: chosen experts")
        values = gather(t, scores, numbers, "router: chosen scores")
        total = ops.total(t, values, "router: sum of the chosen scores", numel=ops.divide(picked, self.chosen), width=1)
        values = divide_by(
            t, values, ops.clamp(t, total, "router: sum of the chosen scores, clamped"), "router: weights"
        )
        t.end(best)
        return logits, values, numbers

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Without autocast; the weights are cast back."""
        outside, t.autocast = t.autocast, None
        logits, values, numbers = self.routed(t, x)
        t.autocast = outside
        return logits, ops.cast(t, values, x.dtype, "router: weights, cast back"), numbers


class KindExperts(Module):
    """Router and experts of one kind of token."""

    def __init__(self, router: ErnieVLRouter, experts: Experts) -> None:
        self.gate = router
        self.experts = experts

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: (rows, hidden) to the same, and logits (rows, experts)."""
        logits, weights, numbers = self.gate(t, x)
        return self.experts(t, x, weights, numbers, self.gate.chosen), logits


class TwoKindsMLP(Module):
    """Experts for text, experts for pictures, and an MLP that every token passes first."""

    def __init__(self, text: KindExperts, vision: KindExperts, shared: GatedMLP | None) -> None:
        self.text_moe = text
        self.vision_moe = vision
        if shared is not None:
            self.shared_experts = shared
        self._shared = shared is not None
        self._experts = text.gate.out_features

    def forward(self, t: Tape, x: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Shapes: (rows, hidden) to the same, and logits (rows, experts)."""
        beside = self.shared_experts(t, x) if self._shared else None
        out, logits = self._apart(t, x, call) if pictured(call) else self.text_moe(t, x)
        if beside is not None:
            out = ops.add(t, out, beside, "experts plus shared expert")
        return out, logits

    def _apart(self, t: Tape, x: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Every kind's tokens are taken out by a mask of all their values, and what its experts make of them is put back."""
        hidden, experts = x.width, self._experts
        assert isinstance(hidden, int)
        out = t.new(x.numel, x.dtype, hidden, "experts: results of both kinds")
        table = t.new(TOKENS * experts, "float32", experts, "router: logits of both kinds")
        seen = t.local(t.new(TOKENS, "bool", 1, "places of pictures"))
        pictures = pictured_rows(call)

        def not_seen(width: int) -> Tensor:
            return t.new(TOKENS * width, "bool", width, "places of text")

        for moe, rows, mask in (
            (self.text_moe, TOKENS - pictures, not_seen),
            (self.vision_moe, pictures, lambda _: seen.view()),
        ):
            found, logits = moe(
                t, masked.taken(t, x, mask(hidden), rows * hidden, hidden, 3, "experts: tokens of one kind")
            )
            out = masked.put(t, out, mask(hidden), found, 3, "experts: results put back")
            t.end(found)
            table = masked.put(t, table, mask(experts), logits, 2, "router: logits put back")
        return out, table


def ends_too(found: object, recipe: Recipe) -> int:
    """Tokens of a sample that go to the experts for pictures."""
    assert isinstance(found, Pictures)
    return found.tokens + ENDS * recipe.images


def pictured_rows(call: Call) -> Size:
    """Tokens of the batch that go to the experts for pictures: all where a sequence is too short for its pictures."""
    assert call.media is not None
    found = call.media.pictures(call.recipe)
    each = ends_too(found, call.recipe)
    return BATCH * each if call.validity.exceeds("sequence_length", each) else TOKENS


class ErnieVLLayer(DecoderLayer):
    """The MLP is told which tokens are a picture's; router logits last until the layer is over."""

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        hidden = self.self_attn(t, hidden, call)
        hidden = ops.add(t, hidden, residual, "residual stream after attention")
        residual = hidden
        hidden = self.post_attention_layernorm(t, hidden)
        if isinstance(self.mlp, TwoKindsMLP):
            hidden, _logits = self.mlp(t, hidden, call)
        else:
            hidden = self.mlp(t, hidden)
        return ops.add(t, hidden, residual, "residual stream after the layer")


class ErnieVLText(CausalDecoder):
    """The language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, tied=True, kv_heads=4)
        bias = config.flag("use_bias", False)
        experts = config.integer("moe_num_experts", "num_experts", default=64, high=MAX_EXPERTS)
        chosen = config.integer("moe_k", "num_experts_per_tok", default=6, high=experts)
        shared = config.integer("moe_num_shared_experts", default=2, low=0, high=MAX_HEADS)
        widths = (
            config.pair("moe_intermediate_size", 0, MAX_WIDTH) if config.has("moe_intermediate_size") else (1536, 512)
        )
        kinds = layer_kinds(config, ("mlp_layer_types",), ["dense"] + ["sparse"] * (s.layers - 1), ("dense", "sparse"))

        def own(width: int) -> KindExperts:
            return KindExperts(ErnieVLRouter(s.hidden, experts, chosen), Experts(s.hidden, width, experts, s.act))

        def layer(kind: str) -> DecoderLayer:
            mlp: Module = GatedMLP(s.hidden, s.intermediate, bias, s.act)
            if kind == "sparse":
                beside = GatedMLP(s.hidden, widths[0] * shared, bias, s.act) if shared else None
                mlp = TwoKindsMLP(own(widths[0]), own(widths[1]), beside)
            return ErnieVLLayer(s, ErnieVLAttention(s, bias=bias, output_bias=bias), mlp)

        self.assemble(s, layer, kinds)
        self._sections = sections(config, s.rotated // 2)

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """By three kinds of position, in float32; layers are handed the positions."""
        call.shared["position ids"] = t.new(TOKENS * 3 if pictured(call) else SEQUENCE, "int64", 1, "position ids")
        call.shared["rotary"] = self._tables(t)

    def _tables(self, t: Tape) -> tuple[Tensor, Tensor]:
        half = self.s.rotated // 2
        with t.temporary(TOKENS * 3, "float32", 1, "rotary: positions in float32"):
            angles = t.new(TOKENS * (3 * half), "float32", half, "rotary: angles")

        def scaled(name: str) -> Tensor:
            with t.temporary(angles.numel, "float32", half, name):
                return t.new(angles.numel, "float32", half, name)

        def composed(table: Tensor, name: str) -> Tensor:
            with (
                t.temporary(TOKENS * self._sections, "float32", self._sections, f"{name} of rows and columns"),
                t.temporary(TOKENS * half, "float32", half, f"{name} of three kinds"),
            ):
                return t.replace(table, t.new(TOKENS * (2 * half), "float32", 2 * half, name))

        cos, sin = scaled("rotary: cos"), scaled("rotary: sin")
        sin = composed(sin, "rotary: sin")
        cos = composed(cos, "rotary: cos")
        t.end(angles)
        return cos, sin

    def unreached(self) -> Iterable[Parameter]:
        """The experts for pictures where there is no tower."""
        return () if self.media else self.for_pictures()

    def for_pictures(self) -> list[Parameter]:
        """Parameters of the experts for pictures."""
        parts = [layer.mlp.vision_moe for layer in self.inner.layers.layers if isinstance(layer.mlp, TwoKindsMLP)]
        return list({id(p): p for part in parts for p in part.all_parameters()}.values())

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """Every kind's experts see their own tokens."""
        found = self.media.pictures(recipe) if self.media else None
        seen = 0.0 if found is None else min(1.0, ends_too(found, recipe) / recipe.sequence_length)
        share = seen if ".vision_moe." in name else 1.0 - seen if ".text_moe." in name else 1.0
        return share * super().uses_per_token(name, recipe)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]


def sections(config: Config, half: int) -> int:
    """How many of a head's angles are of rows and columns."""
    rope = config.nested("rope_parameters") or config.nested("rope_scaling") or Config({})
    given = rope.integers("mrope_section") or [22, 22, 20]
    return min(half, sum(given[:2]))
