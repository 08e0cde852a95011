"""Phi-3.5-MoE: Llama's layer with layer norms, and two experts of each token drawn one after the other.

Source: transformers 5.23, models/phimoe/modeling_phimoe.py (`sparsemixer`). The small tensors that it draws with and keeps
nothing of are not booked.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import ROUTING, Experts
from loralens.core.architecture.shape import Shape
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.folding import masked
from loralens.core.tape.graph import Tensor
from loralens.core.tape.selecting import gather
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape

_CHOSEN = 2  # whatever the config says


class SparseMixer(Linear):
    """The router: a linear layer whose result is drawn from twice."""

    chosen = _CHOSEN

    def __init__(self, hidden: int, experts: int) -> None:
        super().__init__(hidden, experts, name="router: logits")
        self.packable = False

    def drawn(self, t: Tape, logits: Tensor) -> Tensor:
        """The weights of both experts. Shapes: (rows, experts) to (rows, 2)."""
        first = self._one(t, logits)
        rest = masked(t, logits, t.new(TOKENS, "int64", 1, "router: first experts"), "router: logits without the first")
        return ops.cat(t, [first, self._one(t, rest)], _CHOSEN, "router: weights")

    def _one(self, t: Tape, logits: Tensor) -> Tensor:
        far = t.new(logits.numel, "bool", self.out_features, "router: experts that are far behind")
        gates = masked(t, logits, far, "router: gates, masked")
        gates = ops.softmax(t, gates, "float32" if t.autocast else None, "router: gates")
        numbers = t.new(TOKENS, "int64", 1, "router: drawn experts")
        weight = gather(t, gates, numbers, "router: weight of a drawn expert")
        out = t.new(TOKENS, weight.dtype, 1, "router: weight, multiplied")
        size = (logits.numel, weight.dtype, logits.width)
        t.record(
            "router: weight, multiplied",
            [out],
            [logits],
            [weight, numbers, gates],
            lambda g: t.new(*size, "gradient: router: logits", "temporaries"),
        )
        return out


class PhimoeMLP(Module):
    """Router and experts."""

    def __init__(self, s: Shape, experts: int) -> None:
        self.router = SparseMixer(s.hidden, experts)
        self.experts = Experts(s.hidden, s.intermediate, experts, s.act)

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        logits = self.router(t, x)
        weights = self.router.drawn(t, logits)
        numbers = t.new(TOKENS * _CHOSEN, "int64", _CHOSEN, "router: chosen experts")
        out: Tensor = self.experts(t, x, weights, numbers, _CHOSEN)
        return out


class Phimoe(CausalDecoder):
    """The causal language model."""

    refused_targets = frozenset({"router"})
    refusal = "PEFT's adapter on {} fails at the first step in this family: the layer returns three tensors"

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8, intermediate=6400)
        window = config.integer("sliding_window", high=2**31) if config.has("sliding_window") else None
        s = s.with_windows((window,) * s.layers)
        experts = config.integer("num_local_experts", default=16, high=MAX_EXPERTS)
        if config.number("input_jitter_noise", 0.0, 0, 1):
            raise UnsupportedArchitecture(
                "noise on the experts' input (config.input_jitter_noise) is not modelled",
                field="config.input_jitter_noise",
            )
        bias = config.flag("attention_bias", False)

        def layer(window: int | None) -> DecoderLayer:
            attention = SelfAttention(s, window, bias=bias, output_bias=bias)
            return DecoderLayer(s, attention, PhimoeMLP(s, experts), LayerNorm)

        self.assemble(s, layer, s.windows, norm=LayerNorm, head_bias=config.flag("lm_head_bias", False))

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]
