"""Encoder and decoder of BART and its successors: embeddings, positions that are learned or computed, layers.

Source: transformers 5.23, models/{bart,mbart,pegasus,m2m_100}/modeling_*.py.
"""

from __future__ import annotations

from functools import partial

from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import causal_mask, padding_mask
from loralens.core.architecture.families.bart_layers import BartLayer, Widths
from loralens.core.architecture.module import Embedding, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import SEQUENCE, TOKENS
from loralens.core.tape.tape import Tape


class BartStack(Module):
    """Encoder or decoder. `embed_positions` is a table of two more places than a sequence has."""

    embeddings_normed = True  # before the layers
    normed = False  # behind them

    def __init__(
        self, tokens: Parameter, w: Widths, places: int, shape: tuple[int, int, int], *, decodes: bool
    ) -> None:
        intermediate, heads, layers = shape
        self.embed_tokens = Embedding(tokens.shape[0], w.hidden)  # type: ignore[arg-type]
        self.embed_tokens.weight = tokens
        self._w, self._decodes = w, decodes
        self.place(places)
        self.layers = Stack(partial(BartLayer, w, intermediate, heads), [decodes] * layers)
        if self.embeddings_normed:
            self.layernorm_embedding = LayerNorm(w.hidden)
        if self.normed:
            self.layer_norm = LayerNorm(w.hidden)

    def place(self, places: int) -> None:
        """The table of positions."""
        self.embed_positions = Embedding(places + 2, self._w.hidden)

    def forward(
        self, t: Tape, tokens: Tensor | None, call: Call, checkpointing: bool, encoded: Tensor | None = None
    ) -> Tensor:
        """Shapes: to (rows, hidden); `tokens` is None where the batch itself holds them."""
        embeddings = self.words(t, tokens, call)
        side = "decoder" if self._decodes else "encoder"
        if self._decodes:
            self._masks(t, call)
            call.shared["encoder"] = encoded
        positions = self.positions(t)
        hidden = ops.add(t, embeddings, positions, "embeddings with positions")
        hidden = self.layernorm_embedding(t, hidden) if self.embeddings_normed else hidden
        hidden = ops.dropout(t, hidden, self._w.dropout, "embeddings: dropout")
        if not self._decodes:
            call.masks["full"] = padding_mask(t, call)
        t.ledger.mark(f"embeddings of the {side}")
        name = f"model.{side}.layers"
        hidden = walk_stack(t, name, self.layers.layers, hidden, call, checkpointing=checkpointing)
        hidden = self.layer_norm(t, hidden) if self.normed else hidden
        t.end(positions, embeddings)
        return hidden

    def words(self, t: Tape, tokens: Tensor | None, call: Call) -> Tensor:
        """Embeddings, multiplied by a number that may be one; it is their result that may be made to want a gradient."""
        found = self.embed_tokens(t, TOKENS, "embeddings", tokens)
        found = t.replace(found, ops.scale(t, found, "embeddings, multiplied"))
        if call.input_gradients:
            t.require_grad(found)
        return found

    def positions(self, t: Tape) -> Tensor:
        """Of every token in the encoder, of one sample's in the decoder."""
        rows = SEQUENCE if self._decodes else TOKENS
        numbers = t.new(rows, "int64", 1, "positions")
        found: Tensor = self.embed_positions(t, rows, "position embeddings", numbers)
        return found

    @staticmethod
    def _masks(t: Tape, call: Call) -> None:
        """The decoder's own tokens are never padding."""
        call.masks["full"] = causal_mask(t, call) if call.attention == "eager" else None
        call.masks["cross"] = padding_mask(t, call)


class MBartStack(BartStack):
    """A norm behind the layers too."""

    normed = True


class M2MStack(BartStack):
    """Positions are computed once and looked up, without gradients; the embeddings are not normed."""

    embeddings_normed = False
    normed = True

    def place(self, places: int) -> None:
        """A buffer, no weight."""

    def positions(self, t: Tape) -> Tensor:
        """Padding has none of its own, so every sample's are apart."""
        return t.new(TOKENS * self._w.hidden, self.embed_tokens.weight.dtype, self._w.hidden, "position embeddings")


class PegasusStack(M2MStack):
    """Tables of sinusoids that never train."""

    def place(self, places: int) -> None:
        """A weight all the same."""
        self.embed_positions = Embedding(places, self._w.hidden)
        self.embed_positions.weight.frozen = True

    def words(self, t: Tape, tokens: Tensor | None, call: Call) -> Tensor:
        """Embeddings, which may be made to want a gradient, and then multiplied."""
        found = self.embed_tokens(t, TOKENS, "embeddings", tokens)
        if call.input_gradients:
            t.require_grad(found)
        return t.replace(found, ops.scale(t, found, "embeddings, multiplied"))

    def positions(self, t: Tape) -> Tensor:
        """The same for every sample."""
        return t.new(SEQUENCE * self._w.hidden, self.embed_tokens.weight.dtype, self._w.hidden, "position embeddings")
