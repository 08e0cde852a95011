"""Rows of the token embedding that train: PEFT's `trainable_token_indices`, in the head too where the two are tied.

Source: PEFT 0.21 utils/other.py (`set_additional_trainable_modules`) and tuners/trainable_tokens/layer.py: every forward pass
copies the trained rows into a whole new table, whose gradient is a whole table too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.methods.adapters import ends
from loralens.core.question.needs import SHARDED
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape import ops
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.scatter import index_copied
from loralens.core.tape.size import ONE

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.architecture.module import Embedding, Linear
    from loralens.core.question.recipe import Lora, Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape

_FIELD: Final = "lora.trainable_token_indices"


@dataclass(slots=True)
class TokenRows:
    """The trained rows of a table. Shapes: rows (tokens, width)."""

    rows: Parameter
    count: int

    def parameters(self) -> dict[str, Parameter]:
        """PEFT's one."""
        return {"token_adapter.trainable_tokens_delta": self.rows}

    def weight(self, t: Tape, base: Parameter) -> Tensor:
        """The table with the trained rows in it, which lives until its module's forward returns."""
        w = t.parameter(base)
        numbers = t.new(ONE * self.count, "int64", 1, "trained rows: their numbers")
        rows = ops.cast(t, t.parameter(self.rows), w.dtype, "trained rows: in the table's dtype")
        return t.local(index_copied(t, w, numbers, rows, "trained rows: the whole table"))

    def looked_up(self, t: Tape, table: Embedding, rows: Size, label: str, indices: Tensor | None) -> Tensor:
        """Rows of that table."""
        return table.base(t, rows, label, indices, self.weight(t, table.weight))

    def forward(self, t: Tape, layer: Linear, x: Tensor) -> Tensor:
        """A tied head's product with a table of its own; PEFT leaves a bias out."""
        return ops.linear(t, x, None, layer.label, weight=self.weight(t, layer.weight))


def train_rows(root: Root, recipe: Recipe) -> None:
    """Let the named rows of the embedding train, and of a head that is tied to it.

    Raises:
        InvalidInput: a number outside of the vocabulary, or an embedding that trains or is adapted otherwise.
        UnsupportedArchitecture: no plain decoder, or shards.
    """
    lora = recipe.lora
    numbers = lora.trainable_token_indices
    if numbers is None:
        return
    if not isinstance(root, CausalDecoder) or root.framework or recipe.parallelism.strategy in SHARDED:
        raise UnsupportedArchitecture(
            "trained rows of the embedding are modelled for decoders as transformers has them, on GPUs that do not shard",
            field=_FIELD,
            hint="train the whole table: modules_to_save=embed_tokens",
        )
    _check(root, lora, numbers)
    table = root.embedding
    rows = Parameter((len(numbers), table.width), role="adapter")
    rows.dtype = "float32" if lora.adapter_dtype == "float32" else recipe.weights_dtype
    table.adapter = TokenRows(rows, len(numbers))
    root.buffer_bytes += len(numbers) * table.width * ITEM_BYTES[rows.dtype]  # the rows as they were
    if root.tied and "head" in vars(root):
        root.head.adapter = TokenRows(rows, len(numbers))


def _check(root: CausalDecoder, lora: Lora, numbers: tuple[int, ...]) -> None:
    if numbers[-1] >= root.vocabulary:
        raise InvalidInput(
            f"token {numbers[-1]:,} is outside of this model's vocabulary of {root.vocabulary:,}",
            field=_FIELD,
            hint="tokens that are added resize the embedding first: say the new vocab_size in config",
        )
    if ends(root.names.embedding, lora.modules_to_save) or root.embedding.adapter is not None:
        raise InvalidInput(
            f"{root.names.embedding} trains already: PEFT takes either its rows or the whole module",
            field=_FIELD,
            hint="leave one of the two out",
        )


__all__ = ["TokenRows", "train_rows"]
