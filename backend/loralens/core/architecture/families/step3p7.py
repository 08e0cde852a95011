"""Step-3.7's language model: other heads where it slides, a gate for every head, experts run one after the other.

Rows per expert depend on routing: an equal share is assumed. An expert's weights are a slice of the stacked ones, so that each
one's gradient is written into zeros as large as all of them.

Source: transformers 5.23, models/step3p7/{modeling,configuration}_step3p7.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import GatedMLP, GemmaRMSNorm, Rotary
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.families.minimax_m2 import MiniMaxM2Router
from loralens.core.architecture.families.minimax_m3 import ScaledMoe
from loralens.core.architecture.families.state_space import layer_kinds
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.rotary import rotate_part
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.rows import like
from loralens.core.tape.scatter import index_added
from loralens.core.tape.size import ONE, TOKENS
from loralens.core.tape.turns import run_alike

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.tape import Tape

EQUAL_SHARES: Final = "every expert gets an equal share of the tokens (transformers runs Step-3.7's experts one by one)"
FULL: Final = "full_attention"
SLIDING: Final = "sliding_attention"


class ClampingMLP(GatedMLP):
    """Gate and up are clamped, in every layer: to infinity where the config has no limit."""

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        gate = ops.clamp(t, activation(t, self.gate_proj(t, x), self._act, "mlp: activated gate"), "mlp: clamped gate")
        up = ops.clamp(t, self.up_proj(t, x), "mlp: clamped up")
        return self.down_proj(t, ops.mul(t, gate, up, "mlp: product"))


class SlicedExperts(Module):
    """Each takes its rows, and adds its result to the sum in place. Shapes: weights (experts, out, in)."""

    stacked = True

    def __init__(self, hidden: int, intermediate: int, experts: int, act: str) -> None:
        self.gate_up_proj = Parameter((experts, 2 * intermediate, hidden))
        self.down_proj = Parameter((experts, hidden, intermediate))
        self._hidden, self._intermediate, self._experts, self._act = hidden, intermediate, experts, act

    def forward(self, t: Tape, x: Tensor, weights: Tensor, numbers: Tensor, chosen: int) -> Tensor:
        """Shapes: x (rows, hidden), weights and numbers (rows, chosen), result (rows, hidden)."""
        total = t.new(x.numel, x.dtype, self._hidden, "experts: sum")
        t.local(t.new(TOKENS * (chosen * (self._experts + 1)), "int64", 1, "router: one-hot mask"))
        rows = ONE * max(1, t.validity.pinned_tokens() * chosen // self._experts)
        current: Tensor | None = None  # the expert's before, until it is bound anew

        def run(total: Tensor) -> Tensor:
            nonlocal current
            index = t.new(rows * 2, "int64", 2, "experts: rows of one expert")
            share = ops.indexed(t, x, index, rows * self._hidden, self._hidden, "experts: input of one")
            gate_up = ops.linear(t, share, None, "expert gate and up", None, self._slice(t, self.gate_up_proj))
            t.end(share)
            current = self._gate(t, gate_up)
            out = ops.linear(t, current, None, "expert down", None, self._slice(t, self.down_proj))
            factor = ops.indexed(t, weights, index, rows, 1, "experts: weights of one")
            current = ops.mul(t, out, factor, "experts: weighted")
            t.end(factor, out)
            added = ops.cast(t, current, total.dtype, "experts: result of one")
            return index_added(t, total, index, added, "experts: sum")

        return run_alike(t, self._experts, total, run)

    def _gate(self, t: Tape, gate_up: Tensor) -> Tensor:
        gate, up = ops.split(t, gate_up, [self._intermediate] * 2, "expert: gate and up")
        gate = ops.clamp(t, activation(t, gate, self._act, "expert: activated gate"), "expert: clamped gate")
        up = ops.clamp(t, up, "expert: clamped up")
        return ops.mul(t, gate, up, "expert: product")

    def _slice(self, t: Tape, weight: Parameter) -> Tensor:
        whole = t.parameter(weight)
        part = Tensor(None, ONE * (weight.numel[0] // self._experts), whole.dtype, weight.shape[-1])
        size = whole.numel, whole.dtype, whole.width
        label = "expert: slice of the weights"
        t.record(label, [part], [whole], [], lambda g: like(t, *size, "gradient: expert weights"))
        return part


class GatedHeads(SelfAttention):
    """Norms on query and key, rotary on a part of each head, and a sigmoid of one number on every head's result."""

    heads_first = True

    def __init__(self, s: Shape, window: int | None, bias: bool) -> None:
        super().__init__(s, window, bias=bias, output_bias=bias)
        self.q_norm = GemmaRMSNorm(s.head_dim)
        self.k_norm = GemmaRMSNorm(s.head_dim)
        self.g_proj = Linear(s.hidden, s.heads, name="attention gate")

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self.s, self.s.head_dim
        q = self.q_norm(t, self.q_proj(t, x).view(width))
        k = self.k_norm(t, self.k_proj(t, x).view(width))
        v = self.v_proj(t, x).view(width)
        gate = self.g_proj(t, x).view(1)
        q, k = rotate_part(t, q, k, call.shared[f"rotary, {self.mask}"], s.rotated, pass_empty=True)
        out = self.kernel(call)(t, q, k, v, call.masks[self.mask])
        out = ops.mul(
            t, out.view(width), ops.sigmoid(t, gate, "attention: sigmoid of the gate"), "attention: gated result"
        )
        return self.o_proj(t, out.view(s.heads * width))


