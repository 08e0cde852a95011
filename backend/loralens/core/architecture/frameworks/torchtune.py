"""torchtune's decoder: keys and values spread to all heads before any kernel, rotary in float32, layers compiled one by one.

Source: pytorch/torchtune, 0.3 to 0.5: modules/attention.py (`MultiHeadAttention`), modules/position_embeddings.py,
modules/rms_norm.py, modules/transformer.py (`TransformerDecoder`: the head's result becomes float32, or is made in chunks),
training/_compile.py (`compile_model`: every `TransformerSelfAttentionLayer`).

What a compiled layer keeps: torch _functorch/partitioners.py, `min_cut_rematerialization_partition`: results of matrix products
and of attention, reductions, and whatever backward feeds to a matrix product are kept; pointwise operators run again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.architecture.blocks import GatedMLP, Rotary, rotate
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import lookup
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.losses.cross_entropy import cross_entropy, shifted_copy
from loralens.core.architecture.shape import Shape
from loralens.core.parallel.table import strategy_of
from loralens.core.question.versions import version
from loralens.core.tape import ops
from loralens.core.tape.attention import Attention
from loralens.core.tape.checkpoint import checkpoint
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape

if TYPE_CHECKING:
    from loralens.core.architecture.config import Config
    from loralens.core.question.recipe import Recipe

# recipes/configs/llama3*/: custom_sharded_layers: ["tok_embeddings", "output"]. Assumption: for every vocabulary of this size
LOGITS_DELETED_SINCE: Final = (0, 3)
LARGE_VOCABULARY: Final = 100_000
STYLES: Final = {
    "llama": (None, False),
    "mistral": (8, False),
    "qwen2": (32, True),
}  # default kv heads, bias on q, k, v


class TuneAttention(SelfAttention):
    """Packed batches run through FlexAttention, which keeps what flash attention keeps; others are causal without a mask."""

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s = self.s
        q, k, v = self.project(t, x)
        q, k = (self._turned(t, part, call, f"attention {name}") for part, name in ((q, "query"), (k, "key")))
        groups = s.heads // s.kv_heads
        if groups > 1:
            k, v = (
                ops.copy(t, part, f"attention: {name} for all heads", part.numel * groups)
                for part, name in ((k, "key"), (v, "value"))
            )
        out = Attention(s.heads, s.heads, s.head_dim, s.head_dim, call.attention)(t, q, k, v, None)
        return self.output(t, out.view(s.heads * s.head_dim))

    def _turned(self, t: Tape, x: Tensor, call: Call, label: str) -> Tensor:
        if t.kernels.compiled:
            return ops.scale(
                t, x, f"{label} after rotary"
            )  # one kernel that keeps nothing of x, as a product with a number
        whole = ops.cast(t, x, "float32", f"{label} in float32")
        return ops.cast(t, rotate(t, whole, call.shared["rotary"], label), x.dtype, f"{label} after rotary, cast")


class TuneMLP(GatedMLP):
    """`w2(silu(w1 x) * w3 x)`; compiled, the activation and the product are one operator that keeps its two inputs."""

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        if not t.kernels.compiled:
            return super().forward(t, x)
        gate, up = self.gate_proj(t, x), self.up_proj(t, x)
        product = t.new(gate.numel, gate.dtype, gate.width, "mlp: product")
        size = (gate.numel, gate.dtype, gate.width)

        def apply(g: Tensor) -> list[Tensor | None]:
            return [t.new(*size, f"gradient: mlp {name}", "temporaries") for name in ("gate", "up")]

        t.record("mlp: product", [product], [gate, up], [gate, up], apply)
        t.end(gate, up)
        out: Tensor = self.down_proj(t, product)
        return out


class TuneLayer(DecoderLayer):
    """One compiled region when the recipe compiles."""

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        outside, t.kernels.compiled = t.kernels.compiled, call.recipe.compile
        try:
            return super().forward(t, hidden, call)
        finally:
            t.kernels.compiled = outside


class Torchtune(CausalDecoder):
    """The causal language model."""

    framework = "torchtune"
    _whole = True  # the head runs on the whole sequence at once

    def __init__(self, config: Config) -> None:
        kv_heads, bias = STYLES[config.text("model_type", "")]
        s = Shape.read(config, kv_heads=kv_heads)

        def layer(_: object) -> TuneLayer:
            return TuneLayer(s, TuneAttention(s, bias=bias), TuneMLP(s.hidden, s.intermediate, act=s.act))

        self.assemble(s, layer, [None] * s.layers)
        self.sharded_apart = not self.tied and s.vocabulary >= LARGE_VOCABULARY

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How a large vocabulary is sharded."""
        found = super().assumptions(recipe)
        if self.sharded_apart and strategy_of(recipe).wraps_apart:
            found.append(
                "embedding and head are FSDP units of their own, as in torchtune's Llama 3 configs (assumption)"
            )
        return found

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Token embeddings; the rotary cache is the model's buffer."""
        hidden = lookup(t, self.embedding, call)
        call.shared["rotary"] = Rotary(self.s.rotated, float32=True).tables(t, hidden)
        return hidden

    def finish(self, t: Tape, hidden: Tensor) -> Tensor:
        """Final norm; activation offloading moves what it keeps to the host too (training/_activation_offloading.py)."""
        if not t.hooks.moves_checkpoints:
            return super().finish(t, hidden)
        norm = super().finish
        return checkpoint(t, lambda x: (norm(t, x), []), hidden, [], "final norm")

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """The head; where it is a unit of its own its weight comes and goes by itself.

        In chunks it has the hidden states' own unit before it, and nothing comes ahead.
        """
        run = super().logits
        if not self.sharded_apart:
            return run(t, hidden)
        before = self.stacks()[-1][1].layers[-1].all_parameters() if self._whole else []
        return t.hooks.alone(t, lambda x: run(t, x), hidden, [self.head.weight], before)

    def loss(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Whole logits become float32 inside the model, and the recipe deletes them before backward.

        Before 0.3 recipes shifted a copy of them, handed it over transposed and kept it
        (recipes/lora_finetune_single_device.py: `logits[..., :-1, :].contiguous()`, `logits.transpose(1, 2)`).
        """
        self._whole = call.recipe.loss not in ("chunked", "linear")
        if call.recipe.loss != "full":
            return super().loss(t, hidden, call)
        t.ledger.where = "loss"
        labels = t.new(TOKENS, "int64", 1, "labels, shifted")
        logits = ops.cast(t, self.logits(t, hidden), "float32", "logits in float32")
        if (0,) < version(call.recipe, "torchtune") < LOGITS_DELETED_SINCE:
            logits = shifted_copy(t, logits)
            t.handed.hold(logits)
            return cross_entropy(t, logits, labels, transposed=True)
        return cross_entropy(t, logits, labels)


__all__ = ["STYLES", "Torchtune"]
