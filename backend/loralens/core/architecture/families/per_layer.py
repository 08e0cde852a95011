"""What Gemma 3n and Gemma 4 share: a norm by a power, and an input of its own for each layer.

Source: transformers 5.23, models/{gemma3n,gemma4}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.config import MAX_LAYERS, MAX_VOCABULARY, Config
from loralens.core.architecture.module import Embedding, Linear, Module
from loralens.core.errors import InvalidInput
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.rows import like
from loralens.core.tape.tape import Tape


class PowerNorm(RMSNorm):
    """The root is a power of -1/2; the weight multiplies in float32, where there is one."""

    def __init__(self, width: int, *, scaled: bool = True) -> None:
        if scaled:
            self.weight = Parameter((width,))
        self._scaled = scaled

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, width) to the same."""
        dtype = x.dtype
        x = ops.cast(t, x, "float32", "norm: input in float32")
        x = self.rooted(t, x)
        if self._scaled:
            weight = ops.cast(t, t.parameter(self.weight), "float32", "norm: weight in float32")
            x = ops.mul(t, x, weight, "norm: output in float32")
        return ops.cast(t, x, dtype, "norm: output")

    @staticmethod
    def rooted(t: Tape, x: Tensor) -> Tensor:
        """x over its root mean square."""
        squared = ops.power(t, x, "norm: squares")
        variance = ops.mean(t, squared, "norm: mean")
        t.end(squared)
        shifted = ops.shift(t, variance, "norm: variance + eps")
        t.end(variance)
        return ops.mul(t, x, ops.power(t, shifted, "norm: 1/rms"), "norm: normalized in float32")


class PerLayerInputs:
    """Sizes of the inputs that each layer gets of its own."""

    def __init__(self, config: Config, layers: int) -> None:
        self.width = config.integer("hidden_size_per_layer_input", default=256, low=0)
        self.vocabulary = config.integer("vocab_size_per_layer_input", default=262144, high=MAX_VOCABULARY)
        self.layers = layers

    def into_layer(self, layer: Module, hidden: int, norm: type[RMSNorm] = RMSNorm) -> None:
        """Gate, projection and norm of one layer."""
        if self.width:
            layer.per_layer_input_gate = Linear(hidden, self.width, name="per-layer input gate")
            layer.per_layer_projection = Linear(self.width, hidden, name="per-layer projection")
            layer.post_per_layer_input_norm = norm(hidden)

    def into_model(self, inner: Module, hidden: int, norm: type[RMSNorm] = RMSNorm) -> None:
        """The table, and the projection of the embeddings."""
        if self.width:
            together = self.layers * self.width
            inner.embed_tokens_per_layer = Embedding(self.vocabulary, together)
            inner.per_layer_model_projection = Linear(hidden, together, name="per-layer model projection")
            inner.per_layer_projection_norm = norm(self.width)


def first_sharing(config: Config, layers: int, default: int) -> int:
    """The first layer that takes its keys and values from an earlier one."""
    shared = config.integer("num_kv_shared_layers", default=default, low=0, high=MAX_LAYERS)
    if shared >= layers:
        raise InvalidInput(
            f"config.num_kv_shared_layers {shared} must be less than num_hidden_layers, {layers}",
            field="config.num_kv_shared_layers",
        )
    return layers - shared


def scaled_in_place(t: Tape, x: Tensor, label: str) -> Tensor:
    """`x *= scale`, a number that does not train."""
    out = Tensor(x.storage, x.numel, x.dtype, x.width)
    numel, dtype, width = x.numel, x.dtype, x.width
    t.record(label, [out], [x], [], lambda g: like(t, numel, dtype, width, f"gradient: {label}"))
    return out
