"""Decoders whose code lies beside their weights: most were written after the Llama of transformers 4.31 to 4.41.

What they have in common, and no model of transformers 5 has: keys and values are repeated for all heads before the kernel, masks
are numbers, not truth values, and the loss works on float32 logits of which the last position is cut off, by a copy where there
are several samples. Their code is theirs: the stack's version of transformers changes nothing of it.

Source: transformers 4.31.0, 4.36.2 and 4.41.2, models/llama/modeling_llama.py; each family's file names its own code.
"""

from __future__ import annotations

from typing import Final

from loralens.core.architecture.blocks import Attention, Rotary
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, SelfAttention
from loralens.core.architecture.heads import no_such_head
from loralens.core.architecture.rotary import rotate_part
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import SEQUENCE_SQUARED, TOKENS_BY_SEQUENCE
from loralens.core.tape.tape import Tape

OWN_CODE: Final = (
    "this family's code lies beside its weights (trust_remote_code): it is walked as that code reads, whatever version of "
    "transformers the stack names, and held by traces of a retelling of it"
)


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


class RemoteDecoder(CausalDecoder):
    """The causal language model."""

    caches = False
    default_targets: tuple[str, ...] | str = "all-linear"
    cuts_logits = True

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
