"""Idefics 2: pictures of any shape in a SigLIP tower, whose patches a few learned vectors look at: as many tokens for every picture.

Source: transformers 5.23, models/idefics2/{modeling,image_processing_pil}_idefics2.py (378 to 980 pixels on a side, pictures are not
split: its defaults).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import known
from loralens.core.architecture.blocks import Attention, GatedMLP, RMSNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.families.idefics3 import Idefics3Media, TiledTower
from loralens.core.architecture.media import Pictures, missing_size
from loralens.core.architecture.module import Linear, Module, Stack
from loralens.core.architecture.shape import MAX_HEADS
from loralens.core.tape import ops
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import ONE, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.tape import Tape

SHORTEST: Final = 378  # pixels
LONGEST: Final = 980
NOT_SPLIT: Final = "a picture is one picture, as the processor's class has it: with do_image_splitting it is five"


class LatentLooks(Module):
    """Learned vectors look at a picture's patches and at each other; grouped keys."""

    def __init__(self, p: Config, hidden: int) -> None:
        heads = p.integer("resampler_n_heads", default=16, high=MAX_HEADS)
        kv_heads = p.integer("num_key_value_heads", default=4, high=heads)
        p.divides("num_key_value_heads", heads, kv_heads)
        width = p.integer("resampler_head_dim", default=96, high=65_536)
        self.q_proj = Linear(hidden, heads * width, name="attention query")
        self.k_proj = Linear(hidden, kv_heads * width, name="attention key")
        self.v_proj = Linear(hidden, kv_heads * width, name="attention value")
        self.o_proj = Linear(heads * width, hidden, name="attention output projection")
        self._heads, self._kv_heads, self._width = heads, kv_heads, width
        self._dropout = p.number("attention_dropout", 0.0, 0, 1)

    def forward(self, t: Tape, latents: Tensor, context: Tensor, call: Call, seen: int) -> Tensor:
        """Shapes: latents (pictures * latents, hidden), context (pictures * patches, hidden) to the former. `seen`: keys of a picture."""
        width, wide = self._width, self.o_proj.in_features
        states = t.local(ops.cat(t, [context, latents], self.q_proj.in_features, "patches and latents"))
        q, k, v = self.q_proj(t, latents), self.k_proj(t, states), self.v_proj(t, states)
        kernel = Attention(
            self._heads,
            self._kv_heads,
            width,
            width,
            call.attention,
            self._dropout,
            causal=False,
            keys=ONE * seen,
        )
        out: Tensor = self.o_proj(t, kernel(t, q.view(width), k.view(width), v.view(width)).view(wide))
        return out


class LatentLayer(Module):
    """Pre-norm attention and MLP; checkpointing does not reach it."""

    def __init__(self, p: Config, hidden: int) -> None:
        act = known(p.text("hidden_act", "silu"), "config.perceiver_config.hidden_act")
        self.input_latents_norm, self.input_context_norm = RMSNorm(hidden), RMSNorm(hidden)
        self.self_attn = LatentLooks(p, hidden)
        self.post_attention_layernorm = RMSNorm(hidden)
        self.mlp = GatedMLP(hidden, 4 * hidden, act=act)

    def forward(self, t: Tape, latents: Tensor, context: Tensor, call: Call, seen: int) -> Tensor:
        """Shapes: (pictures * latents, hidden) to the same."""
        normed, context = self.input_latents_norm(t, latents), t.local(self.input_context_norm(t, context))
        looked = self.self_attn(t, normed, context, call, seen)
        t.end(normed)
        latents = ops.add(t, latents, looked, "residual stream after attention")
        out = self.mlp(t, self.post_attention_layernorm(t, latents))
        return ops.add(t, latents, out, "residual stream after the layer")


class Resampler(Module):
    """As many tokens for every picture as there are latents."""

    multiplies = False  # its latents are asked with

    def __init__(self, p: Config, hidden: int) -> None:
        self.count = p.integer("resampler_n_latents", default=64, high=65_536)
        self.latents = Parameter((self.count, hidden))
        depth = p.integer("resampler_depth", default=3, high=MAX_LAYERS)
        self.layers = Stack(lambda _: LatentLayer(p, hidden), range(depth))
        self.norm = RMSNorm(hidden)
        self._hidden = hidden

    def forward(self, t: Tape, context: Tensor, call: Call, images: Size, several: bool) -> Tensor:
        """Shapes: (pictures * patches, hidden) to (pictures * latents, hidden)."""
        whole = images * (self.count * self._hidden)
        latents = ops.broadcast(t, t.parameter(self.latents), whole, "latents of every picture", summed=several)
        for layer in self.layers.layers:
            latents = layer(t, latents, context, call, call.beside + self.count)
        out: Tensor = self.norm(t, latents)
        return out


