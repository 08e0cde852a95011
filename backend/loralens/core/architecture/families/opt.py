"""OPT: learned positions behind the padding mask, layer norm before (or, 350m, after) each branch, ReLU.

Source: transformers 5.23, models/opt/modeling_opt.py.
"""

from __future__ import annotations

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import lookup
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, PartNames, SelfAttention
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape


class OPTAttention(SelfAttention):
    """The query is scaled before the kernel."""

    def __init__(self, s: Shape, bias: bool) -> None:
        super().__init__(s, bias=bias)
        del self.o_proj
        self.out_proj = Linear(s.hidden, s.hidden, bias, name="attention output projection")

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value by head."""
        width = self.s.head_dim
        q = ops.scale(t, self.q_proj(t, x), "attention query, scaled")
        return q.view(width), self.k_proj(t, x).view(width), self.v_proj(t, x).view(width)

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Positions are in the embeddings."""
        return q, k

    def output(self, t: Tape, x: Tensor) -> Tensor:
        """The output projection."""
        out: Tensor = self.out_proj(t, x)
        return out


class OPTLayer(Module):
    """Attention and MLP with dropout on both branches."""

    def __init__(self, s: Shape, bias: bool, affine: bool, before: bool, dropout: float) -> None:
        self.self_attn = OPTAttention(s, bias)
        self.self_attn_layer_norm = LayerNorm(s.hidden, affine=affine)
        self.fc1 = Linear(s.hidden, s.intermediate, bias, name="mlp up")
        self.fc2 = Linear(s.intermediate, s.hidden, bias, name="mlp down")
        self.final_layer_norm = LayerNorm(s.hidden, affine=affine)
        self._s, self._before, self._dropout = s, before, dropout

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        if self._before:
            hidden = self.self_attn_layer_norm(t, hidden)
        hidden = self.self_attn(t, hidden, call)
        hidden = ops.dropout(t, hidden, self._dropout, "residual dropout")
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        if not self._before:
            hidden = self.self_attn_layer_norm(t, hidden)
        residual = hidden
        if self._before:
            hidden = self.final_layer_norm(t, hidden)
        hidden = self.fc1(t, hidden)
        hidden = activation(t, hidden, self._s.act, "mlp: activated")
        hidden = self.fc2(t, hidden)
        hidden = ops.dropout(t, hidden, self._dropout, "residual dropout")
        hidden = ops.add(t, residual, hidden, "residual stream after the layer")
        return hidden if self._before else self.final_layer_norm(t, hidden)


class OPTDecoder(Module):
    """`model.decoder.`: embeddings, projections where the embedding is narrower, layers, final norm."""

    def __init__(self, s: Shape, width: int, positions: int, layer: Stack, final_norm: Module | None) -> None:
        self.embed_tokens = Embedding(s.vocabulary, width)
        self.embed_positions = Embedding(positions + 2, s.hidden)
        self.project_out = Linear(s.hidden, width, name="projection to the embedding") if width != s.hidden else None
        self.project_in = Linear(width, s.hidden, name="projection of the embedding") if width != s.hidden else None
        self.final_layer_norm = final_norm
        self.layers = layer


class OPT(CausalDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, tied=True, intermediate=config.integer("ffn_dim", default=3072), act="relu", rotary=0)
        bias, affine = config.flag("enable_bias", True), config.flag("layer_norm_elementwise_affine", True)
        before = config.flag("do_layer_norm_before", True)
        dropout = config.number("dropout", 0.1, 0, 1)
        width = config.integer("word_embed_proj_dim", default=s.hidden)
        last = (
            LayerNorm(s.hidden, affine=affine)
            if before and not config.flag("_remove_final_layer_norm", False)
            else None
        )
        stack = Stack(lambda _: OPTLayer(s, bias, affine, before, dropout), s.windows)
        self.model = Module()
        self.learned_positions = config.integer("max_position_embeddings", default=2048)
        decoder = OPTDecoder(s, width, self.learned_positions, stack, last)
        self.model.decoder = decoder
        self.lm_head = Linear(width, s.vocabulary, name="head")
        if s.tied:
            self.lm_head.weight = self.decoder.embed_tokens.weight
        self.head, self.vocabulary, self.tied, self.s = self.lm_head, s.vocabulary, s.tied, s
        self._names = PartNames("model.decoder", norm="final_layer_norm")
        self._inner = self._names.inner

    @property
    def decoder(self) -> OPTDecoder:
        """The model under the head."""
        found: OPTDecoder = self.model.decoder
        return found

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Token plus position embeddings; positions follow the padding mask, sample by sample."""
        model = self.decoder
        tokens = lookup(t, model.embed_tokens, call)
        if not call.recipe.padded:
            call.shared["position mask"] = t.new(TOKENS, "float32", 1, "position mask")
        call.shared["position ids"] = t.new(TOKENS, "int64", 1, "position ids")
        self.masks(t, call)
        indices = t.new(TOKENS, "int64", 1, "position ids plus 2")
        positions = model.embed_positions(t, TOKENS, "position embeddings", indices)
        t.end(indices)
        call.held.append(positions)
        if model.project_in is not None:
            tokens = model.project_in(t, tokens)
            call.held[0] = tokens
        return ops.add(t, tokens, positions, "embeddings")

    def finish(self, t: Tape, hidden: Tensor) -> Tensor:
        """Final norm and projection, where there are any."""
        model = self.decoder
        if model.final_layer_norm is not None:
            hidden = model.final_layer_norm(t, hidden)
        return hidden if model.project_out is None else model.project_out(t, hidden)
