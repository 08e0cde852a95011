"""Gemma 3n (text): four copies of the residual stream, of which one is computed, inputs for each layer, shared keys and values.

Source: transformers 5.23, models/gemma3n/{configuration,modeling}_*.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import GatedMLP, Rotary
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import hold_embeddings, position_ids
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.architecture.families.altup import AltUp, Laurel, add_to_rest, joined_streams, magnitude, stream
from loralens.core.architecture.families.gemma import Gemma
from loralens.core.architecture.families.gemma4 import Gemma4Attention, Gemma4Layer, Gemma4LayerKind
from loralens.core.architecture.families.per_layer import PerLayerInputs, PowerNorm, first_sharing, scaled_in_place
from loralens.core.architecture.families.state_space import layer_kinds
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.shape import Shape
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import deviation
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape

_KINDS: Final = ("sliding_attention", "full_attention")
UNPACKED: Final = (
    "prediction_coefs and correction_coefs are not packed: transformers clamps their weights itself, so packed ones fail at the "
    "first step (llm_int8_skip_modules leaves them out)"
)


class Gemma3nLayerKind(NamedTuple):
    """What tells one layer from another."""

    attention: Gemma4LayerKind
    sparse: bool  # few of the gate's values are kept


class CutMLP(GatedMLP):
    """A gated MLP of whose gate the values below a threshold of each token are zero."""

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        gate = self.gate_proj(t, x)
        gate = _largest(t, gate)
        activations = activation(t, gate, self._act, "mlp: activated gate")
        up = self.up_proj(t, x)
        out: Tensor = self.down_proj(t, ops.mul(t, activations, up, "mlp: product"))
        return out


def _largest(t: Tape, x: Tensor) -> Tensor:
    """What lies above the mean by some deviations."""
    mean = ops.mean(t, x, "mlp: mean of the gate")
    spread = deviation(t, x, "mlp: deviation of the gate")
    threshold = ops.add(t, mean, ops.scale(t, spread, "mlp: deviations"), "mlp: threshold")
    return ops.relu(t, ops.sub(t, x, threshold, "mlp: gate above the threshold"), "mlp: largest of the gate")


class Gemma3nLayer(Gemma4Layer):
    """AltUp's prediction, attention beside a low-rank residual, MLP, correction, and the layer's own input for the other copies."""

    def __init__(
        self, s: Shape, kind: Gemma3nLayerKind, bias: bool, inputs: PerLayerInputs, altup: AltUp, rank: int
    ) -> None:
        self.self_attn = Gemma4Attention(s, kind.attention, bias)
        self.mlp = (CutMLP if kind.sparse else GatedMLP)(s.hidden, kind.attention.intermediate, act=s.act)
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            setattr(self, f"{name}_layernorm", PowerNorm(s.hidden))
        self.altup, self.laurel = altup, Laurel(s.hidden, rank)
        inputs.into_layer(self, s.hidden, PowerNorm)
        self._inputs, self._act = inputs.width, s.act

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (copies * rows, hidden) to the same."""
        own = ops.cut(
            t, call.shared["per-layer inputs"], "per-layer input", numel=TOKENS * self._inputs, width=self._inputs
        )
        predictions = self.altup.predict(t, hidden)
        active = stream(t, predictions, "computed copy")
        normed = self.input_layernorm(t, active)
        laurel = self.laurel(t, normed)
        attended = self.self_attn(t, normed, call)
        attended = self.post_attention_layernorm(t, attended)
        gated = ops.add(t, active, attended, "computed copy after attention")
        both = ops.scale(t, ops.add(t, gated, laurel, "attention and laurel"), "attention and laurel, scaled")
        second = self.pre_feedforward_layernorm(t, both)
        out = self.mlp(t, second)
        out_normed = self.post_feedforward_layernorm(t, out)
        result = ops.add(t, both, out_normed, "computed copy after the MLP")
        corrected = self.altup.correct(t, predictions, result)
        first = ops.copy(t, stream(t, corrected, "first copy"), "first copy, by value")
        first = self.altup.scaled(t, first)
        first = self.per_layer_input_gate(t, first)
        first = activation(t, first, self._act, "per-layer input: activated gate")
        first = ops.mul(t, first, own, "per-layer input: product")
        first = self.per_layer_projection(t, first)
        first = self.post_per_layer_input_norm(t, first)
        return add_to_rest(t, corrected, first)


