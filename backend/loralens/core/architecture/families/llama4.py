"""Llama-4 (text): one routed and one shared expert per token, no rotary embedding in every fourth layer, chunked masks.

Source: transformers 5.23, models/llama4/modeling_llama4.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, RMSNorm
from loralens.core.architecture.causal import Call
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.counting import memory_not_modelled
from loralens.core.architecture.decoder import CausalDecoder, SelfAttention
from loralens.core.architecture.module import Linear, Module, Parameter
from loralens.core.architecture.shape import Shape
from loralens.core.memory.tape import Tape, Tensor


class Llama4Experts(Module):
    """Weights of all experts, inputs first."""

    def __init__(self, hidden: int, intermediate: int, experts: int) -> None:
        self.gate_up_proj = Parameter((experts, hidden, 2 * intermediate))
        self.down_proj = Parameter((experts, intermediate, hidden))


class Llama4Moe(Module):
    """Every expert sees every token, weighted by the router."""

    def __init__(self, s: Shape, experts: int) -> None:
        self.experts = Llama4Experts(s.hidden, s.intermediate, experts)
        self.router = Linear(s.hidden, experts, name="router")
        self.shared_expert = GatedMLP(s.hidden, s.intermediate, act=s.act)


class Llama4Layer(Module):
    """Attention, then a dense or a sparse MLP."""

    def __init__(self, s: Shape, bias: bool, feed_forward: Module) -> None:
        self.self_attn = SelfAttention(s, bias=bias, output_bias=bias)
        self.feed_forward = feed_forward
        self.input_layernorm = RMSNorm(s.hidden)
        self.post_attention_layernorm = RMSNorm(s.hidden)


class Llama4(CausalDecoder):
    """The text model; parameter counts only."""

    counted = True

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8, head_dim=128)
        experts = config.integer("num_local_experts", default=16, high=MAX_EXPERTS)
        dense = config.integer("intermediate_size_mlp", default=16384)
        step = config.integer("interleave_moe_layer_step", default=1, high=2**20)
        given = config.integers("moe_layers")
        sparse = set(range(step - 1, s.layers, step) if given is None else given)
        bias = config.flag("attention_bias", False)

        def layer(is_sparse: bool) -> Llama4Layer:
            return Llama4Layer(s, bias, Llama4Moe(s, experts) if is_sparse else GatedMLP(s.hidden, dense, act=s.act))

        self.assemble(s, layer, [index in sparse for index in range(s.layers)])

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Not modelled: complex rotary and dense routing."""
        raise memory_not_modelled("llama4_text")
