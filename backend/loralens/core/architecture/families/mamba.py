"""Mamba and Falcon-Mamba: one state-space mixer in every layer.

Source: transformers 5.23, models/{mamba,falcon_mamba}/modeling_*.py.
"""

from __future__ import annotations

from typing import Final

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import end_positions
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, PartNames
from loralens.core.architecture.families.state_space import (
    MAX_KERNEL,
    REFUSED,
    SelectiveMixer,
    WeightlessMixer,
    mixers_as,
    unread_adapters,
)
from loralens.core.architecture.module import Module
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.tape import Tape

UNPACKED: Final = (
    "dt_proj is not packed: transformers multiplies with its weight itself, so a packed one fails at the first step "
    "(llm_int8_skip_modules leaves it out)"
)


class MambaBlock(Module):
    """Norm and mixer; the residual stream is kept in float32 where the config says so."""

    def __init__(self, hidden: int, mixer: Module, *, wide: bool) -> None:
        self.norm = RMSNorm(hidden)
        self.mixer = mixer
        self._wide = wide

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.norm(t, ops.cast(t, hidden, self.norm.weight.dtype, "norm: input in the weight's dtype"))
        if self._wide:
            residual = ops.cast(t, residual, "float32", "residual stream in float32")
        hidden = self.mixer(t, hidden, call)
        return ops.add(t, residual, hidden, "residual stream after the layer")


class Mamba(CausalDecoder):
    """The causal language model."""

    mixes = True
    caches = False
    turn: int | None = 1
    default_targets: tuple[str, ...] = ("in_proj", "x_proj")
    refused_targets = REFUSED
    mixer: type[SelectiveMixer] = SelectiveMixer

    def __init__(self, config: Config) -> None:
        hidden = config.integer("hidden_size", "d_model")
        own = {"num_attention_heads": 1, "num_key_value_heads": 1, "intermediate_size": 1, "head_dim": 1}
        s = Shape.read(config.over(own), tied=True).with_rotated(0)
        state, kernel = (
            config.integer("state_size", default=16),
            config.integer("conv_kernel", default=4, high=MAX_KERNEL),
        )
        inner = config.integer("expand", default=2, high=1_024) * hidden
        given = config.entries.get("time_step_rank")
        rank = -(-hidden // 16) if given in (None, "auto") else config.integer("time_step_rank")
        bias, conv_bias = config.flag("use_bias", False), config.flag("use_conv_bias", True)
        wide = config.flag("residual_in_fp32", True)

        def layer(_: object) -> MambaBlock:
            mixer = self.mixer(hidden, inner, state, rank, kernel, bias, conv_bias)
            return MambaBlock(hidden, mixer, wide=wide)

        self.assemble(s, layer, s.windows, names=PartNames("backbone", "embeddings", norm="norm_f"))
        self.buffer_numbers = s.layers * self.unused(inner, state)

    def unused(self, inner: int, state: int) -> int:
        """Numbers of a layer that its fallback never reads."""
        return 0

    def attention_spans(self, recipe: Recipe) -> list[tuple[int, float]]:
        """None: no layer attends."""
        return []

    def unreached(self) -> list[Parameter]:
        """Adapters of `dt_proj`, whose weight alone is read."""
        return unread_adapters(self)

    def masks(self, t: Tape, call: Call) -> None:
        """None: the mixers take the batch's own."""
        end_positions(t, call)

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """In float32."""
        hidden = ops.cast(t, hidden, self.head.weight.dtype, "head: input in the weight's dtype")
        return ops.cast(t, super().logits(t, hidden), "float32", "logits in float32")

    def assumptions(self, recipe: Recipe) -> list[str]:
        """Which kernels run, and what is not packed."""
        packed = recipe.quantization is not None and not self.mixer.packs_step
        return [*super().assumptions(recipe), mixers_as(recipe), *([UNPACKED] if packed else [])]


class FalconMamba(Mamba):
    """Step, B and C are normed."""

    mixer = WeightlessMixer

    def unused(self, inner: int, state: int) -> int:
        """Weights of norms, all one, which its kernels ask for."""
        return inner + 2 * state
