"""Granite's mixtures of experts (granite-3.x 1b-a400m, 3b-a800m): Granite's multipliers, Mixtral's experts.

Source: transformers 5.23, models/{granitemoe,granitemoeshared}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.activations import activation
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import SelfAttention
from loralens.core.architecture.families.granite import Granite, GraniteLayer
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import ROUTING, Experts, Router, SparseMLP, best
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class ChosenFirstRouter(Router):
    """The best experts are chosen first; softmax runs over their scores alone."""

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the chosen experts, (rows, chosen) each."""
        logits = ops.linear(t, x, self.weight, "router: logits")
        scores = ops.cast(t, logits.view(), "float32", "router: logits in float32")
        t.end(logits)
        values, numbers = best(t, scores, self.chosen)
        values = ops.softmax(t, values, "float32", "router: weights")
        return ops.cast(t, values, x.dtype, "router: weights, cast back"), numbers


class GraniteSharedMLP(Module):
    """Gate and up in one matrix, under names of its own."""

    def __init__(self, hidden: int, intermediate: int, act: str) -> None:
        self.input_linear = Linear(hidden, 2 * intermediate, name="shared mlp gate and up")
        self.output_linear = Linear(intermediate, hidden, name="shared mlp down")
        self._act = act

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        both = self.input_linear(t, x)
        assert isinstance(both.width, int)
        gate, up = ops.split(t, both, [both.width // 2] * 2, "shared mlp: gate and up")
        product = ops.mul(t, activation(t, gate, self._act, "shared mlp: activated gate"), up, "shared mlp: product")
        out: Tensor = self.output_linear(t, product)
        return out


class GraniteMoeLayer(GraniteLayer):
    """Experts, and where the config has one, a shared MLP beside them."""

    def __init__(self, s: Shape, attention: Module, experts: SparseMLP, shared: int) -> None:
        super().__init__(s, attention, experts)
        self.block_sparse_moe = experts
        del self.mlp
        self.shared_mlp = GraniteSharedMLP(s.hidden, shared, s.act) if shared else None

    def feed_forward(self, t: Tape, hidden: Tensor) -> Tensor:
        """Experts plus shared MLP."""
        out: Tensor = self.block_sparse_moe(t, hidden)
        if self.shared_mlp is not None:
            out = ops.add(t, out, self.shared_mlp(t, hidden), "experts plus shared mlp")
        return out


class GraniteMoe(Granite):
    """The causal language model."""

    shared = 0

    def __init__(self, config: Config) -> None:
        s = Shape.read(config)
        bias = config.flag("attention_bias", False)
        experts = config.integer("num_local_experts", default=8, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=2, high=experts)
        shared = config.integer("shared_intermediate_size", default=1024, low=0) if self.shared else 0

        def layer(_: object) -> GraniteMoeLayer:
            router = ChosenFirstRouter(s.hidden, experts, chosen)
            mlp = SparseMLP(router, Experts(s.hidden, s.intermediate, experts, s.act), router_name="router")
            return GraniteMoeLayer(s, SelfAttention(s, bias=bias, output_bias=bias), mlp, shared)

        self.assemble(s, layer, s.windows)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]


class GraniteMoeShared(GraniteMoe):
    """With a shared MLP."""

    shared = 1
