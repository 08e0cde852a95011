"""MiniMax-M3's tower: CLIP's layers turned by three kinds of position, a projector that works on patches and then on four of them.

Source: transformers 5.23, models/minimax_m3_vl/{modeling,image_processing}_minimax_m3_vl.py (3,136 to 451,584 pixels, its default
limits). Videos are not modelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import LayerNorm, rotate
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.families.encoder_towers import TowerLayer
from loralens.core.architecture.families.qwen_vision import Grid, PatchEmbed, QwenMedia
from loralens.core.architecture.media import Media
from loralens.core.architecture.module import Linear, Module, Stack
from loralens.core.architecture.rotary import cut
from loralens.core.architecture.stack import walk_stack
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.tape import masked, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.packed import attend

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape


class M3VisionAttention(Module):
    """Rotary on most of each head, in the states' own dtype."""

    def __init__(self, hidden: int, heads: int, rotated: int) -> None:
        for name, label in (("k", "key"), ("v", "value"), ("q", "query")):
            setattr(self, f"{name}_proj", Linear(hidden, hidden, True, name=f"attention {label}"))
        self.out_proj = Linear(hidden, hidden, True, name="attention output projection")
        self._heads, self._rotated = heads, rotated

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        hidden = self.out_proj.in_features
        width = hidden // self._heads
        q, k, v = self.q_proj(t, x).view(width), self.k_proj(t, x).view(width), self.v_proj(t, x)
        q, k = self._position(t, q, k, call.shared["rotary"])
        return self.out_proj(t, attend(t, q.view(hidden), k.view(hidden), v, self._heads, call.beside.pieces()))

    def _position(self, t: Tape, q: Tensor, k: Tensor, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        (q_rot, q_pass), (k_rot, k_pass) = (
            cut(t, x, self._rotated, f"attention {name}") for x, name in ((q, "query"), (k, "key"))
        )
        q_rot = rotate(t, q_rot, tables, "attention query")
        k_rot = rotate(t, k_rot, tables, "attention key")
        return _whole(t, q_rot, q_pass, q.width, "query"), _whole(t, k_rot, k_pass, k.width, "key")


def _whole(t: Tape, turned: Tensor, passed: Tensor, width: int | Size, name: str) -> Tensor:
    """Both parts, in the wider dtype, as autocast has it."""
    passed = ops.cast(t, passed, turned.dtype, f"attention {name}: passed part in the wider dtype")
    return ops.cat(t, [turned, passed], width, f"attention {name}, whole")


class M3VisionLayer(TowerLayer):
    """CLIP's."""

    def __init__(self, hidden: int, intermediate: int, heads: int, act: str, rotated: int) -> None:
        super().__init__(hidden, intermediate, heads, 1, act, 0.0)
        self.self_attn = M3VisionAttention(hidden, heads, rotated)


class M3Tower(Module):
    """The tower."""

    def __init__(self, v: Config) -> None:
        hidden, heads = v.integer("hidden_size", default=1280), v.integer("num_attention_heads", default=16)
        v.divides("num_attention_heads", hidden, heads)
        wide = v.integer("intermediate_size", default=5120)
        depth = v.integer("num_hidden_layers", default=32, high=MAX_LAYERS)
        act = known(v.text("hidden_act", "gelu"), "config.vision_config.hidden_act")
        if v.number("attention_dropout", 0.0, 0, 1):
            raise UnsupportedArchitecture(
                "dropout in the tower's attention is not modelled", field="config.vision_config.attention_dropout"
            )
        self.merge = v.integer("spatial_merge_size", default=2, high=1_024)
        self.angles = hidden // heads // 3 // 2  # of each kind of position
        rotated = 2 * 3 * self.angles
        self.embeddings = PatchEmbed(v, hidden, bias=False)
        self.pre_layrnorm = LayerNorm(hidden)
        self.layers = Stack(lambda _: M3VisionLayer(hidden, wide, heads, act, rotated), [None] * depth)
        self.hidden = hidden

    @property
    def patch_embed(self) -> PatchEmbed:
        """The patches."""
        found: PatchEmbed = self.embeddings
        return found

    def forward(self, t: Tape, pixels: Tensor, call: Call, grid: Grid, name: str) -> list[Tensor]:
        """Shapes: pixels (rows, values of a patch) to (rows, hidden)."""
        patches = self.embeddings(t, pixels, grid.rows)  # to which no gradient is asked for
        patches = t.local(
            ops.cast(t, patches, self.embeddings.proj.weight.dtype, "patch embeddings in the weights' dtype")
        )
        t.local(t.new(grid.rows * 3, "int64", 3, "vision positions"))
        call.shared["rotary"] = self._tables(t, grid.rows, patches.dtype)
        call.beside = grid
        return [
            walk_stack(
                t, name, self.layers.layers, self.pre_layrnorm(t, patches), call, checkpointing=call.checkpointing
            )
        ]

    def _tables(self, t: Tape, rows: Size, dtype: str) -> tuple[Tensor, Tensor]:
        width = 3 * self.angles
        with t.temporary(rows * 3, "float32", 3, "rotary: positions in float32"):
            angles = t.new(rows * width, "float32", width, "rotary: angles")

        def scaled(name: str) -> Tensor:
            with t.temporary(rows * width, "float32", width, name):
                return t.new(rows * width, "float32", width, name)

        cos, sin = scaled("rotary: cos"), scaled("rotary: sin")
        cos = t.replace(cos, t.new(rows * (2 * width), "float32", 2 * width, "rotary: cos"))
        sin = t.replace(sin, t.new(rows * (2 * width), "float32", 2 * width, "rotary: sin"))
        tables = ops.cast(t, cos, dtype, "rotary: cos"), ops.cast(t, sin, dtype, "rotary: sin")
        t.end(angles)
        return tables


class M3Projector(Module):
    """Two layers on every patch, then two on neighbouring patches side by side."""

    def __init__(self, inputs: int, wide: int, hidden: int, several: int) -> None:
        self.linear_1 = Linear(inputs, wide, True, name="projector: first")
        self.linear_2 = Linear(wide, hidden, True, name="projector: second")
        self.merge_linear_1 = Linear(hidden * several, wide, True, name="projector: third")
        self.merge_linear_2 = Linear(wide, hidden, True, name="projector: fourth")

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, inputs) to (tokens, hidden)."""
        x = self.linear_2(t, activation(t, self.linear_1(t, x), "gelu", "projector: activated"))
        x = x.view(self.merge_linear_1.in_features)
        return self.merge_linear_2(t, activation(t, self.merge_linear_1(t, x), "gelu", "projector: activated"))


class MiniMaxM3Media(QwenMedia):
    """Tower and projector."""

    tower, projector = "vision_tower", "multi_modal_projector"
    blocks = "layers"
    words = Media.words
    limits = (4 * 28 * 28, 451_584)
    own_positions = False

    def made(self, v: Config) -> Module:
        """From the vision config."""
        return M3Tower(v)

    def behind(self, outer: Config) -> list[tuple[str, Module]]:
        """The projector."""
        wide = outer.integer("projector_hidden_size", default=6144)
        self._projector = M3Projector(self._visual.hidden, wide, self._width, self._merge**2)
        return [(self.projector, self._projector)]

    def buffer_bytes(self) -> int:
        """Inverse frequencies of the rotary tables and their copy."""
        angles: int = self._visual.angles
        return angles * 4 * 2

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """The projector's first two layers work on every patch."""
        found = self.pictures(recipe)
        if found is None or ".merge_linear_" in name:
            return super().uses_per_token(name, recipe)
        return found.rows / recipe.sequence_length

    def projected(self, t: Tape, found: list[Tensor]) -> list[Tensor]:
        """Projected."""
        (states,) = found
        tokens = self._projector(t, states)
        self.returned = [Tensor(tokens.storage, tokens.numel, tokens.dtype, tokens.width)]
        return [states, tokens]

    def checked(self, t: Tape, hidden: Tensor, mask: Tensor, rows: Tensor) -> None:
        """The embeddings of placeholders are taken out once, to be counted."""
        assert isinstance(hidden.width, int)
        t.end(masked.taken(t, hidden, mask, rows.numel, hidden.width, 3, "embeddings of placeholders"))
