"""What all decoder-only language models share: embedding, a stack of layers, final norm, head and loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.memory.size import SEQUENCE, SEQUENCE_SQUARED, TOKENS, TOKENS_BY_SEQUENCE, ZERO, Size
from loralens.core.memory.versions import CURRENT, version

if TYPE_CHECKING:
    from loralens.core.memory.position_bias import PositionBias
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
    length: Size = SEQUENCE  # positions of a sample; an encoder's may be fixed
    checkpointing: bool = False
    biases: tuple[PositionBias, ...] = ()  # made by a stack's first layer for the others
    later: Call | None = None  # the next layer's call, until it is taken
    handed_on: bool = False
    made: list[Tensor] = field(default_factory=list)  # what the layer that runs makes for the layers after it

    def __post_init__(self) -> None:
        self.attention = self.attention or self.recipe.attention

    def after(self) -> Call:
        """A call with the same settings and none of the tensors, for what comes after the model's own forward."""
        self.held.clear()
        return self.of_length(self.length)

    def of_length(self, length: Size) -> Call:
        """A call with the same settings and no tensors, for another stack of the model."""
        return Call(
            self.recipe,
            self.validity,
            self.attention,
            input_gradients=self.input_gradients,
            length=length,
            checkpointing=self.checkpointing,
        )

    def hand_on(self, biases: Sequence[PositionBias]) -> None:
        """Called by a layer: what it made is for the layers after it. A second run of the layer makes it for itself."""
        self.made.extend(bias.tensor for bias in biases)
        if not self.handed_on:
            self.later = replace(self, biases=tuple(biases), made=[])
            self.handed_on = True
            self.held.extend(bias.tensor for bias in biases)

    def following(self) -> Call:
        """The call of the next layer; this one does not hold what it handed on."""
        later, self.later = self.later, None
        return later or self

    def tensors(self) -> list[Tensor | None]:
        """Every tensor among the arguments: a checkpoint holds them until it has recomputed."""
        found: list[Tensor | None] = list(self.masks.values())
        for value in self.shared.values():
            found.extend(value if isinstance(value, tuple) else [value])
        return [*found, *(bias.tensor for bias in self.biases)]


class Root(Module):
    """A whole model: `embed`, stacks of layers in order, `finish`. `architecture` says which family made it."""

    vocabulary: int
    head: Linear
    tied: bool
    framework = ""  # whose model code this is; empty: transformers'
    sharded_apart = False  # embedding and head are FSDP units of their own, gathered only while they run
    upcasts_logits = True  # the loss is computed on float32 logits
    own_loss = False  # not the causal loss, of which a recipe can choose a kind
    current_code = False  # older versions of the modelling code are not told apart
    reads_tokens = True  # the main input is `input_ids`, not a picture or sound
    counted = False  # only the shapes are modelled; asking for memory is refused by name
    no_adapters = ""  # why adapters on this family are not modelled
    refused_targets: frozenset[str] = frozenset()  # names on which PEFT refuses an adapter in this family
    default_targets: tuple[str, ...] | str
    float32_modules: frozenset[str] = frozenset()  # never held in float16 nor packed (`_keep_in_fp32_modules`)
    expert_targets: dict[str, str] | None = None  # names that PEFT turns into stacked weights of experts

    def stacks(self) -> list[tuple[str, Stack]]:
        """Every stack with its full name, in the order in which they run."""
        return [(name, module) for name, module in self.walk() if isinstance(module, Stack)]

    def inputs(self, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """What a micro batch holds: name and bytes of every tensor that the training loop hands over."""
        words = [("token ids", TOKENS * 8), ("labels", TOKENS * 8)]
        return [*words, ("attention mask of the batch", TOKENS * 8)] if recipe.padded else words

    def kept_beside(self, validity: Validity) -> Size:
        """Bytes that accumulated gradients hold beside themselves, being views of something larger."""
        return ZERO

    def run(self, t: Tape, call: Call, *, checkpointing: bool) -> Tensor:
        """Forward and loss of one micro batch; encoders and sequence-to-sequence models have their own."""
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
        loss = self.loss(t, hidden, after)
        t.section = "activations"
        return loss

    def loss(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Head and loss, as the recipe's `loss` and `stack` say."""
        from loralens.core.memory.loss import causal_loss

        return causal_loss(t, self, hidden, call)

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

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """How many positions a module works on for each token of the sequence; an encoder's may be more or fewer."""
        return 1.0

    def attention_spans(self, recipe: Recipe) -> list[tuple[int, float]] | None:
        """Width of each attention (query heads x head width) and the keys that it meets per token of the sequence.

        None: every layer is a decoder's, as its shape tells.
        """
        return None

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What had to be assumed about this model under this recipe."""
        found = []
        runs = self.attention_for(recipe)
        if runs != recipe.attention:
            found.append(f"this family has no {recipe.attention} attention: {runs} is what runs")
        if self.own_loss and recipe.loss != "full":
            found.append(f"this family computes its own loss on whole logits: loss={recipe.loss} changes nothing")
        if self.current_code and version(recipe, "transformers") < CURRENT["transformers"]:
            found.append("this family is modelled as transformers 5.23 runs it, whatever the stack says")
        return found


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
        dtype = call.held[0].dtype if call.held else recipe.weights_dtype  # the embeddings' dtype
        return t.new(TOKENS_BY_SEQUENCE, dtype, 1, "attention mask")
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
