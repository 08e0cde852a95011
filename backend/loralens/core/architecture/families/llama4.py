"""Llama-4 (text): rotary embedding as complex numbers, none in every fourth layer, chunked masks; experts that see every token.

Source: transformers 5.23, models/llama4/modeling_llama4.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import Attention, GatedMLP, RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import causal_mask
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, SelfAttention
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.shape import Shape
from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import Recipe
from loralens.core.tape import derivatives, ops
from loralens.core.tape.autocast import cast_weight
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import SEQUENCE, TOKENS, TOKENS_BY_SEQUENCE
from loralens.core.tape.tape import Tape

EVERY_TOKEN: Final = "every expert computes every token (the model's own code): memory grows with the number of experts"


@dataclass(frozen=True, slots=True)
class Llama4LayerKind:
    """What tells layers apart."""

    sparse: bool
    rotary: bool
    chunked: bool


@dataclass(frozen=True, slots=True)
class Tuning:
    """Switches of attention: norm of query and key after rotary, scores scaled by position without it."""

    norm: bool
    temperature: bool

    @staticmethod
    def read(config: Config) -> Tuning:
        """Read a config, with the family's defaults."""
        return Tuning(config.flag("use_qk_norm", True), config.flag("attn_temperature_tuning", True))


class Llama4Attention(SelfAttention):
    """Complex rotary and a norm without weight, or neither and a query scaled by its position."""

    def __init__(self, s: Shape, kind: Llama4LayerKind, tuning: Tuning, bias: bool) -> None:
        super().__init__(s, bias=bias, output_bias=bias)
        self.mask = "chunked" if kind.chunked else "full"
        self._kind, self._tuning = kind, tuning

    def kernel(self, call: Call) -> Attention:
        """Eager attention computes the softmax in the scores' dtype."""
        s = self.s
        return Attention(
            s.heads,
            s.kv_heads,
            s.head_dim,
            s.head_dim,
            call.attention,
            s.attention_dropout,
            softmax_dtype=None,
            returns_weights=True,
        )

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        q, k, v = self.project(t, x)
        if self._kind.rotary:
            q, k = turned(t, q, k, call.shared["rotary"])
            if self._tuning.norm:
                q, k = unit(t, q), unit(t, k)
        elif self._tuning.temperature:
            t.local(t.new(SEQUENCE, "int64", 1, "attention: positions"))
            scales = t.new(SEQUENCE, "float32", 1, "attention: scale of each position")
            q = ops.cast(t, ops.mul(t, q, scales, "attention: query scaled by position"), q.dtype, "attention query")
        out = self.kernel(call)(t, q, k, v, call.masks[self.mask])
        return self.output(t, out.view(self.s.heads * self.s.head_dim))


