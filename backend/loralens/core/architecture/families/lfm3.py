"""LFM3: short convolutions, sliding and full attention in turn, norms before and behind each branch.

Source: transformers 5.23, models/lfm3/modeling_lfm3.py.
"""

from __future__ import annotations

from dataclasses import replace

from loralens.core.architecture.blocks import RMSNorm, Rotary
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import causal_mask
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, PartNames
from loralens.core.architecture.families.lfm2 import LfmLayer, LfmMLP
from loralens.core.architecture.families.llama import NormedAttention
from loralens.core.architecture.families.state_space import MAX_KERNEL, ShortConvolution, layer_kinds, mixers_as
from loralens.core.architecture.module import Linear
from loralens.core.architecture.rotary import rotate_float32
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape

_ATTENDING = ("full_attention", "sliding_attention")
_NAMES = PartNames(norm="embedding_norm")


class Lfm3Attention(NormedAttention):
    """Turned in float32; a gate of one number per head on the result."""

    def __init__(self, s: Shape, kind: str, bias: bool, gated: bool) -> None:
        super().__init__(s, bias=bias, output_bias=bias)
        if gated:
            self.g_proj = Linear(s.hidden, s.heads, name="attention gate")
        self.mask, self._gated = kind, gated

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """With the tables of its kind of layer."""
        return rotate_float32(t, q, k, call.shared[f"rotary, {self.mask}"])

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        width = self.s.head_dim
        q, k, v = self.project(t, x)
        q, k = self.position(t, q, k, call)
        out = self.kernel(call)(t, q, k, v, call.masks[self.mask]).view(width)
        if self._gated:
            gate = ops.sigmoid(t, self.g_proj(t, x), "attention: sigmoid of the gate")
            out = t.replace(out, ops.mul(t, out, gate, "attention: gated result"))
        return self.output(t, out.view(self.s.heads * width))


class Lfm3Layer(LfmLayer):
    """Attention or a convolution, then the MLP; norms behind both where the config has them."""

    def __init__(self, s: Shape, kind: str, mixer: Lfm3Attention | ShortConvolution, sandwich: bool) -> None:
        attention, convolution = (None, mixer) if isinstance(mixer, ShortConvolution) else (mixer, None)
        super().__init__(s, attention, convolution, LfmMLP(s.hidden, s.intermediate))
        if sandwich:
            self.post_operator_norm, self.post_ffn_norm = RMSNorm(s.hidden), RMSNorm(s.hidden)
        self._kind, self._sandwich = kind, sandwich

    def arguments(self, call: Call) -> Call:
        """The tables and the mask of its kind alone."""
        name, masks = f"rotary, {self._kind}", call.masks
        shared = {key: value for key, value in call.shared.items() if key == name or not key.startswith("rotary")}
        return replace(call, shared=shared, masks={key: masks[key] for key in masks if key == self._kind})

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = getattr(self, self._mixer)(t, self.operator_norm(t, hidden), call)
        if self._sandwich:
            hidden = self.post_operator_norm(t, hidden)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.feed_forward(t, self.ffn_norm(t, hidden))
        if self._sandwich:
            hidden = self.post_ffn_norm(t, hidden)
        return ops.add(t, residual, hidden, "residual stream after the layer")


class Lfm3(CausalDecoder):
    """The causal language model."""

    mixes = True

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, tied=True, kv_heads=4, head_dim=128)
        bias, kernel = config.flag("conv_bias", False), config.integer("conv_L_cache", default=7, high=MAX_KERNEL)
        attention_bias, gated = config.flag("attention_bias", False), config.flag("use_attention_gate", True)
        sandwich = config.flag("use_sandwich_norm", True)
        order = ("full_attention", "conv", "sliding_attention", "conv")
        kinds = layer_kinds(
            config, ("layer_types",), [order[(index + 2) % 4] for index in range(s.layers)], (*_ATTENDING, "conv")
        )
        if not config.has("layer_types"):
            kinds[0] = "conv"  # the first layer does not attend
        window = config.integer("sliding_window", default=256, high=2**31)

        def layer(kind: str) -> Lfm3Layer:
            if kind == "conv":
                return Lfm3Layer(s, kind, ShortConvolution(s.hidden, kernel, bias), sandwich)
            return Lfm3Layer(s, kind, Lfm3Attention(s, kind, attention_bias, gated), sandwich)

        self._windows = {"full_attention": None, "sliding_attention": window}
        self._kinds = [kind for kind in _ATTENDING if kind in kinds]
        windows = tuple(self._windows.get(kind) for kind in kinds)
        self.assemble(s.with_windows(windows), layer, kinds, names=_NAMES)
        self.buffer_bytes = len(self._kinds) * (s.head_dim // 2 * 4 * 2)

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """A pair for each kind of attention, not cast."""
        for kind in self._kinds:
            call.shared[f"rotary, {kind}"] = Rotary(self.s.head_dim, float32=True).tables(t, hidden)

    def masks(self, t: Tape, call: Call) -> None:
        """Under the names of the kinds."""
        for kind in self._kinds:
            call.masks[kind] = causal_mask(t, call, sliding_window=self._windows[kind])

    def assumptions(self, recipe: Recipe) -> list[str]:
        """Which kernel runs."""
        return [*super().assumptions(recipe), mixers_as(recipe)]
