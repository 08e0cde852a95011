"""LitGPT's GPT: one matrix for query, key and value, rotary by concatenation, logits and loss in chunks of 128 tokens.

Source: Lightning-AI/litgpt, October 2023: lit_gpt/model.py (`CausalSelfAttention`, `apply_rope`, `Block`), lit_gpt/rmsnorm.py,
lit_gpt/lora.py (`LoRAQKVLinear`, `zero_pad`), lit_gpt/utils.py (`chunked_cross_entropy`), finetune/lora.py; Lightning
fabric/plugins/precision/half.py (`HalfPrecision.convert_output`: what a model returns becomes float32).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.blocks import GatedMLP, LateCastRMSNorm, LayerNorm, PlainMLP, Rotary, rotate
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import lookup
from loralens.core.architecture.decoder import CausalDecoder, PartNames
from loralens.core.architecture.losses.litgpt import listed
from loralens.core.architecture.module import FusedLinear, Linear, Module
from loralens.core.architecture.rotary import cut
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.attention import Attention
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape

if TYPE_CHECKING:
    from loralens.core.architecture.config import Config


@dataclass(frozen=True, slots=True)
class Style:
    """What lit_gpt/config.py says of a family. `gated`: Llama's MLP and RMS norms, no bias; else GPT-NeoX's."""

    gated: bool = True
    parallel: bool = False
    shared_norm: bool = False
    head_bias: bool = False
    rotary: float = 1.0
    act: str = "silu"
    mlp: tuple[str, str] = ("", "")
    output: str = "o_proj"
    kv_heads: int | None = None


STYLES: Final = {
    "llama": Style(),
    "mistral": Style(kv_heads=8),
    "phi": Style(
        gated=False,
        parallel=True,
        shared_norm=True,
        head_bias=True,
        rotary=0.5,
        act="gelu_pytorch_tanh",
        mlp=("fc1", "fc2"),
        output="dense",
    ),
    "gpt_neox": Style(
        gated=False, parallel=True, rotary=0.25, act="gelu", mlp=("dense_h_to_4h", "dense_4h_to_h"), output="dense"
    ),
}


class LitAttention(Module):
    """Query, key and value stay views of one result, which therefore lives as long as the value does."""

    def __init__(self, s: Shape, bias: bool, output: str) -> None:
        kv = s.kv_heads * s.head_dim
        parts = {"q_proj": s.heads * s.head_dim, "k_proj": kv, "v_proj": kv}
        self.attn = FusedLinear(s.hidden, parts, bias, name="attention query, key and value")
        setattr(self, output, Linear(s.heads * s.head_dim, s.hidden, bias, name="attention output projection"))
        self._s, self._output = s, output

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width, groups = self._s, self._s.head_dim, self._s.heads // self._s.kv_heads
        kv = s.kv_heads * width
        q, k, v = ops.split(t, self.attn(t, x), [s.heads * width, kv, kv], "attention: q, k, v")
        q, k, v = q.view(width), k.view(width), v.view(width)
        if groups > 1:  # the query's heads do not lie evenly any more, and keys and values are spread to all heads
            q = ops.copy(t, q, "attention: query by head")
            k, v = (
                ops.copy(t, part, f"attention: {name} for all heads", part.numel * groups)
                for part, name in ((k, "key"), (v, "value"))
            )
        q, k = (self._turned(t, part, call, f"attention {name}") for part, name in ((q, "query"), (k, "key")))
        out = Attention(s.heads, s.heads, width, width, call.attention, heads_first=True)(
            t, q, k, v, call.masks["full"]
        )
        result: Tensor = getattr(self, self._output)(t, out.view(s.heads * width))
        return result

    def _turned(self, t: Tape, x: Tensor, call: Call, label: str) -> Tensor:
        """Rotary in float32 on a part, cast back, and concatenated with the rest even where nothing is left."""
        turned, passed = cut(t, x, self._s.rotated, label)
        turned = ops.cast(t, rotate(t, turned, call.shared["rotary"], label), x.dtype, f"{label} after rotary, cast")
        return ops.cat(t, [turned, passed], self._s.head_dim, f"{label}, whole")


class LitBlock(Module):
    """Norms, attention and MLP, one after the other or side by side."""

    def __init__(self, s: Shape, style: Style) -> None:
        norm = LateCastRMSNorm if style.gated else LayerNorm
        self.norm_1 = norm(s.hidden)
        self.attn = LitAttention(s, not style.gated, style.output)
        self.norm_2 = None if style.shared_norm else norm(s.hidden)
        self.mlp = (
            GatedMLP(s.hidden, s.intermediate, act=s.act)
            if style.gated
            else PlainMLP(s.hidden, s.intermediate, style.mlp, style.act)
        )
        self._parallel = style.parallel

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        normed = self.norm_1(t, hidden)
        attended = self.attn(t, normed, call)
        if self._parallel:
            fed = self.mlp(t, self.norm_2(t, hidden) if self.norm_2 else normed)
            return ops.add(
                t, ops.add(t, fed, attended, "mlp plus attention"), hidden, "residual stream after the layer"
            )
        hidden = ops.add(t, attended, hidden, "residual stream after attention")
        assert self.norm_2 is not None
        return ops.add(t, self.mlp(t, self.norm_2(t, hidden)), hidden, "residual stream after the layer")


class LitGPT(CausalDecoder):
    """The causal language model; embeddings and head are never tied."""

    framework = "litgpt"

    def __init__(self, config: Config) -> None:
        style = STYLES[config.text("model_type", "")]
        s = Shape.read(config, act=style.act, rotary=style.rotary, kv_heads=style.kv_heads)
        self.assemble(
            s,
            lambda _: LitBlock(s, style),
            [None] * s.layers,
            norm=LateCastRMSNorm if style.gated else LayerNorm,
            names=PartNames("transformer", "wte", "h", "ln_f"),
            head_bias=style.head_bias,
            tied=False,
        )

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Token embeddings; the tables are the model's buffers. Nothing is masked: SDPA is causal."""
        hidden = lookup(t, self.embedding, call)
        call.masks["full"] = None
        call.shared["rotary"] = Rotary(self.s.rotated, float32=True).tables(t, hidden)
        return hidden

    def loss(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Its own loss in chunks; another one only where the recipe names it."""
        if call.recipe.loss != "full":
            return super().loss(t, hidden, call)
        return listed(t, self, hidden, call)


__all__ = ["STYLES", "LitGPT"]
