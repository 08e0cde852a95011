"""Decoders whose code lies beside their weights: most were written after the Llama of transformers 4.31 to 4.41.

What they have in common, and no model of transformers 5 has: keys and values are repeated for all heads before the kernel, masks
are numbers, not truth values, and the loss works on float32 logits of which the last position is cut off, by a copy where there
are several samples. Their code is theirs: the stack's version of transformers changes nothing of it.

Source: transformers 4.31.0, 4.36.2 and 4.41.2, models/llama/modeling_llama.py; each family's file names its own code.
"""

from __future__ import annotations

from typing import Final

from loralens.core.architecture.blocks import Attention, RMSNorm, Rotary
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, SelfAttention
from loralens.core.architecture.heads import no_such_head
from loralens.core.architecture.module import Stack
from loralens.core.architecture.rotary import rotate_part
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import SEQUENCE, SEQUENCE_SQUARED, TOKENS_BY_SEQUENCE, Size
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

OWN_CODE: Final = (
    "this family's code lies beside its weights (trust_remote_code): it is walked as that code reads, whatever version of "
    "transformers the stack names, and held by traces of a retelling of it"
)


class VarianceNorm(RMSNorm):
    """Only the variance is taken of a float32 copy; the product with 1/rms is cast back before the weight."""

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, width) to the same."""
        hidden = ops.cast(t, self.normalized(t, x), x.dtype, "norm: normalized")
        return ops.mul(t, hidden, t.parameter(self.weight), "norm: output")

    def normalized(self, t: Tape, x: Tensor) -> Tensor:
        """Times 1/rms, in float32; the variance is a local variable."""
        variance = t.local(self.variance(t, x))
        return ops.mul(t, x, ops.rsqrt(t, variance, "norm: 1/rms"), "norm: normalized in float32")

    def variance(self, t: Tape, x: Tensor) -> Tensor:
        """Plus epsilon, of each row."""
        squared = ops.power(t, ops.cast(t, x, "float32", "norm: input in float32"), "norm: squares")
        return ops.shift(t, ops.mean(t, squared, "norm: mean"), "norm: variance + eps")


class RemoteAttention(SelfAttention):
    """Cosines and sines made in each layer; keys and values repeated for all heads."""

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary embedding with tables of the layer's own."""
        tables = Rotary(self.s.rotated).tables(t, q)
        for table in tables:
            t.local(table)
        return rotate_part(t, q, k, tables, self.s.rotated)

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, mask = self.s, call.masks["full"]
        q, k, v = self.project(t, x)
        q, k = self.position(t, q, k, call)
        kv_heads = s.kv_heads
        if call.attention == "sdpa":
            k = self.repeated(t, k, "key")
            v = self.repeated(t, v, "value")
            kv_heads = s.heads
            if mask is not None:
                q = ops.copy(t, q, "attention: query, contiguous")
                if s.kv_heads == s.heads:
                    k = ops.copy(t, k, "attention: key, contiguous")
                    v = ops.copy(t, v, "attention: value, contiguous")
        kernel = Attention(
            s.heads, kv_heads, s.head_dim, s.head_dim, call.attention, s.attention_dropout, heads_first=self.heads_first
        )
        out = kernel(t, q, k, v, mask)
        return self.output(t, out.view(s.heads * s.head_dim))

    def repeated(self, t: Tape, x: Tensor, name: str) -> Tensor:
        """For all heads: a copy, unless there are as many already."""
        groups = self.s.heads // self.s.kv_heads
        label = f"attention: {name} repeated to all heads"
        return x if groups == 1 else ops.copy(t, x, label, x.numel * groups)


