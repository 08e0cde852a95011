"""T5 and Flan-T5: encoder and decoder whose attention has a learned bias for every distance, made once in each stack.

`sequence_length` is the length of the encoder's input and of the labels, as a batch of both has it.

Source: transformers 5.23, models/t5/modeling_t5.py (`T5ForConditionalGeneration`).
"""

from __future__ import annotations

from typing import Final

from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import Root, causal_mask, padding_mask
from loralens.core.architecture.config import MAX_LAYERS, MAX_VOCABULARY, Config
from loralens.core.architecture.families.t5_layers import T5Block, T5Norm, T5Widths
from loralens.core.architecture.loss import plain_cross_entropy
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import SEQUENCE, TOKENS
from loralens.core.tape.tape import Tape

BOTH_LENGTHS: Final = "sequence_length is the length of the encoder's input and of the labels"


class T5Stack(Module):
    """Encoder or decoder."""

    def __init__(self, tokens: Parameter, w: T5Widths, layers: int, *, decodes: bool) -> None:
        self.embed_tokens = Embedding(tokens.shape[0], w.hidden)  # type: ignore[arg-type]
        self.embed_tokens.weight = tokens
        firsts = [index == 0 for index in range(layers)]
        self.block = Stack(lambda first: T5Block(w, first=first, decodes=decodes), firsts)
        self.final_layer_norm = T5Norm(w.hidden)
        self._w, self._decodes = w, decodes

    def forward(
        self, t: Tape, tokens: Tensor | None, call: Call, checkpointing: bool, encoded: Tensor | None = None
    ) -> Tensor:
        """Shapes: to (rows, hidden); `tokens` is None where the batch itself holds them."""
        embeddings = self.embed_tokens(t, TOKENS, "embeddings", tokens)
        if call.input_gradients:
            t.require_grad(embeddings)
        name = "encoder.block"
        if self._decodes:
            name = "decoder.block"
            call.masks["full"] = causal_mask(t, call) if call.attention == "eager" else None
            call.masks["cross"] = padding_mask(t, call)
            call.shared["encoder"] = encoded
        else:
            call.masks["full"] = padding_mask(t, call)
        hidden = ops.dropout(t, embeddings, self._w.dropout, "embeddings: dropout")
        t.ledger.mark(f"embeddings of the {name.split('.')[0]}")
        hidden = walk_stack(t, name, self.block.layers, hidden, call, checkpointing=checkpointing)
        hidden = self.final_layer_norm(t, hidden)
        hidden = ops.dropout(t, hidden, self._w.dropout, "dropout after the last layer")
        call.held.clear()  # biases are local variables, to the end
        return hidden


class T5(Root):
    """Encoder, decoder and head."""

    default_targets = ("q", "v")
    float32_modules = frozenset({"wo"})
    own_loss = current_code = last_apart = True

    def __init__(self, config: Config) -> None:
        w = T5Widths.read(config)
        layers = config.integer("num_layers", "num_hidden_layers", high=MAX_LAYERS)
        decoder_layers = config.integer("num_decoder_layers", default=layers, high=MAX_LAYERS)
        vocabulary = config.integer("vocab_size", high=MAX_VOCABULARY)
        self.shared = Embedding(vocabulary, w.hidden)
        tokens = self.shared.weight
        self.encoder = T5Stack(tokens, w, layers, decodes=False)
        self.decoder = T5Stack(tokens, w, decoder_layers, decodes=True)
        self.lm_head = Linear(w.hidden, vocabulary, name="head")
        self.lm_head.weight = tokens  # transformers 5 ties it whatever the config says
        self.head, self.vocabulary, self.tied = self.lm_head, vocabulary, True
        self._width = w.heads * w.width
        self._scaled = config.flag("tie_word_embeddings", True)  # which then means that the head's input is scaled

    def run(self, t: Tape, call: Call, *, checkpointing: bool) -> Tensor:
        """Encoder, decoder, head, and cross entropy in the logits' own dtype."""
        if checkpointing and call.recipe.checkpoint_segment > 1:
            raise UnsupportedArchitecture(
                "segments of several T5 layers, which hand position biases on, are not modelled",
                field="checkpoint_segment",
                hint="try checkpoint_segment=1",
            )
        call.attention = self.attention_for(call.recipe)
        encoded = self.encoder(t, None, call.of_length(SEQUENCE), checkpointing)
        given = t.new(TOKENS, "int64", 1, "labels, shifted")
        decoded = self.decoder(t, given, call.of_length(SEQUENCE), checkpointing, encoded)
        hidden = decoded
        t.section = "logits"
        if self._scaled:
            t.section = "activations"
            hidden = ops.scale(t, hidden, "head: scaled input")
            t.section = "logits"
        logits = self.lm_head(t, hidden)
        t.handed.returned(logits, encoded)
        loss = plain_cross_entropy(t, logits)
        t.section = "activations"
        return loss

    def attention_spans(self, recipe: Recipe) -> list[tuple[int, float]]:
        """Every query meets every key: with a bias the kernel cannot skip what is hidden."""
        return [(self._width, float(recipe.sequence_length))] * (len(self.encoder.block) + 2 * len(self.decoder.block))

    def attention_for(self, recipe: Recipe) -> str:
        """Flash attention takes no bias."""
        return "sdpa" if recipe.attention == "flash" else recipe.attention

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What a sequence is here."""
        return [*super().assumptions(recipe), BOTH_LENGTHS]


class MT5(T5):
    """T5's code with a gated activation by default (transformers 5.23, models/mt5)."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.over({}, {"feed_forward_proj": "gated-gelu"}))