class Gemma3n(Gemma):
    """The causal language model."""

    caches = False
    capped = True
    both_masks = True

    def __init__(self, config: Config) -> None:
        given = config.entries.get("intermediate_size")
        widths = config.integers("intermediate_size") if isinstance(given, (list, tuple)) else None
        own = config if widths is None else config.over({"intermediate_size": 1})
        s = Shape.read(own, tied=True, kv_heads=2, head_dim=256, act="gelu_pytorch_tanh")
        widths = [s.intermediate] * s.layers if widths is None else widths
        if len(widths) != s.layers or not all(widths):
            raise InvalidInput(
                f"config.intermediate_size must be one width or one for each of {s.layers} layers",
                field="config.intermediate_size",
            )
        self.copies = config.integer("altup_num_inputs", default=4, low=2, high=1_024)
        rank = config.integer("laurel_rank", default=64)
        bias, inputs = config.flag("attention_bias", False), PerLayerInputs(config, s.layers)
        if not inputs.width:
            raise UnsupportedArchitecture(
                "layers without inputs of their own are not modelled", field="config.hidden_size_per_layer_input"
            )
        self.capped = config.number("final_logit_softcapping", 30.0) > 0 and (
            "final_logit_softcapping" not in config.entries or config.has("final_logit_softcapping")
        )
        default = ["full_attention" if (index + 1) % 5 == 0 else "sliding_attention" for index in range(s.layers)]
        types = layer_kinds(config, ("layer_types",), default, _KINDS)
        window = config.integer("sliding_window", default=512, high=2**31)
        s = s.with_windows(tuple(window if kind == "sliding_attention" else None for kind in types))
        first = first_sharing(config, s.layers, 15)
        last = {kind: index for index, kind in enumerate(types[:first])} if first < s.layers else {}
        sparse = _sparse(config, s.layers)

        def layer(kind: Gemma3nLayerKind) -> Gemma3nLayer:
            altup = AltUp(s.hidden, self.copies, clips=_clips(config), scales=config.flag("altup_correct_scale", True))
            return Gemma3nLayer(s, kind, bias, inputs, altup, rank)

        kinds = [
            Gemma3nLayerKind(
                Gemma4LayerKind(
                    "full" if kind == "full_attention" else "sliding",
                    s.head_dim, s.kv_heads, index >= first, last.get(kind) == index, False, widths[index],
                ),
                sparse[index],
            )
            for index, kind in enumerate(types)
        ]  # fmt: skip
        inner = self.assemble(s, layer, kinds, norm=PowerNorm)
        inputs.into_model(inner, s.hidden, PowerNorm)
        for name in ("altup_projections", "altup_unembed_projections"):
            setattr(inner, name, several := Module())
            for index in range(self.copies - 1):
                setattr(several, str(index), Linear(s.hidden, s.hidden, name=name.replace("_", " ")))
        if self.tied:  # transformers' quantizers leave out what has the last parameter, which is not the head's then
            self.last.packable = False
        self._inputs = inputs
        self.buffer_bytes = len(set(types)) * (s.head_dim // 2 * 4 * 2)
        self.buffer_numbers = 4 + s.layers  # scales
        self._streams: list[Tensor] = []

    @property
    def last(self) -> Module:
        """The layer whose parameter is the last."""
        found: Module = getattr(self.inner.altup_unembed_projections, str(self.copies - 2))
        return found

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Embeddings, the layers' own inputs, and the copies, each a projection as long as the first."""
        call.shared["keys and values"] = {}
        hidden = ops.scale(t, self.embedding(t, TOKENS), "embeddings, scaled")
        hold_embeddings(t, hidden, call)
        if call.media is not None:
            hidden = call.media.placed(t, hidden, call)
        self._own_inputs(t, hidden, call)
        position_ids(t, call)
        self.masks(t, call)
        projections = [getattr(self.inner.altup_projections, str(index)) for index in range(self.copies - 1)]
        target = magnitude(t, hidden, "embeddings")
        streams, rest = joined_streams(t, hidden, [(layer, hidden) for layer in projections], target, hidden.dtype)
        self._streams = [target, *rest]
        self._dtype = hidden.dtype
        hidden = streams
        self.tables(t, hidden, call)
        return hidden

    def _own_inputs(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """A table's rows and a projection of the embeddings, normed, added and scaled."""
        with t.temporary(TOKENS, "bool", 1, "which tokens are in the table"):
            numbers = t.new(TOKENS, "int64", 1, "tokens of the table")
        rows = ops.scale(
            t,
            self.inner.embed_tokens_per_layer(t, TOKENS, "per-layer embeddings", numbers),
            "per-layer embeddings, scaled",
        )
        t.end(numbers)
        projected = scaled_in_place(t, self.inner.per_layer_model_projection(t, hidden), "per-layer projection, scaled")
        projected = self.inner.per_layer_projection_norm(t, projected.view(self._inputs.width))
        both = ops.add(t, projected, rows, "per-layer inputs, added")
        call.shared["per-layer inputs"] = ops.scale(t, both, "per-layer inputs")

    def masks(self, t: Tape, call: Call) -> None:
        """Tokens of a picture see no more than others."""
        CausalDecoder.masks(self, t, call)

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """One pair for each kind of layer."""
        for window in set(self.s.windows):
            call.shared[f"rotary, {'sliding' if window else 'full'}"] = Rotary(self.s.rotated).tables(t, hidden)

    def finish(self, t: Tape, hidden: Tensor) -> Tensor:
        """The mean of the copies, each made as long as the first, and the final norm."""
        layers = [getattr(self.inner.altup_unembed_projections, str(index)) for index in range(self.copies - 1)]
        target = magnitude(t, stream(t, hidden, "first copy"), "first copy")
        self._streams = []
        first = stream(t, hidden, "first copy")
        given = [(layer, stream(t, hidden, "other copy")) for layer in layers]
        streams, rest = joined_streams(t, first, given, target, self._dtype)
        t.end(hidden)
        mean = derivatives.mean_of(t, streams, "mean of the copies", numel=TOKENS * self.s.hidden)
        t.end(streams)
        out: Tensor = self.inner.norm(t, mean)
        t.end(*rest)
        return out

    def unreached(self) -> Iterator[Parameter]:
        """Adapters on the coefficients whose weight is read by itself."""
        for layer in {id(layer): layer for layer in self.inner.layers.layers}.values():
            yield from layer.altup.unread()

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What is not packed."""
        return [*super().assumptions(recipe), *([UNPACKED] if recipe.quantization is not None else [])]


def _clips(config: Config) -> bool:
    """Are the coefficients' weights clamped? null: they are not."""
    return "altup_coef_clip" not in config.entries or config.has("altup_coef_clip")


def _sparse(config: Config, layers: int) -> list[bool]:
    """Which layers keep few of the gate's values."""
    given: Any = config.entries.get("activation_sparsity_pattern")
    if given is None:
        return [index < 10 < layers for index in range(layers)]
    numbers = isinstance(given, (list, tuple)) and all(
        type(share) in (int, float) and 0 <= share < 1 for share in given
    )
    if not numbers or len(given) != layers:
        raise InvalidInput(
            f"config.activation_sparsity_pattern must be a share for each of {layers} layers",
            field="config.activation_sparsity_pattern",
        )
    return [share > 0 for share in given]
