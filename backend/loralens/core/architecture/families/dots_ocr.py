"""dots.ocr: a tower of gated layers at any size of picture beside Qwen2's layers; its attention is the config's own.

Source: rednote-hilab/dots.ocr, modeling_dots_vision.py, modeling_dots_ocr.py and configuration_dots.py (on the Hub); pictures as
transformers 5.23 models/qwen2_vl/image_processing_qwen2_vl.py makes them (3,136 to 11,289,600 pixels: dots_ocr/utils/consts.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import Attention, LayerNorm, RMSNorm, rotate
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution, given_dtype
from loralens.core.architecture.families.qwen_vision import Grid, PatchMerger, QwenMedia, unbound
from loralens.core.architecture.media import Media, refuse_packed
from loralens.core.architecture.module import Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.scatter import masked_scatter
from loralens.core.tape.size import ONE, TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loralens.core.architecture.call import Call
    from loralens.core.architecture.media import Pictures
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape

FLASH: Final = "flash_attention_2"


class DotsPatches(Module):
    """A convolution over each patch, and a norm."""

    def __init__(self, v: Config, hidden: int) -> None:
        channels = v.integer("num_channels", default=3)
        self.patch = v.integer("patch_size", default=14, high=65_536)
        self.frames = v.integer("temporal_patch_size", default=1, high=65_536)
        self.values = channels * self.frames * self.patch**2
        self.patchifier = Module()
        self.patchifier.proj = Convolution(channels, hidden, self.patch, self.patch, name="patch embeddings")
        self.patchifier.norm = RMSNorm(hidden)

    def forward(self, t: Tape, pixels: Tensor, rows: Size) -> Tensor:
        """Shapes: (rows, values of a patch) to (rows, hidden)."""
        x = self.patchifier.proj(t, pixels, rows)
        return self.patchifier.norm(t, x)


class DotsAttention(Module):
    """One matrix for query, key and value; each turned by tables of its own."""

    def __init__(self, hidden: int, heads: int, *, bias: bool, flash: bool) -> None:
        self.qkv = Linear(hidden, 3 * hidden, bias, name="attention query, key and value")
        self.proj = Linear(hidden, hidden, bias, name="attention output projection")
        self._hidden, self._heads, self._flash = hidden, heads, flash

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        width = self._hidden // self._heads
        q, k, v = unbound(t, self.qkv(t, x), self._hidden)
        q = self._turned(t, q, call, "attention query")
        k = self._turned(t, k, call, "attention key")
        out = self._kernel(t, q.view(width), k.view(width), v.view(width), call.beside).view(self._hidden)
        return self.proj(t, out)

    def _turned(self, t: Tape, x: Tensor, call: Call, label: str) -> Tensor:
        width, angles, dtype = self._hidden // self._heads, call.shared["angles"], x.dtype
        wide = ops.cast(t, x.view(width), "float32", f"{label} in float32")

        cos = t.new(angles.numel, "float32", width // 2, "rotary: cos")
        sin = t.new(angles.numel, "float32", width // 2, "rotary: sin")
        cos = t.replace(cos, t.new(angles.numel * 2, "float32", width, "rotary: cos"))
        sin = t.replace(sin, t.new(angles.numel * 2, "float32", width, "rotary: sin"))
        out = rotate(t, wide, (cos, sin), label)
        return ops.cast(t, out, dtype, f"{label} after rotary, cast back").view(self._hidden)

    def _kernel(self, t: Tape, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        width, heads = self._hidden // self._heads, self._heads
        if self._flash:
            keys = ONE * (grid.height * grid.width)
            return Attention(heads, heads, width, width, "flash", causal=False, keys=keys)(t, q, k, v)
        keys = ONE * (t.validity.pinned("micro_batch_size") * grid.patches)
        mask = t.new(grid.rows.times(keys), "bool", 1, "which patches see each other")
        kernel = Attention(heads, heads, width, width, "sdpa", causal=False, in_a_row=True, keys=keys)
        return kernel(t, q, k, v, mask)


class DotsMLP(Module):
    """`fc2(silu(fc1(x)) * fc3(x))`."""

    def __init__(self, hidden: int, wide: int, *, bias: bool) -> None:
        self.fc1 = Linear(hidden, wide, bias, name="MLP gate")
        self.fc2 = Linear(wide, hidden, bias, name="MLP down")
        self.fc3 = Linear(hidden, wide, bias, name="MLP up")

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        gate = activation(t, self.fc1(t, x), "silu", "MLP: activated gate")
        x = ops.mul(t, gate, self.fc3(t, x), "MLP: product")
        return self.fc2(t, x)


class DotsBlock(Module):
    """Pre-norm attention and gated MLP."""

    def __init__(self, v: Config, hidden: int, heads: int, wide: int, *, flash: bool) -> None:
        bias = v.flag("use_bias", False)
        self.attn = DotsAttention(hidden, heads, bias=bias, flash=flash)
        self.norm1, self.norm2 = RMSNorm(hidden), RMSNorm(hidden)
        self.mlp = DotsMLP(hidden, wide, bias=bias)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        hidden = ops.add(t, hidden, self.attn(t, self.norm1(t, hidden), call), "residual stream after attention")
        return ops.add(t, hidden, self.mlp(t, self.norm2(t, hidden)), "residual stream after the layer")


class DotsTower(Module):
    """The tower with its merger; `embed_dim` is its width, `hidden_size` the language model's."""

    def __init__(self, v: Config) -> None:
        hidden, out = v.integer("embed_dim", default=1536), v.integer("hidden_size", default=1536)
        heads, wide = v.integer("num_attention_heads", default=12), v.integer("intermediate_size", default=4224)
        v.divides("num_attention_heads", hidden, heads)
        depth = v.integer("num_hidden_layers", default=42, high=MAX_LAYERS)
        kernel = v.text("attn_implementation", FLASH)
        if kernel not in (FLASH, "sdpa"):
            raise UnsupportedArchitecture(
                f"a tower with attn_implementation {kernel:.40} is not modelled: {FLASH} and sdpa are",
                field="config.vision_config.attn_implementation",
            )
        self.merge = v.integer("spatial_merge_size", default=2, high=1_024)
        self.patch_embed = DotsPatches(v, hidden)
        self.blocks = Stack(lambda _: DotsBlock(v, hidden, heads, wide, flash=kernel == FLASH), [None] * depth)
        if v.flag("post_norm", True):
            self.post_trunk_norm = RMSNorm(hidden)
        self.merger = PatchMerger(LayerNorm(hidden), hidden * self.merge**2, out)
        self.head, self.hidden = hidden // heads, hidden

    def forward(self, t: Tape, pixels: Tensor, call: Call, grid: Grid, name: str) -> Tensor:
        """Shapes: pixels (rows, values of a patch) to (tokens, out)."""
        hidden = self.patch_embed(t, pixels, grid.rows)
        half = self.head // 2
        call.shared["angles"] = t.new(grid.rows * half, "float32", half, "rotary: angles")
        call.beside = grid
        hidden = walk_stack(t, name, self.blocks.layers, hidden, call, checkpointing=call.checkpointing)
        if "post_trunk_norm" in vars(self):
            hidden = self.post_trunk_norm(t, hidden)
        return self.merger(t, hidden)


