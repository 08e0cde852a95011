"""Falcon-H1: Mamba 2 and attention side by side in every layer, multipliers everywhere.

Source: transformers 5.23, models/falcon_h1/modeling_falcon_h1.py.
"""

from __future__ import annotations

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import GatedMLP, RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import PartNames, SelfAttention
from loralens.core.architecture.families.granite import Granite
from loralens.core.architecture.families.state_space import (
    MAX_GROUPS,
    MAX_KERNEL,
    REFUSED,
    GatedGroupNorm,
    HeadedMixer,
    mixers_as,
)
from loralens.core.architecture.module import Module
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import ONE
from loralens.core.tape.tape import Tape


class FalconNorm(GatedGroupNorm):
    """Normed in groups, in float32; the activated gate multiplies before or after."""

    def __init__(self, width: int, groups: int, *, before_gate: bool) -> None:
        super().__init__(width, groups)
        self._before = before_gate

    def forward(self, t: Tape, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Shapes: x and gate (rows, width) to the same."""
        assert gate is not None
        dtype, width = x.dtype, x.width
        if not self._before:
            x = self._gated(t, x, gate)
        x = ops.cast(t, x, "float32", "norm: input in float32")
        x = self.normalize(t, x.view(self._group)).view(width)
        x = ops.mul(t, x, t.parameter(self.weight), "norm: output in float32")
        if self._before:
            x = self._gated(t, x, gate)
        return ops.cast(t, x, dtype, "norm: output")

    @staticmethod
    def _gated(t: Tape, x: Tensor, gate: Tensor) -> Tensor:
        gate = ops.silu(t, ops.cast(t, gate, "float32", "norm: gate in float32"), "norm: activated gate")
        return ops.mul(t, x, gate, "norm: gated input")


class FalconMixer(HeadedMixer):
    """The projection is scaled before and after; without a norm the gate alone multiplies."""

    def into(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """The projection, times a vector that does not train."""
        x = ops.scale(t, x, "state space: scaled input")
        projected = self.in_proj(t, x)
        width = self.in_proj.out_features
        vector = Tensor(None, ONE * width, call.recipe.weights_dtype, width)
        return ops.mul(t, projected, vector, "state space: scaled projection")

    def normed(self, t: Tape, x: Tensor, gate: Tensor) -> Tensor:
        """The norm, if there is one."""
        if "norm" in vars(self):
            return self.norm(t, x, gate)
        return ops.mul(t, x, ops.silu(t, gate, "state space: activated gate"), "state space: gated result")


class FalconH1Attention(SelfAttention):
    """The key is scaled."""

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value by head."""
        width = self.s.head_dim
        q = self.q_proj(t, x).view(width)
        k = ops.scale(t, self.k_proj(t, x).view(width), "attention key, scaled")
        return q, k, self.v_proj(t, x).view(width)


class FalconH1MLP(GatedMLP):
    """Gate and result are scaled; up comes first."""

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        up = self.up_proj(t, x)
        gate = ops.scale(t, self.gate_proj(t, x), "mlp: scaled gate")
        y = ops.mul(t, up, activation(t, gate, self._act, "mlp: activated gate"), "mlp: product")
        t.end(up, gate)
        return ops.scale(t, self.down_proj(t, y), "mlp: scaled result")


class FalconH1Layer(Module):
    """Mixer and attention on one norm, then the MLP."""

    def __init__(self, s: Shape, mixer: Module, bias: bool, mlp_bias: bool) -> None:
        self.feed_forward = FalconH1MLP(s.hidden, s.intermediate, mlp_bias, s.act)
        self.mamba = mixer
        self.self_attn = FalconH1Attention(s, bias=bias, output_bias=bias)
        self.input_layernorm = RMSNorm(s.hidden)
        self.pre_ff_layernorm = RMSNorm(s.hidden)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        mixed = ops.scale(t, self.mamba(t, hidden, call), "state space: scaled result")
        attended = self.self_attn(t, ops.scale(t, hidden, "attention: scaled input"), call)
        attended = t.local(ops.scale(t, attended, "attention: scaled result"))
        t.local(mixed)
        hidden = ops.add(t, mixed, attended, "state space plus attention")
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.pre_ff_layernorm(t, hidden)
        hidden = self.feed_forward(t, hidden)
        return ops.add(t, residual, hidden, "residual stream after the layer")


class FalconH1(Granite):
    """The causal language model; embeddings and logits are scaled as Granite's are."""

    mixes = True
    caches = False
    refused_targets = REFUSED

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8)
        given = "mamba_d_ssm" not in config.entries or config.has("mamba_d_ssm")
        expanded = config.integer("mamba_expand", default=2, high=1_024) * s.hidden
        inner = config.integer("mamba_d_ssm", default=1024) if given else expanded
        heads = config.integer("mamba_n_heads", default=128, high=MAX_GROUPS)
        config.divides("mamba_n_heads", inner, heads)
        groups = config.integer("mamba_n_groups", default=1, high=MAX_GROUPS)
        normed, before = config.flag("mamba_rms_norm", False), config.flag("mamba_norm_before_gate", True)
        bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)

        def layer(_: object) -> Module:
            mixer = FalconMixer(
                s.hidden,
                inner,
                heads,
                config.integer("mamba_d_state", default=256),
                groups,
                config.integer("mamba_d_conv", default=4, high=MAX_KERNEL),
                bias=config.flag("mamba_proj_bias", False),
                conv_bias=config.flag("mamba_conv_bias", True),
                output_bias=config.flag("projectors_bias", False),
                norm=normed,
                chunk=config.integer("mamba_chunk_size", default=256, high=MAX_GROUPS),
            )
            if normed:
                mixer.norm = FalconNorm(inner, groups, before_gate=before)
            return FalconH1Layer(s, mixer, bias, mlp_bias)

        self.assemble(s, layer, s.windows, names=PartNames(norm="final_layernorm"))
        multipliers = 2 * inner + 2 * groups * config.integer("mamba_d_state", default=256) + heads
        self.buffer_bytes += s.layers * multipliers * 2  # taken as 16-bit numbers

    def assumptions(self, recipe: Recipe) -> list[str]:
        """Which kernels run."""
        return [*super().assumptions(recipe), mixers_as(recipe)]