def turned(t: Tape, q: Tensor, k: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Query and key in float32, read as complex numbers, times a rotation; kept is the table alone."""
    q_given, k_given = (
        ops.cast(t, q, "float32", "attention query in float32"),
        ops.cast(t, k, "float32", "attention key in float32"),
    )
    q_turned = ops.mul(t, q_given, table, "attention query, turned")
    k_turned = ops.mul(t, k_given, table, "attention key, turned")
    q, k = (
        ops.cast(t, q_turned, q.dtype, "attention query after rotary"),
        ops.cast(t, k_turned, k.dtype, "attention key after rotary"),
    )
    return q, k


def unit(t: Tape, x: Tensor) -> Tensor:
    """Root-mean-square norm without a weight, in float32."""
    given = ops.cast(t, x, "float32", "norm: input in float32")
    return ops.cast(t, RMSNorm.normalize(t, given), x.dtype, "norm: normalized")


class Llama4Experts(Module):
    """Weights of all experts, inputs first."""

    multiplies = True

    def __init__(self, hidden: int, intermediate: int, experts: int, act: str) -> None:
        self.gate_up_proj = Parameter((experts, hidden, 2 * intermediate))
        self.down_proj = Parameter((experts, intermediate, hidden))
        self._hidden, self._intermediate, self._act = hidden, intermediate, act

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (experts * rows, hidden) to the same."""
        width = self._intermediate
        both = self._product(t, x, self.gate_up_proj, 2 * width, "experts: gate and up")
        gate, up = ops.split(t, both, [width] * 2, "experts: gate and up")
        out = ops.mul(t, up, activation(t, gate, self._act, "experts: activated gate"), "experts: product")
        return self._product(t, out, self.down_proj, self._hidden, "experts: down")

    @staticmethod
    def _product(t: Tape, x: Tensor, parameter: Parameter, width: int, label: str) -> Tensor:
        """One batched product with the weights of all experts."""
        weight = t.parameter(parameter)
        if t.autocast is not None:
            weight = cast_weight(t, weight, parameter, t.autocast)
        return ops.matmul(t, x, weight, ops.divide(x.numel, x.width) * width, width, label)


class Llama4Router(Linear):
    """Scores of the chosen experts by a sigmoid, and zero for the others; PEFT and quantizers cannot wrap it."""

    def __init__(self, hidden: int, experts: int, chosen: int) -> None:
        super().__init__(hidden, experts, name="router: logits")
        self.packable = False
        self._experts, self._chosen = experts, chosen

    def scores(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and logits, (rows, experts) each.

        Raises:
            InvalidInput: an adapter was put on the router, whose result is not one tensor.
        """
        if self.adapter is not None:
            raise InvalidInput(
                "PEFT cannot adapt Llama-4's router: it returns two tensors",
                field="lora.target_modules",
                hint="name the layers: q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
            )
        logits = self.base(t, x)
        few, all_ = TOKENS * self._chosen, TOKENS * self._experts
        values = t.new(few, logits.dtype, self._chosen, "router: best logits")
        numbers = t.new(few, "int64", self._chosen, "router: chosen experts")
        size = (logits.numel, logits.dtype, logits.width)
        best = (few, logits.dtype, self._chosen)
        t.record(
            "router: best logits",
            [values],
            [logits],
            derivatives.TOPK.kept(self=logits, indices=numbers),
            lambda g: t.new(*size, "gradient: router: best logits", "temporaries"),
        )
        spread = t.new(all_, logits.dtype, self._experts, "router: spread logits")
        t.record(
            "router: spread logits",
            [spread],
            [values],
            derivatives.SCATTER.kept(src=values, index=numbers),
            lambda g: t.new(*best, "gradient: router: spread logits", "temporaries"),
        )
        spread = ops.cast(t, spread, "float32", "router: logits in float32")
        spread = ops.sigmoid(t, spread, "router: sigmoid")
        return ops.cast(t, spread, logits.dtype, "router: scores"), logits


class Llama4Moe(Module):
    """Every expert sees every token, times its score; a shared expert is added."""

    def __init__(self, s: Shape, experts: int, chosen: int) -> None:
        self.experts = Llama4Experts(s.hidden, s.intermediate, experts, s.act)
        self.router = Llama4Router(s.hidden, experts, chosen)
        self.shared_expert = GatedMLP(s.hidden, s.intermediate, act=s.act)
        self._hidden, self._count = s.hidden, experts

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: (rows, hidden) to the same, and the router's logits."""
        scores, logits = self.router.scores(t, x)
        whole = x.numel * self._count
        given = ops.copy(t, x, "experts: tokens for every expert", whole)
        by_expert = ops.copy(t, scores.view(1), "experts: scores by expert")
        given = ops.mul(t, given, by_expert, "experts: weighted tokens")
        t.end(by_expert)
        routed = self.experts(t, given)
        out = self.shared_expert(t, x)
        # the gradient of the sum is spread without a copy, and laid out when the product needs it
        out = ops.add_in_place(t, out, ops.total(t, routed, "experts: sum", numel=routed.numel // self._count))
        t.end(given, routed, scores)
        return out, logits


class Llama4Layer(Module):
    """Attention, then a dense or a sparse MLP."""

    def __init__(self, s: Shape, attention: Module, feed_forward: Module) -> None:
        self.self_attn = attention
        self.feed_forward = feed_forward
        self.input_layernorm = RMSNorm(s.hidden)
        self.post_attention_layernorm = RMSNorm(s.hidden)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        attended = self.self_attn(t, hidden, call)
        second = t.handed.take_weights()  # attention's second result, then the router's
        hidden = ops.add(t, residual, attended, "residual stream after attention")
        residual = hidden
        hidden = self.post_attention_layernorm(t, hidden)
        found: Tensor | tuple[Tensor, Tensor] = self.feed_forward(t, hidden)
        t.end(hidden)
        out, second = found if isinstance(found, tuple) else (found, second)
        hidden = ops.add(t, residual, out, "residual stream after the layer")
        t.end(attended)
        t.local(second)
        return hidden


class Llama4(CausalDecoder):
    """The text model."""

    default_targets = ("q_proj", "v_proj")
    current_code = True

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8, head_dim=128)
        experts = config.integer("num_local_experts", default=16, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=1, high=experts)
        dense = config.integer("intermediate_size_mlp", default=16384)
        bias, tuning = config.flag("attention_bias", False), Tuning.read(config)
        self._chunk = config.integer("attention_chunk_size", default=8192, high=2**31)

        def layer(kind: Llama4LayerKind) -> Llama4Layer:
            mlp: Module = Llama4Moe(s, experts, chosen) if kind.sparse else GatedMLP(s.hidden, dense, act=s.act)
            return Llama4Layer(s, Llama4Attention(s, kind, tuning, bias), mlp)

        self._kinds = kinds(config, s.layers)
        self._outside: list[Tensor] = []
        self.assemble(s, layer, self._kinds)

    def embed(self, t: Tape, call: Call) -> Tensor:
        """With a tower this model stands in another one, whose forward holds the embeddings until the loss is there."""
        hidden = super().embed(t, call)
        if call.media is not None:
            self._outside = list(call.held)
        return hidden

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """The head; a model that stands in another one returns before the loss is computed."""
        logits = super().logits(t, hidden)
        if self.media is not None:
            hidden.storage = None
        return logits

    def loss(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Head and loss."""
        loss = super().loss(t, hidden, call)
        self._outside = []
        return loss

    def masks(self, t: Tape, call: Call) -> None:
        """Both masks, whether or not layers use both."""
        call.masks["full"] = causal_mask(t, call)
        chunked = causal_mask(t, call, sliding_window=self._chunk)
        if chunked is not None and chunked.dtype == "bool":  # chunks begin where a sample does: one mask for each
            t.end(chunked)
            chunked = t.new(TOKENS_BY_SEQUENCE, "bool", 1, "attention mask")
        call.masks["chunked"] = chunked

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """Rotations as complex numbers of two float32 values."""
        width = self.s.rotated
        angles = t.new(SEQUENCE * (width // 2), "float32", width // 2, "rotary: angles")
        ones = t.new(SEQUENCE * (width // 2), "float32", width // 2, "rotary: ones")
        unscaled = t.new(SEQUENCE * width, "float32", width, "rotary: rotations")
        t.end(ones)
        call.shared["rotary"] = t.replace(unscaled, t.new(SEQUENCE * width, "float32", width, "rotary: rotations"))
        t.end(angles)

    def attention_spans(self, recipe: Recipe) -> list[tuple[int, float]]:
        """Causal, within a chunk where a layer sees chunks; eager attention multiplies all of it."""
        length, width = recipe.sequence_length, self.s.heads * self.s.head_dim
        if recipe.attention == "eager":
            return [(width, float(length))] * len(self._kinds)
        reach = [min(length, self._chunk) if kind.chunked else length for kind in self._kinds]
        return [(width, (keys + 1) / 2) for keys in reach]

    def attention_for(self, recipe: Recipe) -> str:
        """There is no flash implementation of chunked attention."""
        return "sdpa" if recipe.attention == "flash" else recipe.attention

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), EVERY_TOKEN]


def kinds(config: Config, layers: int) -> list[Llama4LayerKind]:
    """Which layers are sparse, which turn query and key, and which see chunks.

    Raises:
        InvalidInput: a list is shorter than the model.
    """
    step = config.integer("interleave_moe_layer_step", default=1, high=2**20)
    given = config.integers("moe_layers")
    sparse = set(range(step - 1, layers, step) if given is None else given)
    interval = config.integer("no_rope_layer_interval", default=4, high=2**20)
    rotary = config.integers("no_rope_layers") or [int((index + 1) % interval != 0) for index in range(layers)]
    if len(rotary) < layers:
        raise InvalidInput(
            f"config.no_rope_layers has {len(rotary)} entries for {layers} layers",
            field="config.no_rope_layers",
            hint="compare with the model's config.json on the Hub",
        )
    types = config.words("layer_types", layers)
    chunked = [bool(turns) for turns in rotary] if types is None else [kind == "chunked_attention" for kind in types]
    return [Llama4LayerKind(index in sparse, bool(rotary[index]), chunked[index]) for index in range(layers)]
