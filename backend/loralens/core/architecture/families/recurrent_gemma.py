"""RecurrentGemma (Griffin): gated linear recurrences between sliding attention layers; counted, not walked.

Source: transformers 5.23, models/recurrent_gemma/modeling_recurrent_gemma.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, GemmaRMSNorm
from loralens.core.architecture.config import Config
from loralens.core.architecture.counting import CountedDecoder
from loralens.core.architecture.decoder import PartNames, SelfAttention
from loralens.core.architecture.families.state_space import MAX_KERNEL, DepthwiseConvolution
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.shape import Shape
from loralens.core.errors import InvalidInput
from loralens.core.tape.parameter import Parameter


class Recurrence(Module):
    """The gated linear recurrent unit. Shapes: gates (heads, block, block), block = width / heads."""

    def __init__(self, width: int, heads: int) -> None:
        block = width // heads
        self.recurrent_param = Parameter((width,))
        for gate in ("input", "recurrent"):
            setattr(self, f"{gate}_gate_weight", Parameter((heads, block, block)))
            setattr(self, f"{gate}_gate_bias", Parameter((heads, block)))


class RecurrentBlock(Module):
    """Two branches, a convolution and the recurrence on one of them."""

    def __init__(self, s: Shape, width: int, kernel: int) -> None:
        self.linear_y = Linear(s.hidden, width, True, name="recurrence y")
        self.linear_x = Linear(s.hidden, width, True, name="recurrence x")
        self.linear_out = Linear(width, s.hidden, True, name="recurrence out")
        self.conv_1d = DepthwiseConvolution(width, kernel, True)
        self.rg_lru = Recurrence(width, s.heads)


class GriffinLayer(Module):
    """A temporal block and an MLP, a norm before each."""

    def __init__(self, s: Shape, block: Module) -> None:
        self.temporal_pre_norm = GemmaRMSNorm(s.hidden)
        self.temporal_block = block
        self.channel_pre_norm = GemmaRMSNorm(s.hidden)
        self.mlp_block = GatedMLP(s.hidden, s.intermediate // 2, True, s.act)


class RecurrentGemma(CountedDecoder):
    """The causal language model."""

    family = "recurrent_gemma"

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, tied=True, intermediate=7680, act="gelu_pytorch_tanh", rotary=0.5)
        if s.intermediate < 2:
            raise InvalidInput("config.intermediate_size must be at least 2", field="config.intermediate_size")
        width = config.integer("lru_width", default=s.hidden)
        config.divides("num_attention_heads", width, s.heads)
        kernel = config.integer("conv1d_width", default=4, high=MAX_KERNEL)
        bias = config.flag("attention_bias", False)
        given = config.entries.get("block_types", ["recurrent", "recurrent", "attention"])
        known = isinstance(given, (list, tuple)) and given and all(kind in ("recurrent", "attention") for kind in given)
        if not known:
            raise InvalidInput(
                "config.block_types must be a list of recurrent and attention",
                field="config.block_types",
                hint='such as ["recurrent", "recurrent", "attention"]',
            )
        kinds = [str(given[index % len(given)]) for index in range(s.layers)]

        def layer(kind: str) -> GriffinLayer:
            attends = kind == "attention"
            return GriffinLayer(
                s, SelfAttention(s, bias=bias, output_bias=True) if attends else RecurrentBlock(s, width, kernel)
            )

        self.assemble(s, layer, kinds, norm=GemmaRMSNorm, names=PartNames(norm="final_norm"))
