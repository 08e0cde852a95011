"""What all decoder-only language models share: embedding, a stack of layers, final norm, head and loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.memory.size import SEQUENCE, SEQUENCE_SQUARED, TOKENS, TOKENS_BY_SEQUENCE

if TYPE_CHECKING:
    from loralens.core.memory.tape import Tape, Tensor
    from loralens.core.memory.validity import Validity
    from loralens.core.recipe import Recipe


@dataclass(slots=True)
class Call:
    """What a layer is called with beside the hidden states."""

    recipe: Recipe
    validity: Validity
    attention: str = ""  # the implementation that runs; a family may have fewer than the recipe can name
    masks: dict[str, Tensor | None] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)  # rotary tables, encoder states, position biases

    def __post_init__(self) -> None:
        self.attention = self.attention or self.recipe.attention

    def tensors(self) -> list[Tensor | None]:
        """Every tensor among the arguments: a checkpoint holds them until it has recomputed."""
        found: list[Tensor | None] = list(self.masks.values())
        for value in self.shared.values():
            found.extend(value if isinstance(value, tuple) else [value])
        return found


class Root(Module):
    """A whole model: `embed`, stacks of layers in order, `finish`. `architecture` says which family made it."""

    vocabulary: int
    head: Linear
    tied: bool
    default_targets: tuple[str, ...] | str

    def stacks(self) -> list[tuple[str, Stack]]:
        """Every stack with its full name, in the order in which they run."""
        return [(name, module) for name, module in self.walk() if isinstance(module, Stack)]

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """The head, and what a family does to its result before the loss."""
        return self.head(t, hidden)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What had to be assumed about this model under this recipe."""
        return []


def causal_mask(t: Tape, call: Call, *, sliding_window: int | None = None) -> Tensor | None:
    """The mask that transformers builds, or None where it can rely on `is_causal`.

    Source: transformers 5.23 masking_utils (`create_causal_mask`): SDPA skips the mask when nothing is padded and the
    window covers the sequence; eager always gets an additive float mask.
    """
    recipe = call.recipe
    windowed = sliding_window is not None and call.validity.exceeds("sequence_length", sliding_window - 1)
    if call.attention == "flash":
        return None
    if call.attention == "eager":
        rows = TOKENS_BY_SEQUENCE if recipe.padded else SEQUENCE_SQUARED
        return t.new(rows, recipe.weights_dtype, 1, "attention mask")
    if not recipe.padded and not windowed:
        return None
    rows = TOKENS_BY_SEQUENCE if recipe.padded else SEQUENCE_SQUARED
    return t.new(rows, "bool", 1, "attention mask")


def lookup(t: Tape, embedding: Embedding, call: Call) -> Tensor:
    """Token embeddings of the batch, and the position ids that every layer is handed."""
    hidden: Tensor = embedding(t, TOKENS)
    call.shared["position ids"] = t.new(SEQUENCE, "int64", 1, "position ids")
    return hidden
