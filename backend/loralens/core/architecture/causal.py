"""What all decoder-only language models share: embedding, a stack of layers, final norm, head and loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from loralens.core.architecture.call import Beside, Call
from loralens.core.architecture.heads import EMBEDDING, LM, Head, attach, no_such_head, without_classes
from loralens.core.architecture.loss import assumptions as of_loss
from loralens.core.architecture.loss import causal_loss
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.question.versions import CURRENT, version
from loralens.core.tape.size import SEQUENCE, SEQUENCE_SQUARED, TOKENS, TOKENS_BY_SEQUENCE, ZERO, Size

if TYPE_CHECKING:
    from loralens.core.architecture.config import Config
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.parameter import Parameter
    from loralens.core.tape.tape import Tape
    from loralens.core.tape.validity import Validity


class Rank(Protocol):
    """A part of a model that runs in the whole one's place (`core.partition`). `last`: it ends with the loss."""

    last: bool

    def run(self, t: Tape, call: Call, *, checkpointing: bool) -> Tensor:
        """Forward, and the loss where this part has it."""


class Root(Module):
    """A whole model: `embed`, stacks of layers in order, `finish`. `architecture` says which family made it."""

    vocabulary: int
    head: Linear
    part: Rank | None = None
    tied: bool
    model_type = ""  # as the config names it, the whole model's where the language model is a part of it
    framework = ""  # whose model code this is; empty: transformers'
    sharded_apart = False  # embedding and head are FSDP units of their own, gathered only while they run
    learned_positions: int | None = None  # a table of so many places ends the sequence; None: positions are computed
    upcasts_logits = True  # the loss is computed on float32 logits
    adapts_head = False  # PEFT's all-linear takes the head too, which transformers does not know as one
    casts_shifted = False  # ... or on a shifted copy of 16-bit ones, which autocast casts
    cuts_logits = False  # ... or on float32 ones without the last position, in the model's own code (`remote_decoder`)
    casts_logits_back = False  # that code returns its logits in the dtype that they came in
    own_loss = False  # not the causal loss, of which a recipe can choose a kind
    current_code = False  # older versions of the modelling code are not told apart
    reads_tokens = True  # the main input is `input_ids`, not a picture or sound
    classifies = False  # its own head tells classes apart
    task: Head | None = None  # the head that stands in the language model's place
    media: Beside | None = None  # what a multimodal model has beside its language model
    caches = False  # its attention can put keys and values into transformers' dynamic cache while it trains
    in_stages = True  # one residual stream goes from layer to layer, as pipeline stages send it
    counted = False  # only the shapes are modelled; asking for memory is refused by name
    only_counted = ""  # why this step is refused, though its parameters are counted
    no_adapters = ""  # why adapters on this family are not modelled
    refused_targets: frozenset[str] = frozenset()  # names on which an adapter is refused in this family, and why
    refusal = "PEFT refuses adapters on {} in this family: its kernels use the weight without calling the layer"
    refuses_all_linear = ""  # why PEFT does not take `all-linear` in this family
    default_targets: tuple[str, ...] | str
    float32_modules: frozenset[str] = frozenset()  # never held in float16 nor packed (`_keep_in_fp32_modules`)
    expert_targets: dict[str, str] | None = None  # names that PEFT turns into stacked weights of experts
    last_apart = False  # backward finds another gradient behind the last layer than between two: it is walked by itself
    mixes = False  # layers bring positions together by other means than attention too
    turn: int | None = None  # positions of a turn of the loops in its layers; None: they have none
    buffer_bytes = 0  # of what a model holds beside its weights
    buffer_numbers = 0  # ... in the dtype of its weights
    looped_experts = 0  # of a layer, whose weights are slices that run one after the other
    separable = False  # transformers before 5 has its experts as a list of MLPs
    experts_in_turn = False  # a list of MLPs, as transformers before 5 has them

    @property
    def whose(self) -> str:
        """The model type, and whose code of it where it is not transformers': for messages."""
        name = self.model_type or "this family"
        return f"{self.framework}'s {name}" if self.framework else name

    def stacks(self) -> list[tuple[str, Stack]]:
        """Every stack with its full name, in the order in which they run."""
        return list(_stacks(self, ""))

    def decoder_stacks(self) -> list[tuple[str, Stack]]:
        """The stacks without those of what stands beside the language model."""
        beside = () if self.media is None else self.media.places
        return [(name, stack) for name, stack in self.stacks() if not name.startswith(beside)]

    def is_head(self, module: Module) -> bool:
        """Is this the language model's head? A pipeline's stages before the last have none."""
        return module is getattr(self, "head", None)

    def inputs(self, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """What a micro batch holds: name and bytes of every tensor that the training loop hands over."""
        words = [("token ids", TOKENS * 8), *(self.task.labels() if self.task else [("labels", TOKENS * 8)])]
        words += [("attention mask of the batch", TOKENS * 8)] if recipe.padded else []
        return words + (self.media.inputs(recipe, validity) if self.media else [])

    def buffers(self, dtype: str) -> int:
        """Bytes of what a model with weights of that dtype holds beside them."""
        return self.buffer_bytes + self.buffer_numbers * ITEM_BYTES[dtype]

    def unreached(self) -> Iterable[Parameter]:
        """Parameters that train in name and no gradient ever reaches."""
        return ()

    def kept_beside(self, validity: Validity) -> Size:
        """Bytes that accumulated gradients hold beside themselves, being views of something larger."""
        return ZERO

    def run(self, t: Tape, call: Call, *, checkpointing: bool) -> Tensor:
        """Forward and loss of one micro batch; encoders and sequence-to-sequence models have their own."""
        call.attention = self.attention_for(call.recipe)
        call.media, call.checkpointing = self.media, checkpointing
        if self.part is not None:
            return self.part.run(t, call, checkpointing=checkpointing)
        hidden = self.embed(t, call)
        t.ledger.mark("embeddings")
        for name, stack in self.decoder_stacks():
            hidden = self.run_layers(t, name, stack.layers, hidden, call, checkpointing=checkpointing)
        hidden = self.finish(t, hidden)
        returned = self.media.finished(t) if self.media else []
        t.handed.returned(*returned)
        after = call.after()  # only checkpoints hold masks and tables from here on
        t.section = "logits"
        loss = self.loss(t, hidden, after)
        t.section = "activations"
        t.end(*returned)
        return loss

    def run_layers(
        self, t: Tape, name: str, layers: list[Module], hidden: Tensor, call: Call, *, checkpointing: bool
    ) -> Tensor:
        """One stack, one layer after the other."""
        return walk_stack(t, name, layers, hidden, call, checkpointing=checkpointing)

    def loss(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Head and loss, as the recipe's `loss` and `stack` say."""
        mark = len(t.locals)
        try:
            if call.read is not None:
                return call.read(t, self, hidden, call)
            return self.task.loss(t, hidden) if self.task else causal_loss(t, self, hidden, call)
        finally:
            t.leave(mark)  # the model's forward returns

    def take_head(self, model_type: str, kind: str, labels: int, config: Config) -> None:
        """Another head in the place of the language model's (`heads.attach` puts it there).

        Raises:
            UnsupportedArchitecture: transformers has none of this kind for the family, or it is not modelled.
        """
        own = vars(self).get("lm_head")
        if kind != EMBEDDING or not isinstance(own, Linear) or type(self).run is not Root.run:
            raise no_such_head(model_type, kind)
        for name in ("lm_head", "head"):
            delattr(self, name)
        attach(self, "", Head(kind, None))

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
        beside = self.media is not None and name.startswith(self.media.places)
        return self.media.uses_per_token(name, recipe) if self.media and beside else 1.0

    def attention_spans(self, recipe: Recipe) -> list[tuple[int, float]] | None:
        """Width of each attention (query heads x head width) and the keys that it meets per token of the sequence.

        None: every layer is a decoder's, as its shape tells.
        """
        return None

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What had to be assumed about this model under this recipe."""
        found = [] if self.media is None else self.media.assumptions(recipe)
        found += [] if self.own_loss or self.task else of_loss(recipe)
        runs = self.attention_for(recipe)
        if runs != recipe.attention:
            found.append(f"this family has no {recipe.attention} attention: {runs} is what runs")
        if self.own_loss and recipe.loss != "full":
            found.append(f"this family computes its own loss on whole logits: loss={recipe.loss} changes nothing")
        if recipe.use_cache and not self.caches and not recipe.gradient_checkpointing:
            found.append("use_cache: this family's keys and values in a cache are not modelled while it trains")
        kind = LM if self.task is None else self.task.kind
        if not self.classifies and (why := without_classes(kind, recipe.num_labels)):
            found.append(f"num_labels changes nothing: {why}")
        if self.task is not None and self.task.kind == EMBEDDING:
            found.append("embedding: a loss on one vector per sample; what it computes beyond that is not counted")
        if self.current_code and version(recipe, "transformers") < CURRENT["transformers"]:
            found.append("this family is modelled as transformers 5.23 runs it, whatever the stack says")
        return found


def _stacks(module: Module, prefix: str) -> Iterator[tuple[str, Stack]]:
    """As `Module.walk` would find them; a kind of layer that has no stack inside is looked into once."""
    for name, child in module.children():
        full = f"{prefix}.{name}" if prefix else name
        if not isinstance(child, Stack):
            yield from _stacks(child, full)
            continue
        yield full, child
        nested = {key: any(_stacks(layer, "")) for key, layer in {id(layer): layer for layer in child.layers}.items()}
        for index, layer in enumerate(child.layers):
            if nested[id(layer)]:
                yield from _stacks(layer, f"{full}.{index}")


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
    hidden: Tensor = embedding(t, TOKENS, "embeddings", token_ids(t, call))
    hold_embeddings(t, hidden, call)
    if call.media is not None:
        hidden = call.media.placed(t, hidden, call)
    position_ids(t, call)
    return hidden


def token_ids(t: Tape, call: Call) -> Tensor | None:
    """A copy of the token ids with zeros for placeholders, where a multimodal model looks these up; None: the batch's own."""
    if call.media is None or not call.media.copies_ids:
        return None
    ids = t.new(TOKENS, "int64", 1, "token ids without placeholders")
    call.held.append(ids)
    return ids


def position_ids(t: Tape, call: Call) -> None:
    """Every layer is handed the positions."""
    call.shared["position ids"] = t.new(SEQUENCE, "int64", 1, "position ids")


def end_positions(t: Tape, call: Call) -> None:
    """No layer is handed them; a later pipeline stage, which has no embedding, never had any."""
    if (positions := call.shared.pop("position ids", None)) is not None:
        t.end(positions)


def hold_embeddings(t: Tape, hidden: Tensor, call: Call) -> None:
    """The embedding's result is a local variable (`inputs_embeds`) of the model's forward, and may need a gradient."""
    call.held.append(hidden)
    if call.input_gradients:
        t.require_grad(hidden)
