"""OLMo-3: OLMo-2 with three sliding layers before each full one, and rotary tables for each kind.

Source: transformers 5.23, models/olmo3/modeling_olmo3.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LateCastRMSNorm, Rotary
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.architecture.families.olmo2 import Olmo2Attention, Olmo2Layer
from loralens.core.architecture.rotary import rotate_float32
from loralens.core.architecture.shape import Shape, by_layer_types
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class Olmo3Attention(Olmo2Attention):
    """Turns with the tables of its kind of layer, in float32."""

    def __init__(self, s: Shape, bias: bool, window: int | None) -> None:
        super().__init__(s, bias)
        self.mask = "sliding" if window else "full"

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary embedding of query and key."""
        return rotate_float32(t, q, k, call.shared[f"rotary, {self.mask}"])


class Olmo3Layer(Olmo2Layer):
    """Post-norm attention and MLP."""

    def __init__(self, s: Shape, bias: bool, window: int | None) -> None:
        super().__init__(s, bias)
        self.self_attn = Olmo3Attention(s, bias, window)


class Olmo3(CausalDecoder):
    """The causal language model."""

    both_masks = True

    def __init__(self, config: Config) -> None:
        s = Shape.read(config)
        window = config.integer("sliding_window", default=4096, high=2**31)
        default = tuple(None if (index + 1) % 4 == 0 else window for index in range(s.layers))
        s = s.with_windows(by_layer_types(config, s.layers, default, window))
        bias = config.flag("attention_bias", False)
        self.assemble(s, lambda window: Olmo3Layer(s, bias, window), s.windows, norm=LateCastRMSNorm)
        self.buffer_bytes *= 2

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """One pair for each kind of layer, not cast."""
        for window in set(self.s.windows):
            kind = "sliding" if window else "full"
            call.shared[f"rotary, {kind}"] = Rotary(self.s.rotated, float32=True).tables(t, hidden)
