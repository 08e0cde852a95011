"""MiniCPM 1, 2 and 4: a Llama whose embeddings, branches and last hidden states are scaled, with rotary embedding in float32.

Source: openbmb/MiniCPM4.1-8B on the Hub, modeling_minicpm.py, read in wxthu/nas_tuner 316794f. With `sparse_config` that code takes
kernels of another package (InfLLM v2), which are not modelled; MiniCPM 3 is model_type minicpm3.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, rotate
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import position_ids
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import DecoderLayer
from loralens.core.architecture.remote_decoder import CachedAttention, RemoteDecoder, VarianceNorm
from loralens.core.architecture.shape import Shape
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape


class MiniCPMAttention(CachedAttention):
    """Rotary embedding of float32 copies, cast back at the end."""

    cached = "float32"

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Both copies last until both are turned."""
        tables = self.gathered(t, call, q.dtype)
        wide_q = ops.cast(t, q, "float32", "attention query in float32")
        wide_k = ops.cast(t, k, "float32", "attention key in float32")
        q_turned, k_turned = rotate(t, wide_q, tables, "attention query"), rotate(t, wide_k, tables, "attention key")
        return (
            ops.cast(t, q_turned, q.dtype, "attention query, cast back"),
            ops.cast(t, k_turned, k.dtype, "attention key, cast back"),
        )


class MiniCPMLayer(DecoderLayer):
    """Each branch is multiplied before it joins the residual stream."""

    def branch(self, t: Tape, x: Tensor) -> Tensor:
        """Times `scale_depth` over the root of the number of layers."""
        return ops.scale(t, x, "branch, multiplied")


class MiniCPM(RemoteDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        for name in ("sparse_config", "num_experts"):
            if config.has(name):
                raise UnsupportedArchitecture(
                    f"MiniCPM with config.{name} is not modelled",
                    field=f"config.{name}",
                    hint=f"leave {name} out for the dense model",
                )
        s, bias = Shape.read(config, tied=True), config.flag("attention_bias", False)

        def layer(_: object) -> MiniCPMLayer:
            attention = MiniCPMAttention(s, bias=bias, output_bias=bias)
            return MiniCPMLayer(s, attention, GatedMLP(s.hidden, s.intermediate, act=s.act), VarianceNorm)

        self.assemble(s, layer, s.windows, norm=VarianceNorm)
        self.caches_tables(config, "float32")

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Scaled behind the embedding, whose own result passes a gradient on."""
        tokens = self.embedding(t, TOKENS)
        if call.input_gradients:
            t.require_grad(tokens)
        hidden = t.replace(tokens, ops.scale(t, tokens, "embeddings, multiplied"))
        call.held.append(hidden)
        position_ids(t, call)
        self.masks(t, call)
        return hidden

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """Of hidden states that are divided."""
        return super().logits(t, ops.scale(t, hidden, "hidden states, scaled"))