class CachedAttention(RemoteAttention):
    """Tables for every position that the model knows lie in each layer (transformers 4.31 to 4.36), and are gathered from."""

    cached: str | None = None  # dtype of the tables; None: the weights'

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary embedding with the rows of the positions."""
        tables = self.gathered(t, call, q.dtype)
        return rotate_part(t, q, k, tables, self.s.rotated)

    def gathered(self, t: Tape, call: Call, dtype: str) -> tuple[Tensor, Tensor]:
        """cos and sin of the positions, (sequence, width) each; beside them their beginnings in that dtype, if it is another."""
        width = self.s.rotated
        if (self.cached or call.recipe.weights_dtype) != dtype:
            for name in ("cos", "sin"):
                t.local(t.new(SEQUENCE * width, dtype, width, f"rotary: {name}, cast"))
        cos, sin = (t.new(SEQUENCE * width, dtype, width, f"rotary: {name}") for name in ("cos", "sin"))
        return cos, sin


class GrownAttention(RemoteAttention):
    """Each layer's tables have been made anew for the longest sequence, in the dtype of what turns (DeepSeek's way)."""

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary embedding with the rows of the positions."""
        width = self.s.rotated
        cos, sin = (t.new(SEQUENCE * width, q.dtype, width, f"rotary: {name}") for name in ("cos", "sin"))
        return rotate_part(t, q, k, (cos, sin), width)


class RemoteDecoder(CausalDecoder):
    """The causal language model. `grown_tables`: its layers' attention is `GrownAttention`, whose tables stay."""

    grown_tables = False
    caches = False
    default_targets: tuple[str, ...] | str = "all-linear"
    cuts_logits = True

    def caches_tables(self, config: Config, dtype: str | None = None) -> None:
        """Each layer has cos and sin of every position that the model knows, and the frequencies they were made of.

        `dtype`: of cos and sin; None: the weights'.
        """
        s = self.s
        positions = config.integer("max_position_embeddings", default=2048, high=2**31)
        numbers = 2 * positions * s.rotated * s.layers
        self.buffer_bytes = s.layers * (s.rotated // 2 * 4) + (0 if dtype is None else numbers * ITEM_BYTES[dtype])
        self.buffer_numbers = numbers if dtype is None else 0

    def inputs(self, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """Beside the batch what its length has made of the layers' tables."""
        given = super().inputs(recipe, validity)
        if not self.grown_tables:
            return given
        layers, wide = len(self.stack), self.wide_tables(recipe)
        narrow = ITEM_BYTES[recipe.autocast or recipe.weights_dtype] * (layers - wide)
        size = SEQUENCE * (2 * self.s.rotated * (narrow + ITEM_BYTES["float32"] * wide))
        return [*given, ("rotary: tables of all layers", size)]

    def wide_tables(self, recipe: Recipe) -> int:
        """Layers whose tables are float32 whatever autocast says: packed layers return the dtype that they are given."""
        prepared = self.packed and self.stack.layers[0].input_layernorm.weight.dtype == "float32"
        return len(self.stack) if prepared else 0

    @property
    def stack(self) -> Stack:
        """The layers; a pipeline's stage has a part of them."""
        [(_, stack)] = self.stacks()
        return stack

    @property
    def packed(self) -> bool:
        """Are the layers' weights packed?"""
        return any(parameter.packing is not None for parameter in self.stack.layers[0].all_parameters())

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """Each layer makes its own."""

    def call_head(self, name: str) -> None:
        """The head has another name than `lm_head`."""
        head = vars(self).pop("lm_head")
        vars(self).pop("head")
        setattr(self, name, head)
        self.head = head

    def take_head(self, model_type: str, kind: str, labels: int, config: Config) -> None:
        """Only the language model's is known."""
        raise no_such_head(model_type, kind)

    def masks(self, t: Tape, call: Call) -> None:
        """Of numbers, in the embeddings' dtype; none where the kernel may rely on being causal."""
        call.masks["full"] = additive_mask(t, call)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """Whose code runs."""
        return [*super().assumptions(recipe), OWN_CODE]


def additive_mask(t: Tape, call: Call) -> Tensor | None:
    """Causal and padded, as transformers before 4.48 made it (modeling_attn_mask_utils.py)."""
    padded = call.recipe.padded
    if call.attention == "flash" or (call.attention == "sdpa" and not padded):
        return None
    dtype = call.held[0].dtype if call.held else call.recipe.weights_dtype  # the embeddings'
    return t.new(TOKENS_BY_SEQUENCE if padded else SEQUENCE_SQUARED, dtype, 1, "attention mask")
