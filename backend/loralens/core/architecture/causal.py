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
    held: list[Tensor] = field(default_factory=list)  # local variables of the model's own forward
    input_gradients: bool = False  # embeddings must pass a gradient on (PEFT's `enable_input_require_grads`)

    def __post_init__(self) -> None:
        self.attention = self.attention or self.recipe.attention

    def after(self) -> Call:
        """A call with the same settings and none of the tensors, for what comes after the model's own forward."""
        self.held.clear()
        return Call(self.recipe, self.validity, self.attention)

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
    upcasts_logits = True  # the loss is computed on float32 logits
    counted = False  # only the shapes are modelled; asking for memory is refused by name
    no_adapters = ""  # why adapters on this family are not modelled
    refused_targets: frozenset[str] = frozenset()  # names on which PEFT refuses an adapter in this family
    default_targets: tuple[str, ...] | str
    expert_targets: dict[str, str] | None = None  # names that PEFT turns into stacked weights of experts

    def stacks(self) -> list[tuple[str, Stack]]:
        """Every stack with its full name, in the order in which they run."""
        return [(name, module) for name, module in self.walk() if isinstance(module, Stack)]

    def run(self, t: Tape, call: Call, *, checkpointing: bool) -> Tensor:
        """Forward and loss of one micro batch; encoders and sequence-to-sequence models have their own."""
        from loralens.core.memory.loss import causal_loss
        from loralens.core.memory.stack import walk_stack

        call.attention = self.attention_for(call.recipe)
        hidden = self.embed(t, call)
        t.ledger.mark("embeddings")
        for name, stack in self.stacks():
            hidden = walk_stack(t, name, stack.layers, hidden, call, checkpointing=checkpointing)
        hidden = self.finish(t, hidden)
        after = call.after()
        del call  # only checkpoints hold masks and tables from here on
        t.section = "logits"
        loss = causal_loss(t, self, hidden, after)
        t.section = "activations"
        return loss

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Everything before the first layer."""
        raise NotImplementedError

    def finish(self, t: Tape, hidden: Tensor) -> Tensor:
        """Everything between the last layer and the head."""
        raise NotImplementedError

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """The head, and what a family does to its result before the loss."""
        return self.head(t, hidden)

    def attention_for(self, recipe: Recipe) -> str:
        """The attention implementation that runs; transformers falls back to eager where a family has no SDPA."""
        return recipe.attention

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What had to be assumed about this model under this recipe."""
        runs = self.attention_for(recipe)
        return (
            []
            if runs == recipe.attention
            else [f"this family has no {recipe.attention} attention: {runs} is what runs"]
        )


def causal_mask(t: Tape, call: Call, *, sliding_window: int | None = None, always: bool = False) -> Tensor | None:
    """The mask that transformers builds, or None where it can rely on `is_causal`.

    Source: transformers 5.23 masking_utils (`create_causal_mask`): SDPA skips the mask when nothing is padded and the
    window covers the sequence; eager always gets an additive float mask.
    """
    recipe = call.recipe
    windowed = sliding_window is not None and call.validity.exceeds("sequence_length", sliding_window - 1)
    if call.attention == "flash":
        return None
    if call.attention == "eager":
        return t.new(TOKENS_BY_SEQUENCE, recipe.weights_dtype, 1, "attention mask")
    if not recipe.padded and not windowed and not always:
        return None
    rows = TOKENS_BY_SEQUENCE if recipe.padded else SEQUENCE_SQUARED
    return t.new(rows, "bool", 1, "attention mask")


def padding_mask(t: Tape, call: Call) -> Tensor | None:
    """The mask of an encoder that sees everything: only where samples are padded.

    Source: transformers 5.23 masking_utils (`create_bidirectional_mask`).
    """
    if not call.recipe.padded or call.attention == "flash":
        return None
    return t.new(
        TOKENS_BY_SEQUENCE, call.recipe.weights_dtype if call.attention == "eager" else "bool", 1, "attention mask"
    )


def lookup(t: Tape, embedding: Embedding, call: Call) -> Tensor:
    """Token embeddings of the batch, and the position ids that every layer is handed."""
    hidden: Tensor = embedding(t, TOKENS)
    hold_embeddings(t, hidden, call)
    position_ids(t, call)
    return hidden


def position_ids(t: Tape, call: Call) -> None:
    """Every layer is handed the positions."""
    call.shared["position ids"] = t.new(SEQUENCE, "int64", 1, "position ids")


def hold_embeddings(t: Tape, hidden: Tensor, call: Call) -> None:
    """The embedding's result is a local variable (`inputs_embeds`) of the model's forward, and may need a gradient."""
    call.held.append(hidden)
    if call.input_gradients:
        t.require_grad(hidden)
