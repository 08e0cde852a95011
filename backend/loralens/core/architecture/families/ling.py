"""Ling 1 and 2: query, key and value in one matrix, experts one after the other beside shared ones, under one model type.

Ling 2 (`score_function` sigmoid, or architectures with V2) norms query and key, turns a part of each head with tables of the model's
own, and chooses experts by sigmoid within groups.

Source: inclusionAI/Ming-UniVision 3bbdd2f, mingunivision/modeling_bailing_moe.py, without its gates for pictures; BailingMoeV2's code
(inclusionAI/Ling-mini-2.0 on the Hub) in a public copy. Layers that predict further tokens are not modelled.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, LateCastRMSNorm, Rotary
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import PartNames
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import Router, best
from loralens.core.architecture.moe_looped import EQUAL_SHARES
from loralens.core.architecture.moe_picked import PickedExperts, PickedMLP
from loralens.core.architecture.remote_decoder import GrownAttention, RemoteDecoder
from loralens.core.architecture.rotary import rotate_part
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.selecting import divide_by, gather
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape


class LingAttention(GrownAttention):
    """Three slices of one matrix, head by head."""

    def __init__(self, s: Shape, qkv_bias: bool, bias: bool, second: bool) -> None:
        width = (s.heads + 2 * s.kv_heads) * s.head_dim
        self.query_key_value = Linear(s.hidden, width, qkv_bias, name="attention query, key and value")
        if second:
            self.query_layernorm = LateCastRMSNorm(s.head_dim)
            self.key_layernorm = LateCastRMSNorm(s.head_dim)
        self.dense = Linear(s.heads * s.head_dim, s.hidden, bias, name="attention output projection")
        self.s, self._second, self.heads_first = s, second, second

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three slices."""
        s, width = self.s, self.s.head_dim
        fused = t.local(self.query_key_value(t, x))
        parts = [n * width for n in (s.heads, s.kv_heads, s.kv_heads)]
        q, k, v = (part.view(width) for part in ops.split(t, fused, parts, "attention: q, k, v"))
        if not self._second:
            return q, k, v
        return self.query_layernorm(t, q), self.key_layernorm(t, k), v

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """With the layer's own tables, which have the dtype of what turns, or with the model's."""
        if self._second:
            return rotate_part(t, q, k, call.shared["rotary"], self.s.rotated, pass_empty=True)
        return super().position(t, q, k, call)

    def output(self, t: Tape, x: Tensor) -> Tensor:
        """The output projection."""
        out: Tensor = self.dense(t, x)
        return out


class SoftmaxGate(Router):
    """Softmax of all experts in float32; the logits last until the layer returns."""

    normed = True

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the chosen experts, (rows, chosen) each."""
        logits = ops.linear(t, x, self.weight, "router: logits")
        t.handed.weights = logits  # the layer's, until it returns
        scores = ops.softmax(t, logits, "float32", "router: scores")
        values, numbers = best(t, scores, self.chosen)
        if self.normed:
            total = ops.total(t, values, "router: sum of the chosen scores", numel=TOKENS, width=1)
            values = divide_by(t, values, total, "router: normed scores")
        return values, numbers


class SigmoidGate(Router):
    """Sigmoid scores, of which the best groups' best are chosen; its products are of float32 copies."""

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the chosen experts, (rows, chosen) each."""
        weight = ops.cast(t, t.parameter(self.weight), "float32", "router: weight in float32")
        wide = ops.cast(t, x, "float32", "router: input in float32")
        logits = ops.linear(t, wide, self.weight, "router: logits", None, weight)
        t.end(*(each for each in (wide, weight) if each is not x))
        t.handed.weights = logits
        scores = ops.sigmoid(t, ops.cast(t, logits, "float32", "router: logits in float32"), "router: scores")
        scores = ops.cast(t, scores, logits.dtype, "router: scores")
        numbers = t.new(TOKENS * self.chosen, "int64", self.chosen, "router: chosen experts")
        values = gather(t, scores, numbers, "router: chosen scores")
        total = ops.total(t, values, "router: sum of the chosen scores", numel=TOKENS, width=1, dtype="float32")
        values = divide_by(t, values, ops.shift(t, total, "router: sum + eps"), "router: normed scores")
        return ops.scale(t, values, "router: weights"), numbers


class LingLayer(Module):
    """Pre-norm attention and MLP or experts."""

    def __init__(self, s: Shape, attention: LingAttention, mlp: Module) -> None:
        self.attention = attention
        self.mlp = mlp
        self.input_layernorm = LateCastRMSNorm(s.hidden)
        self.post_attention_layernorm = LateCastRMSNorm(s.hidden)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.attention(t, self.input_layernorm(t, hidden), call)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.mlp(t, self.post_attention_layernorm(t, hidden))
        t.local(t.handed.take_weights())
        return ops.add(t, residual, hidden, "residual stream after the layer")


class Ling(RemoteDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        if config.integer("num_nextn_predict_layers", default=0, low=0):
            raise UnsupportedArchitecture(
                "layers that predict further tokens (config.num_nextn_predict_layers), which this family trains, are not modelled",
                field="config.num_nextn_predict_layers",
                hint="num_nextn_predict_layers=0 is the model without them",
            )
        config.refuse("norm_head", "a head that is normed")
        s = Shape.read(config)
        named = f"{config.entries.get('architectures')} {config.text('model_type', '')}"
        self.second = config.text("score_function", "") == "sigmoid" or "V2" in named or "_v2" in named
        experts = config.integer("num_experts", high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", high=experts)
        width = config.integer("moe_intermediate_size")
        shared = config.integer("num_shared_experts", default=0, low=0, high=MAX_HEADS)
        dense = config.integer("first_k_dense_replace", default=0, low=0, high=100_000)
        qkv_bias, bias = config.flag("use_qkv_bias", False), config.flag("use_bias", False)
        gate = SigmoidGate if self.second else SoftmaxGate

        def layer(is_dense: bool) -> LingLayer:
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            if not is_dense:
                beside = GatedMLP(s.hidden, width * shared, act=s.act) if shared else None
                mlp = PickedMLP(gate(s.hidden, experts, chosen), PickedExperts(s.hidden, width, experts, s.act), beside)
            return LingLayer(s, LingAttention(s, qkv_bias, bias, self.second), mlp)

        kinds = [index < dense for index in range(s.layers)]
        self.assemble(s, layer, kinds, norm=LateCastRMSNorm, names=PartNames(embedding="word_embeddings"))
        self.grown_tables = not self.second
        self.buffer_bytes = (1 if self.second else s.layers) * (s.rotated // 2 * 4)
        self.buffer_numbers = experts * kinds.count(False) if self.second else 0  # biases that choose

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """Ling 2's; each layer of Ling 1 has its own."""
        if self.second:
            call.shared["rotary"] = Rotary(self.s.rotated).tables(t, hidden)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), EQUAL_SHARES.replace("transformers before 5", "this family's code")]
