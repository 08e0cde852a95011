"""DBRX: one clamped matrix for query, key and value, layer norms without bias, experts run one after the other.

Rows per expert depend on routing: an equal share is assumed. An expert's weights are a slice of the stacked ones, so that each
one's gradient is written into zeros as large as all of them.

Source: transformers 5.23, models/dbrx/modeling_dbrx.py.
"""

from __future__ import annotations

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, PartNames, SelfAttention
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import best
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.rows import like
from loralens.core.tape.scatter import index_added
from loralens.core.tape.selecting import divide_by
from loralens.core.tape.size import ONE, TOKENS
from loralens.core.tape.tape import Tape

EQUAL_SHARES = "every expert gets an equal share of the tokens (transformers runs DBRX's experts one by one)"


class DbrxAttention(SelfAttention):
    """Query, key and value are slices of one result, which is clamped."""

    def __init__(self, s: Shape) -> None:
        super().__init__(s)
        del self.q_proj, self.k_proj, self.v_proj, self.o_proj
        keys = s.kv_heads * s.head_dim
        self.Wqkv = Linear(s.hidden, s.hidden + 2 * keys, name="attention query, key and value")
        self.out_proj = Linear(s.hidden, s.hidden, name="attention output projection")
        self._widths = [s.hidden, keys, keys]

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three slices."""
        fused = self.Wqkv(t, x)
        fused = t.replace(fused, ops.clamp(t, fused, "attention: clamped query, key and value"))
        width = self.s.head_dim
        q, k, v = ops.split(t, t.local(fused), self._widths, "attention: query, key and value")
        return q.view(width), k.view(width), v.view(width)

    def output(self, t: Tape, x: Tensor) -> Tensor:
        """The output projection."""
        found: Tensor = self.out_proj(t, x)
        return found


class DbrxGLU(Module):
    """The stacked weights. Shapes: (experts * intermediate, hidden) each."""

    stacked = True

    def __init__(self, hidden: int, intermediate: int, experts: int, act: str) -> None:
        for name in ("w1", "v1", "w2"):
            setattr(self, name, Parameter((experts * intermediate, hidden)))
        self._hidden, self._intermediate, self._experts, self._act = hidden, intermediate, experts, act

    def sliced(self, t: Tape) -> tuple[Tensor, Tensor, Tensor]:
        """One expert's weights."""
        v1, w1, w2 = (self._slice(t, getattr(self, name)) for name in ("v1", "w1", "w2"))
        return v1, w1, w2

    def forward(self, t: Tape, x: Tensor, v1: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        """One expert. Shapes: (rows, hidden) to the same."""
        gate = self._product(t, x, w1, self._intermediate, "expert gate")
        up = self._product(t, x, v1, self._intermediate, "expert up")
        gate = t.replace(gate, activation(t, gate, self._act, "expert: activated gate"))
        return self._product(t, ops.mul(t, gate, up, "expert: product"), w2, self._hidden, "expert down")

    @staticmethod
    def _product(t: Tape, x: Tensor, weight: Tensor, width: int, label: str) -> Tensor:
        assert isinstance(x.width, int)
        return ops.matmul(t, x, weight, x.numel // x.width * width, width, label, flops=x.numel * (2 * width))

    def _slice(self, t: Tape, weight: Parameter) -> Tensor:
        whole = t.parameter(weight)
        part = Tensor(None, ONE * (self._intermediate * self._hidden), whole.dtype, self._hidden)
        size = whole.numel, whole.dtype, whole.width
        t.record(
            "expert: slice of the weights",
            [part],
            [whole],
            [],
            lambda g: like(t, *size, "gradient: expert weights").as_view(),
        )
        return part


class DbrxExperts(Module):
    """Each takes its rows, and adds its result to the sum in place."""

    def __init__(self, hidden: int, intermediate: int, experts: int, act: str) -> None:
        self.mlp = DbrxGLU(hidden, intermediate, experts, act)
        self._hidden, self._experts = hidden, experts

    def forward(self, t: Tape, x: Tensor, weights: Tensor, chosen: int) -> Tensor:
        """Shapes: x (rows, hidden), weights (rows, chosen), result (rows, hidden)."""
        total = t.new(x.numel, x.dtype, self._hidden, "experts: sum")
        mask = t.new(TOKENS * (chosen * (self._experts + 1)), "int64", 1, "router: one-hot mask")
        rows = ONE * max(1, t.validity.pinned_tokens() * chosen // self._experts)
        states: Tensor | None = None
        for _ in range(self._experts):
            index = t.new(rows * 2, "int64", 2, "experts: rows of one expert")
            weights_of_one = self.mlp.sliced(t)
            share = ops.indexed(t, x, index, rows * self._hidden, self._hidden, "experts: input of one")
            states = self.mlp(t, share, *weights_of_one)
            t.end(share)
            factor = ops.indexed(t, weights, index, rows, 1, "experts: weights of one")
            states = t.replace(states, ops.mul(t, states, factor, "experts: weighted"))
            t.end(factor)
            total = index_added(t, total, index, states, "experts: sum")
        t.end(states, mask)
        return total


class DbrxFFN(Module):
    """Router and experts. `normed`: the chosen scores are divided by their norm."""

    def __init__(self, s: Shape, experts: int, chosen: int, normed: bool) -> None:
        self.router = Module()
        self.router.layer = Linear(s.hidden, experts, name="router")
        self.experts = DbrxExperts(s.hidden, s.intermediate, experts, s.act)
        self.chosen, self._normed = chosen, normed

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        logits = t.local(self.router.layer(t, x))
        scores = ops.softmax(t, logits, None, "router: scores")
        values, numbers = best(t, scores, self.chosen)
        t.end(scores)
        if self._normed:
            wide = ops.cast(t, values, "float32" if t.autocast else values.dtype, "router: chosen scores, wide")
            total = ops.total(t, wide, "router: norm of the chosen scores", numel=TOKENS, width=1)
            values = divide_by(t, values, total, "router: normed scores")
            t.end(total)
        t.local(numbers)
        out: Tensor = self.experts(t, x, values, self.chosen)
        return out


class DbrxBlock(Module):
    """Attention between two norms, then the experts."""

    def __init__(self, s: Shape, attention: DbrxAttention, ffn: DbrxFFN, dropout: float) -> None:
        self.norm_attn_norm = Module()
        self.norm_attn_norm.norm_1 = _norm(s.hidden)
        self.norm_attn_norm.attn = attention
        self.norm_attn_norm.norm_2 = _norm(s.hidden)
        self.ffn = ffn
        self._dropout = dropout

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        parts, residual, dtype = self.norm_attn_norm, hidden, hidden.dtype
        hidden = ops.cast(t, parts.norm_1(t, hidden), dtype, "norm: output, cast back")
        hidden = parts.attn(t, hidden, call)
        hidden = ops.dropout(t, hidden, self._dropout, "residual dropout")
        hidden = ops.add(t, hidden, residual, "residual stream after attention")
        residual = hidden
        hidden = ops.cast(t, parts.norm_2(t, hidden), hidden.dtype, "norm: output, cast back")
        hidden = self.ffn(t, hidden)
        hidden = ops.dropout(t, hidden, self._dropout, "residual dropout")
        return ops.add(t, residual, hidden, "residual stream after the layer")


class Dbrx(CausalDecoder):
    """The causal language model."""

    default_targets = ("Wqkv",)

    def __init__(self, config: Config) -> None:
        attention = config.nested("attn_config") or Config({}, config.transformers)
        ffn = config.nested("ffn_config") or Config({}, config.transformers)
        own = {"hidden_size": "d_model", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"}
        over = {usual: config.entries[name] for usual, name in own.items() if config.has(name)}
        act = ffn.nested("ffn_act_fn") or Config({}, config.transformers)
        over |= {
            "intermediate_size": ffn.integer("ffn_hidden_size", default=3584),
            "num_key_value_heads": attention.integer("kv_n_heads", default=1, high=MAX_HEADS),
            "attention_dropout": attention.number("attn_pdrop", 0.0, 0, 1),
            "hidden_act": known(act.text("name", "silu"), "config.ffn_config.ffn_act_fn"),
        }
        s = Shape.read(config.over(over))
        experts = ffn.integer("moe_num_experts", default=4, high=MAX_EXPERTS)
        chosen = ffn.integer("moe_top_k", default=1, high=experts)
        normed = "moe_normalize_expert_weights" not in ffn.entries or ffn.has("moe_normalize_expert_weights")
        dropout = config.number("resid_pdrop", 0.0, 0, 1)

        def layer(_: object) -> DbrxBlock:
            return DbrxBlock(s, DbrxAttention(s), DbrxFFN(s, experts, chosen, normed), dropout)

        names = PartNames("transformer", "wte", "blocks", "norm_f")
        self.assemble(s, layer, s.windows, norm=_norm, names=names)

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Refused where transformers' code fails: autocast makes the experts' weights float32, the sum is in 16 bits."""
        if call.recipe.autocast is not None and call.recipe.weights_dtype != "float32":
            raise UnsupportedArchitecture(
                f"DBRX in {call.recipe.weights_dtype} fails under autocast in transformers: index_add_ of float32 into a 16-bit sum",
                field="autocast",
                hint="set autocast to null, or weights_dtype to float32",
            )
        return super().embed(t, call)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), EQUAL_SHARES]


def _norm(width: int) -> LayerNorm:
    return LayerNorm(width, bias=False)
