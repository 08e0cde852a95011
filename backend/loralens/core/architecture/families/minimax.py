"""MiniMax-Text-01: lightning attention between full attention layers, Mixtral's experts.

Source: transformers 5.23, models/minimax/modeling_minimax.py. Lightning attention runs block by block there; there is no
other implementation.
"""

from __future__ import annotations

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.families.delta import DividedRouter
from loralens.core.architecture.families.state_space import MAX_GROUPS, hide_padding, layer_kinds
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import MIXTRAL_TARGETS, ROUTING, Experts, SparseMLP
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import BATCH, ONE, Size
from loralens.core.tape.tape import Tape
from loralens.core.tape.turns import Collected, run_turns


class LightningAttention(Module):
    """Linear attention with a decay for each head and an output gate."""

    def __init__(self, s: Shape, block: int) -> None:
        width = s.heads * s.head_dim
        self.norm = RMSNorm(width)
        self.qkv_proj = Linear(s.hidden, 3 * width, name="attention query, key and value")
        self.out_proj = Linear(width, s.hidden, name="attention output projection")
        self.output_gate = Linear(s.hidden, width, name="attention output gate")
        self._s, self._block = s, block

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self._s, self._s.heads * self._s.head_dim
        fused = activation(t, self.qkv_proj(t, x), s.act, "attention query, key and value, activated")
        fused = hide_padding(t, fused, call).view(3 * s.head_dim)
        q, k, v = ops.split(t, fused, [s.head_dim] * 3, "attention: q, k, v")
        blocks = _Blocks(t, s, call.recipe.weights_dtype, self._block, q, k, v)
        out = blocks.run()
        out = ops.copy(t, out, "attention: output", width=width)
        out = self.norm(t, out)
        gate = ops.sigmoid(t, self.output_gate(t, x), "attention output gate, sigmoid")
        out = ops.mul(t, gate, out, "attention result, gated")
        return self.out_proj(t, out)


class _Blocks:
    """The blocks one after the other: attention inside of each, and what the state holds of those before."""

    def __init__(self, t: Tape, s: Shape, dtype: str, block: int, q: Tensor, k: Tensor, v: Tensor) -> None:
        self._t, self._s, self._dtype, self._block, self._q, self._k, self._v = t, s, dtype, block, q, k, v
        self._given = Collected(
            t, block, s.heads * s.head_dim, t.autocast or v.dtype, "attention: outputs of the blocks"
        )
        self._several = t.validity.exceeds("micro_batch_size", 1)

    def run(self) -> Tensor:
        """The output of all positions. Shapes: (rows, heads * head_dim)."""
        t, s = self._t, self._s
        first = t.new(BATCH * (s.heads * s.head_dim**2), self._v.dtype, s.head_dim, "attention: first state")
        self._state = run_turns(t, self._block, first, self._turn)
        t.end(first)
        return self._given.joined()

    def _laid_out(self, x: Tensor) -> Tensor:
        """For a batched product, which takes one sample as it lies."""
        return ops.copy(self._t, x, "attention: part of a block, laid out") if self._several else x.view()

    def _buffer(self, numel: Size, width: int) -> Tensor:
        return Tensor(None, numel, self._dtype, width)

    def _turn(self, state: Tensor, size: int) -> Tensor:
        t, s = self._t, self._s
        one = BATCH * (size * s.heads * s.head_dim)
        q, k, v = (
            ops.cut(t, x, f"attention: {name} of a block", numel=one)
            for name, x in (("query", self._q), ("key", self._k), ("value", self._v))
        )
        scores = BATCH * (s.heads * size**2)
        by_position, by_pair = ONE * (s.heads * size), ONE * (s.heads * size**2)
        laid = self._laid_out(q), self._laid_out(k)
        self._scores = ops.matmul(t, *laid, scores, size, "attention: scores")
        t.end(*laid)
        decayed = ops.mul(t, self._scores, self._buffer(by_pair, size), "attention: scores, decayed")
        self._inside = ops.matmul(t, decayed, self._laid_out(v), one, s.head_dim, "attention: output of a block")
        t.end(decayed)
        decayed = ops.mul(t, q, self._buffer(by_position, 1), "attention: query, decayed")
        self._before = ops.matmul(t, self._laid_out(decayed), state, one, s.head_dim, "attention: state, read")
        t.end(decayed)
        self._given.add(ops.add(t, self._before, self._inside, "attention: output of a block, whole"))
        decayed = ops.mul(t, k, self._buffer(by_position, 1), "attention: key, decayed")
        laid = self._laid_out(decayed), self._laid_out(v)
        flops = state.numel * (2 * size)
        self._added = ops.matmul(t, *laid, state.numel, s.head_dim, "attention: added to the state", flops=flops)
        t.end(decayed)
        t.end(*laid)
        kept = ops.mul(t, state, self._buffer(ONE * s.heads, 1), "attention: state, decayed")
        return ops.add(t, kept, self._added, "attention: state")


class MiniMaxLayer(DecoderLayer):
    """The normed hidden states are the residual stream; both parts are multiplied before they join."""

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        hidden = self.input_layernorm(t, hidden)
        residual = hidden
        hidden = self.self_attn(t, hidden, call)
        hidden = self._joined(t, residual, hidden, "residual stream after attention")
        hidden = self.post_attention_layernorm(t, hidden)
        residual = hidden
        hidden = self.mlp(t, hidden)
        return self._joined(t, residual, hidden, "residual stream after the layer")

    @staticmethod
    def _joined(t: Tape, residual: Tensor, hidden: Tensor, label: str) -> Tensor:
        first = ops.scale(t, residual, "residual stream, multiplied")
        return ops.add(t, first, ops.scale(t, hidden, "branch, multiplied"), label)


class MiniMax(CausalDecoder):
    """The causal language model."""

    mixes = True
    caches = False
    expert_targets = MIXTRAL_TARGETS

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8)
        window = config.integer("sliding_window") if config.has("sliding_window") else None
        s = s.with_windows((window,) * s.layers)
        experts = config.integer("num_local_experts", "num_experts", default=8, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=min(2, experts), high=experts)
        block = config.integer("block_size", default=256, high=MAX_GROUPS)
        default = ["linear_attention" if index % 2 else "full_attention" for index in range(s.layers)]
        kinds = layer_kinds(config, ("layer_types",), default, ("linear_attention", "full_attention"))

        def layer(kind: str) -> MiniMaxLayer:
            linear = kind == "linear_attention"
            attention: Module = LightningAttention(s, block) if linear else SelfAttention(s, window)
            mlp = SparseMLP(DividedRouter(s.hidden, experts, chosen), Experts(s.hidden, s.intermediate, experts, s.act))
            return MiniMaxLayer(s, attention, mlp)

        self.assemble(s, layer, kinds)
        self.turn = block
        self.buffer_numbers = kinds.count("linear_attention") * s.heads * (1 + 2 * block + block**2)  # decays

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]