class DotsMedia(QwenMedia):
    """The tower stands beside a whole causal model, which keeps its own names."""

    tower, below = "vision_tower", ""
    words = Media.words
    own_positions = False
    limits = (3_136, 11_289_600)
    origin = (
        "dots.ocr's own code lives on the Hub: its tower is walked as it reads, with the attention that vision_config names "
        "(flash_attention_2 where it names none), the language model as transformers' Qwen2"
    )

    def join(self, parts: Sequence[tuple[str, Module]]) -> None:
        """Beside `model` and `lm_head`."""
        for name, part in parts:
            setattr(self.root, name, part)
        self.root.media = self
        self.root.buffer_bytes += self.buffer_bytes()

    def made(self, v: Config) -> Module:
        """From the vision config."""
        return DotsTower(v)

    def buffer_bytes(self) -> int:
        """Inverse frequencies."""
        width: int = self._visual.head
        return width // 4 * 4

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """Nothing."""
        return []

    def placed(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """What the outer forward has lives until the loss."""
        mask = t.new(TOKENS, "bool", 1, "places of media")
        call.shared["places"] = mask
        hidden = super().placed(t, hidden, call)
        self.returned += [hidden.view(), mask]
        return hidden

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """Tower and exchange.

        Raises:
            InvalidInput: the tower is packed, whose dtype the pictures are cast to.
        """
        refuse_packed(self._visual.blocks.layers[0].mlp.fc2.weight, self.tower)
        (grid,) = self.grids(call.recipe).values()
        embed = self._visual.patch_embed
        pixels = Tensor(None, grid.rows * embed.values, given_dtype(call.recipe), embed.values)  # booked with the batch
        pixels = ops.cast(t, pixels, embed.patchifier.proj.weight.dtype, "pictures in the tower's dtype")
        own = call.of_length(grid.rows)
        own.checkpointing = call.checkpointing
        tokens = self._visual(t, pixels, own, grid, f"{self.tower}.{self.blocks}")
        rows = ops.cast(t, tokens, hidden.dtype, "pictures: tokens in the embeddings' dtype")
        return masked_scatter(t, hidden, call.shared["places"], rows, "embeddings with pictures")