class PatchProjection(GatedMLP):
    """A gated MLP from the tower's width to the language model's."""

    def __init__(self, inputs: int, wide: int, hidden: int, act: str) -> None:
        super().__init__(inputs, wide, act=act)
        self.down_proj = Linear(wide, hidden, name="mlp down")


class ResamplingConnector(Module):
    """Projection and resampler."""

    def __init__(self, inputs: int, wide: int, hidden: int, act: str, p: Config) -> None:
        self.modality_projection = PatchProjection(inputs, wide, hidden, act)
        self.perceiver_resampler = Resampler(p, hidden)

    def forward(self, t: Tape, x: Tensor, call: Call, images: Size, several: bool) -> Tensor:
        """Shapes: (pictures * patches, inputs) to (pictures * latents, hidden)."""
        projected = t.local(self.modality_projection(t, x))
        out: Tensor = self.perceiver_resampler(t, projected, call, images, several)
        return out


class Idefics2Media(Idefics3Media):
    """Tower and connector."""

    usual = "idefics2_vision"

    def seen(self, outer: Config, v: Config) -> Module:
        """The tower."""
        return TiledTower(v, any_size=True)

    def made(self, outer: Config, inputs: int, hidden: int) -> Module:
        """As wide as the language model's own layers."""
        s = self.root.s
        return ResamplingConnector(
            inputs, s.intermediate, hidden, s.act, outer.nested("perceiver_config") or Config({})
        )

    def tokens(self) -> int:
        """Of a picture."""
        found: int = self._projector.perceiver_resampler.count
        return found

    def tiles(self, recipe: Recipe) -> int:
        """A picture is not cut."""
        return 1

    def sides(self, recipe: Recipe) -> tuple[int, int]:
        """Pixels down and across."""
        if recipe.image_size is None:
            raise missing_size()
        return shrunk(*recipe.image_size)

    def area(self, recipe: Recipe) -> int:
        """Of a picture."""
        high, wide = self.sides(recipe)
        return high * wide

    def patches(self, recipe: Recipe) -> int:
        """Of a picture; what is left at its edges is not looked at."""
        patch = self._vision.patch
        high, wide = self.sides(recipe)
        return (high // patch) * (wide // patch)

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """Of any shape."""
        if not recipe.images:
            return None
        values = self._vision.values // self._vision.side**2 * self.area(recipe)
        return Pictures(*(recipe.images * count for count in (values, self.patches(recipe), self.tokens())))

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """Patches are projected, then looked at with the latents."""
        found, place = self.pictures(recipe), f"{self.below}{self.projector}."
        if found is None or not name.startswith(place):
            return super().uses_per_token(name, recipe)
        rows = found.tokens
        if name.startswith(f"{place}modality_projection"):
            rows = found.rows
        elif name.endswith(("k_proj", "v_proj")):
            rows += found.rows
        return rows / recipe.sequence_length

    def assumptions(self, recipe: Recipe) -> list[str]:
        """And that pictures are not split."""
        return [*super().assumptions(recipe), *([NOT_SPLIT] if recipe.images else [])]

    def features(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool, held: list[Tensor]) -> Tensor:
        """As Idefics 3's, with as many patches as a picture has."""
        own = replace(call, beside=self.patches(call.recipe))
        return super().features(t, pixels, own, images, several, held)

    def projected(self, t: Tape, states: Tensor, call: Call, images: Size, several: bool) -> Tensor:
        """Projected and resampled."""
        return self._projector(t, states, call, images, several)


def shrunk(height: int, width: int) -> tuple[int, int]:
    """Pixels down and across after resizing.

    Source: models/idefics2/image_processing_pil_idefics2.py, `get_resize_output_image_size`.
    """
    ratio = width / height
    if width >= height and width > LONGEST:
        height, width = int(LONGEST / ratio), LONGEST
    elif height > width and height > LONGEST:
        height, width = LONGEST, int(LONGEST * ratio)
    return max(height, SHORTEST), max(width, SHORTEST)