class StepLayer(DecoderLayer):
    """Handed the mask and the tables of its kind alone."""

    def arguments(self, call: Call) -> Call:
        """Without those of the other kind."""
        mask = self.self_attn.mask
        table = f"rotary, {mask}"
        shared = {name: value for name, value in call.shared.items() if not name.startswith("rotary")}
        return replace(call, shared={**shared, table: call.shared[table]}, masks={mask: call.masks[mask]})


class Step3p7(CausalDecoder):
    """The causal language model."""

    both_masks = True

    def __init__(self, config: Config) -> None:
        config = config.over({}, {"num_key_value_heads": config.entries.get("num_attention_groups", 8)})
        s = Shape.read(config, head_dim=128)
        if config.entries.get("gating", True) not in (True, "per-head"):
            raise UnsupportedArchitecture(
                "a gate for every value (config.gating) is not modelled", field="config.gating"
            )
        config.refuse("use_bidirectional_attention", "attention to later positions")
        window = config.integer("sliding_window", default=512, high=2**31)
        attention = layer_kinds(config, ("layer_types",), [FULL] * s.layers, (FULL, SLIDING))
        s = s.with_windows(tuple(window if kind == SLIDING else None for kind in attention))
        bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
        experts = config.integer(
            "n_routed_experts", "moe_num_experts", "num_local_experts", "num_experts", default=288, high=MAX_EXPERTS
        )
        chosen = config.integer("num_experts_per_tok", "moe_top_k", default=8, high=experts)
        width = config.integer("moe_intermediate_size", default=1280)
        shared = config.integer("share_expert_dim", "share_expert_dims", default=1280)
        self.looped_experts = experts
        self._of_kind = {kind: _of_kind(config, s, attention, kind) for kind in set(attention)}

        def layer(kind: tuple[str, str]) -> DecoderLayer:
            own = self._of_kind[kind[0]]
            mlp: Module = ClampingMLP(s.hidden, s.intermediate, mlp_bias, s.act)
            if kind[1] == "sparse":
                mlp = ScaledMoe(
                    MiniMaxM2Router(s.hidden, experts, chosen),
                    SlicedExperts(s.hidden, width, experts, s.act),
                    ClampingMLP(s.hidden, shared, mlp_bias, s.act),
                )
            turns = GatedHeads(own, window if kind[0] == SLIDING else None, bias)
            return StepLayer(own, turns, mlp, GemmaRMSNorm)

        self.assemble(s, layer, list(zip(attention, _mlps(config, s.layers), strict=True)), norm=GemmaRMSNorm)
        self.buffer_bytes = sum(own.rotated // 2 * 4 * 2 for own in self._of_kind.values())

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """One pair for each kind of layer."""
        for kind, own in self._of_kind.items():
            name = "sliding" if kind == SLIDING else "full"
            call.shared[f"rotary, {name}"] = Rotary(own.rotated).tables(t, hidden)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), EQUAL_SHARES]


def _of_kind(config: Config, s: Shape, attention: list[str], kind: str) -> Shape:
    """Heads and turned values of the layers of one kind; the first files state them beside lists for every layer."""
    heads = s.heads
    if kind == SLIDING:
        other = config.nested("attention_other_setting") or Config({})
        heads = other.integer("num_attention_heads", default=s.heads, high=MAX_HEADS)
        heads = config.integer("num_sliding_attention_heads", default=heads, high=MAX_HEADS)
    config.divides("num_sliding_attention_heads", heads, s.kv_heads)
    rope = (config.nested("rope_parameters") or Config({})).nested(kind)
    fraction = 1.0 if rope is None else rope.number("partial_rotary_factor", 1.0, 0, 1)
    listed = config.entries.get("partial_rotary_factors")
    if rope is None and isinstance(listed, (list, tuple)) and len(listed) >= len(attention):
        given = Config({"partial_rotary_factors": listed[attention.index(kind)]})
        fraction = given.number("partial_rotary_factors", 1.0, 0, 1)
    return replace(s, heads=heads, rotated=-(-int(s.head_dim * fraction) // 2) * 2)


def _mlps(config: Config, layers: int) -> list[str]:
    """Which layers are sparse: by name, by a text of numbers in the first files, or all but the first three."""
    listed = config.entries.get("moe_layers_enum")
    sparse = set(range(3, layers))
    if listed is not None:
        items = listed.split(",") if isinstance(listed, str) else listed
        try:
            sparse = {int(item) for item in items if str(item).strip()}
        except (TypeError, ValueError) as problem:
            raise InvalidInput(
                f"config.moe_layers_enum {listed!r:.60} is no list of layers", field="config.moe_layers_enum"
            ) from problem
    default = ["sparse" if index in sparse else "dense" for index in range(layers)]
    return layer_kinds(config, ("mlp_layer_types",), default, ("sparse", "dense"))
