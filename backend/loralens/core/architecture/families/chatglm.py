"""ChatGLM 2 and 3, whose hidden states have the sequence first, and GLM-4-9B before it was converted, whose samples come first.

Two modelling codes of one model type: a vocabulary of 100,000 tokens or more is taken for GLM-4's (151,552; ChatGLM 2 and 3 have
65,024). Their rotary function is compiled by TorchScript; it is walked operator by operator.

Source: THUDM/chatglm3-6b on the Hub, modeling_chatglm.py, read in DracoUnion/chatglm3-6b-int4-lora 61985f2; THUDM/glm-4-9b-chat's
modeling_chatglm.py, read in a public copy. Converted checkpoints (`zai-org/glm-4-9b-hf`) are model_type glm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from loralens.core.architecture.blocks import FusedGatedMLP
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import end_positions, lookup
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import PartNames
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.remote_decoder import RemoteDecoder, VarianceNorm
from loralens.core.architecture.rotary import cut
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.attention import Attention
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import ONE, TOKENS_BY_SEQUENCE
from loralens.core.tape.tape import Tape

GLM4_VOCABULARY: Final = 100_000


@dataclass(frozen=True, slots=True)
class ChatGLMForm:
    """Which of the two codes, and its switches."""

    samples_first: bool
    bias: bool
    qkv_bias: bool
    dropout: float


class ChatGLMNorm(VarianceNorm):
    """Only the variance is taken of a float32 copy; the product with the weight is float32 until the end."""

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, width) to the same."""
        normalized = self.normalized(t, x)
        product = ops.mul(t, normalized, t.parameter(self.weight), "norm: output in float32")
        return ops.cast(t, product, x.dtype, "norm: output")


