"""LoRA on a table of vectors: the looked-up rows of one factor, multiplied by the other.

Source: PEFT 0.21 tuners/lora/layer.py, class `Embedding`. Both factors are seen transposed, so autocast never caches their copies,
and the gradient of lora_a arrives by entry and is cloned to lie by rank (torch accumulate_grad.h, `clone_obey_contract`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.architecture.module import Embedding, look_up
from loralens.core.methods.adapters import rank_of
from loralens.core.question.needs import SHARDED
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import Size

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.methods.base import Prepared
    from loralens.core.question.recipe import Lora, Recipe
    from loralens.core.tape.tape import Tape


def walked_table(root: Root, recipe: Recipe) -> Embedding | None:
    """The table whose adapter's step is modelled: a decoder's tokens, where every GPU has the model whole, as transformers has it."""
    whole = recipe.parallelism.strategy not in SHARDED and recipe.parallelism.model_parallel == 1
    return root.embedding if isinstance(root, CausalDecoder) and whole and not root.framework else None


def hooked(root: Root, prepared: Prepared) -> Prepared:
    """Where inputs are made to need a gradient before the adapter is there, the frozen rows beneath it keep theirs.

    Source: PEFT 0.21 `prepare_model_for_kbit_training`, transformers 5.23 `enable_input_require_grads`, whose hook stays on the table.
    """
    table = getattr(root.inner, root.names.embedding, None) if isinstance(root, CausalDecoder) else None
    adapter = getattr(table, "adapter", None)  # a pipeline's later stages have no table
    if isinstance(adapter, EmbeddingAdapter):
        adapter.hooked = prepared.input_gradients
    return prepared


@dataclass(slots=True)
class EmbeddingAdapter:
    """`E x + scaling * B A x`. Shapes: lora_a (rank, entries), lora_b (width, rank)."""

    lora_a: Parameter
    lora_b: Parameter
    hooked: bool = False

    @staticmethod
    def on(table: Embedding, name: str, lora: Lora) -> EmbeddingAdapter:
        """An adapter for the table of full name `name`."""
        rank = rank_of(name, lora)
        a = Parameter((rank, table.weight.shape[0]), role="adapter")
        b = Parameter((table.width, rank), role="adapter")
        for parameter in (a, b):
            parameter.dtype = lora.adapter_dtype
        return EmbeddingAdapter(a, b)

    def parameters(self) -> dict[str, Parameter]:
        """lora_embedding_A and lora_embedding_B."""
        return {"lora_embedding_A": self.lora_a, "lora_embedding_B": self.lora_b}

    def looked_up(self, t: Tape, table: Embedding, rows: Size, label: str, indices: Tensor | None) -> Tensor:
        """PEFT's forward; what it names lives until it returns. Shapes: result (rows, width)."""
        mark = len(t.locals)
        result = table.base(t, rows, label, indices)
        if self.hooked:
            t.require_grad(result)
        dtype, rank = result.dtype, self.lora_b.shape[-1]
        a = self._turned(t, self.lora_a, rank, cloned=True)
        b = self._turned(t, self.lora_b, table.width, cloned=False)
        found = t.local(
            look_up(t, a, rows.times(rank) if isinstance(rank, Size) else rows * rank, "LoRA: A x", indices)
        )
        product = ops.linear(t, found, None, "LoRA: B A x", weight=b)
        update = t.local(ops.scale(t, product, "LoRA: scaled update"))
        t.end(product)
        total = ops.add(t, result, update, "LoRA: base plus update")
        t.end(result)
        out = ops.cast(t, total, dtype, "LoRA: result cast back")
        if out is not total:
            t.end(total)
        t.leave(mark)
        return out

    def _turned(self, t: Tape, factor: Parameter, width: int | Size, *, cloned: bool) -> Tensor:
        w = t.parameter(factor)
        out = Tensor(None, w.numel, w.dtype, width)

        def apply(g: Tensor) -> Tensor:
            if cloned and not factor.gradient_kept:
                return t.new(w.numel, w.dtype, w.width, "gradient: LoRA factor", "temporaries")
            return g.view()

        t.record("LoRA factor, transposed", [out], [w], [], apply)
        return out