class ChatGLMAttention(Module):
    """Few heads for keys and values, in one matrix with the query's; half of each head turns, pair by pair."""

    def __init__(self, s: Shape, form: ChatGLMForm) -> None:
        width = (s.heads + 2 * s.kv_heads) * s.head_dim
        self.query_key_value = Linear(s.hidden, width, form.qkv_bias, name="attention query, key and value")
        self.dense = Linear(s.heads * s.head_dim, s.hidden, form.bias, name="attention output projection")
        self.s, self._form = s, form

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self.s, self.s.head_dim
        mixed = t.local(self.query_key_value(t, x))
        parts = [n * width for n in (s.heads, s.kv_heads, s.kv_heads)]
        q, k, v = (part.view(width) for part in ops.split(t, mixed, parts, "attention: q, k, v"))
        q = self.turned(t, q, call.shared["rotary"], "attention query")
        k = self.turned(t, k, call.shared["rotary"], "attention key")
        groups = s.heads // s.kv_heads
        k = ops.copy(t, k, "attention: key repeated to all heads", k.numel * groups)
        v = ops.copy(t, v, "attention: value repeated to all heads", v.numel * groups)
        out = self.core(t, q, k, v, call)
        result: Tensor = self.dense(t, out.view(s.heads * width))
        return result

    def core(self, t: Tape, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor:
        """The kernel; a mask of what is hidden is turned round first."""
        s, mask = self.s, call.masks["full"]
        if mask is not None:
            mask = t.new(mask.numel, "bool", 1, "attention: mask, inverted")
        samples_first = self._form.samples_first
        kernel = Attention(
            s.heads, s.heads, s.head_dim, s.head_dim, call.attention, s.attention_dropout, heads_first=samples_first
        )
        return kernel(t, q, k, v, mask)

    def turned(self, t: Tape, x: Tensor, table: Tensor, label: str) -> Tensor:
        """Half of each head, pair by pair; both results are stacked and joined with the rest."""
        part, passed = cut(t, x, self.s.rotated, label)
        half = self.s.rotated // 2

        def product(name: str) -> Tensor:
            return ops.mul(t, ops.slice_last(t, part, half, f"{label}: half"), table, f"{label}: {name}")

        first = ops.sub(t, product("a*cos"), product("b*sin"), f"{label}: a*cos - b*sin")
        second = ops.add(t, product("b*cos"), product("a*sin"), f"{label}: b*cos + a*sin")
        turned = ops.cat(t, [first, second], self.s.rotated, f"{label}, turned part")
        return ops.cat(t, [turned, passed], self.s.head_dim, f"{label} after rotary")


class ChatGLMMLP(FusedGatedMLP):
    """Gate and up in one matrix, under names of its own."""

    def __init__(self, hidden: int, intermediate: int, bias: bool) -> None:
        self.dense_h_to_4h = Linear(hidden, 2 * intermediate, bias, name="mlp gate and up")
        self.dense_4h_to_h = Linear(intermediate, hidden, bias, name="mlp down")

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        inner = self.gated(t, self.dense_h_to_4h(t, x))
        out: Tensor = self.dense_4h_to_h(t, inner)
        return out

    def gated(self, t: Tape, x: Tensor) -> Tensor:
        """SiLU of the first half times the second."""
        assert isinstance(x.width, int)
        gate, up = ops.split(t, x, [x.width // 2] * 2, "mlp: gate and up")
        return ops.mul(t, ops.silu(t, gate, "mlp: activated gate"), up, "mlp: product")


class GLMBlock(Module):
    """Pre-norm attention and MLP on a residual stream."""

    def __init__(self, s: Shape, form: ChatGLMForm) -> None:
        self.input_layernorm = ChatGLMNorm(s.hidden)
        self.self_attention = ChatGLMAttention(s, form)
        self.post_attention_layernorm = ChatGLMNorm(s.hidden)
        self.mlp = ChatGLMMLP(s.hidden, s.intermediate, form.bias)
        self._dropout = form.dropout

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        normed = self.input_layernorm(t, hidden)
        attended = self.self_attention(t, normed, call)
        inner = ops.dropout(t, attended, self._dropout, "residual dropout")
        inner = ops.add(t, hidden, inner, "residual stream after attention")
        normed = self.post_attention_layernorm(t, inner)
        fed = self.mlp(t, normed)
        out = ops.dropout(t, fed, self._dropout, "residual dropout")
        return ops.add(t, inner, out, "residual stream after the layer")


class ChatGLM(RemoteDecoder):
    """The causal language model; transformers does not know its head as one."""

    default_targets = ("query_key_value",)
    casts_logits_back = True
    adapts_head = True
    in_stages = False

    def __init__(self, config: Config) -> None:
        usual = {"intermediate_size": "ffn_hidden_size", "num_hidden_layers": "num_layers", "head_dim": "kv_channels",
                 "vocab_size": "padded_vocab_size"}  # fmt: skip
        over = {name: config.integer(own) for name, own in usual.items()}
        grouped = config.flag("multi_query_attention", False)
        over["num_key_value_heads"] = config.integer(
            "multi_query_group_num" if grouped else "num_attention_heads", default=1
        )
        s = Shape.read(config.over({**over, "hidden_act": "silu"}), rotary=0.5)
        for name in ("apply_residual_connection_post_layernorm", "fp32_residual_connection"):
            config.refuse(name, "this form of ChatGLM")
        bias = config.flag("add_bias_linear", False)
        self.form = ChatGLMForm(
            s.vocabulary >= GLM4_VOCABULARY,
            bias,
            bias or config.flag("add_qkv_bias", False),
            config.number("hidden_dropout", 0.0, 0, 1),
        )
        self.s, self.vocabulary, self.tied = s, s.vocabulary, False
        self._inner, self._names = "transformer", PartNames("transformer", "embedding", "encoder", "final_layernorm")
        self.transformer = Module()
        self.transformer.embedding = Module()
        self.transformer.embedding.word_embeddings = Embedding(s.vocabulary, s.hidden)
        self.transformer.encoder = Module()
        self.transformer.encoder.layers = Stack(lambda _: GLMBlock(s, self.form), s.windows)
        self.transformer.encoder.final_layernorm = ChatGLMNorm(s.hidden)
        self.transformer.output_layer = self.head = Linear(s.hidden, s.vocabulary, name="head")
        self.positions = config.integer("seq_length", default=2048, high=2**31)
        self.buffer_numbers = s.rotated // 2  # inverse frequencies

    @property
    def embedding(self) -> Embedding:
        """The token embedding."""
        found: Embedding = self.transformer.embedding.word_embeddings
        return found

    def attention_for(self, recipe: Recipe) -> str:
        """PyTorch's own kernels; GLM-4's code has the flash-attn package's too, and an eager one that is not walked."""
        return "flash" if recipe.attention == "flash" and self.form.samples_first else "sdpa"

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Token embeddings, a mask of what is hidden, and the table for every position that the model knows."""
        words = lookup(t, self.embedding, call)
        end_positions(t, call)
        if not self.form.samples_first and call.validity.exceeds("micro_batch_size", 1):
            words = ops.copy(t, words, "embeddings, sequence first")
            call.held[:] = [words]
        masked = call.recipe.padded and call.attention != "flash"
        call.masks["full"] = self.hidden_from(t) if masked else None
        call.shared["rotary"] = self.table(t, call.recipe.weights_dtype)
        return words

    def hidden_from(self, t: Tape) -> Tensor:
        """What each token does not see."""
        seen = t.new(TOKENS_BY_SEQUENCE, "float32", 1, "attention mask: triangle")
        seen = t.replace(seen, t.new(TOKENS_BY_SEQUENCE, "float32", 1, "attention mask: padded"))
        return t.replace(seen, t.new(TOKENS_BY_SEQUENCE, "bool", 1, "attention mask"))

    def table(self, t: Tape, dtype: str) -> Tensor:
        """Cosine and sine of all positions, whatever the batch's length, in the buffer's dtype."""
        width = self.s.rotated
        half, whole = ONE * (self.positions * width // 2), ONE * (self.positions * width)
        with t.temporary(half, "float32", width // 2, "rotary: angles"):
            cos, sin = (t.new(half, "float32", width // 2, f"rotary: {name}") for name in ("cos", "sin"))
            both = t.new(whole, "float32", width, "rotary: table in float32")
            t.end(cos, sin)
            return ops.cast(t, both, dtype, "rotary: table")

    def finish(self, t: Tape, hidden: Tensor) -> Tensor:
        """Final norm."""
        out: Tensor = self.transformer.encoder.final_layernorm(t, hidden)
        return out

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """Samples first again."""
        found = self.head(t, hidden)
        if not self.form.samples_first and t.validity.exceeds("micro_batch_size", 1):
            found = ops.copy(t, found, "logits, samples first")
        return found
