"""DeepSeek-OCR 2: SAM's tower, learned queries behind its patches in a small language model's layers, and a mixture of experts.

A picture is seen whole at 1024 pixels; a larger one in tiles of 768 pixels too, by a second run of the same tower.
Source: transformers 5.23, models/deepseek_ocr2/{modeling,processing,image_processing_pil}_deepseek_ocr2.py (its defaults).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.blocks import Attention, GatedMLP, RMSNorm
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.convolution import Convolution, given_dtype
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.families.internvl import canvas
from loralens.core.architecture.families.qwen_vision import joined, split_up
from loralens.core.architecture.families.sam_attention import Seen
from loralens.core.architecture.families.sam_vision import SamTower
from loralens.core.architecture.media import Media, Pictures, missing_size
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.moe import ROUTING, Experts, Router, SparseMLP
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.architecture.stack import walk_stack
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.scatter import masked_scatter
from loralens.core.tape.size import BATCH, ONE, TOKENS, Size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loralens.core.architecture.call import Call
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.tape import Tape

WHOLE: Final = 1024  # pixels of a side
TILE: Final = 768
TOKENS_CAST: Final = "pictures: tokens in the embeddings' dtype"
FEWEST_TILES, MOST_TILES = 2, 6
QUERIES: Final = {768: 144, 1024: 256}  # one for each place that is left
# of the queries' layers, where the config is silent; their vocabulary has no table
USUAL: Final = {
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 1,
}


class QueryAttention(SelfAttention):
    """Grouped keys; every patch sees all patches, and a query what lies before it."""

    def __init__(self, s: Shape) -> None:
        super().__init__(s, bias=True)
        self.mask = "pictures"

    def kernel(self, call: Call) -> Attention:
        """Over so many places as the call has."""
        return replace(super().kernel(call), causal=False, keys=ONE * call.beside)


class QueryEncoder(Module):
    """The layers behind SAM's."""

    def __init__(self, v: Config) -> None:
        s = Shape.read(v.over({}, USUAL), kv_heads=32)
        self.layers = Stack(lambda _: DecoderLayer(s, QueryAttention(s)), range(s.layers))
        self.norm = RMSNorm(s.hidden)
        self.s = s

    def forward(self, t: Tape, x: Tensor, call: Call, images: Size, places: int, name: str) -> Tensor:
        """Shapes: (pictures * places, hidden) to the same."""
        positions = t.new(ONE * places, "int64", 1, "vision positions")
        t.local(t.new(images * places, "int64", 1, "which places are patches"))
        mask = t.new(images * places**2, "bool", places, "attention mask of the tower")
        cos, sin = (
            t.new(ONE * (places * self.s.rotated), x.dtype, self.s.rotated, f"rotary: {name}")
            for name in ("cos", "sin")
        )
        own = replace(
            call, masks={"pictures": mask}, shared={"rotary": (cos, sin), "positions": positions}, beside=places
        )
        hidden = walk_stack(t, f"{name}.layers", self.layers.layers, x, own, checkpointing=call.checkpointing)
        out: Tensor = self.norm(t, hidden)
        return out


class Narrowing(Module):
    """Two convolutions that halve both sides."""

    def __init__(self, v: Config, channels: int) -> None:
        first, second = v.integers("downsample_channels") or (512, 896)
        self.conv1 = Convolution(channels, first, 3, 3, name="tower: halved", bias=False)
        self.conv2 = Convolution(first, second, 3, 3, name="tower: halved again", bias=False)

    def forward(self, t: Tape, hidden: Tensor, images: Size, grid: int) -> Tensor:
        """Shapes: (pictures * grid**2, channels) to (pictures * (grid / 4)**2, hidden)."""
        hidden = self.conv1(t, hidden, images * (grid // 2) ** 2)
        return self.conv2(t, hidden, images * (grid // 4) ** 2)


class NarrowedSam(SamTower):
    """SAM's tower and what narrows its pictures."""

    def __init__(self, v: Config) -> None:
        wide = int(v.integer("hidden_size", default=768) * v.number("mlp_ratio", 4.0))
        super().__init__(v, wide=wide, fused=True)
        self.proj = Narrowing(v, self.hidden)

    def forward(self, t: Tape, pixels: Tensor, call: Call, images: Size, seen: Seen, name: str) -> Tensor:
        """Shapes: (pictures * values) to (pictures * (grid / 4)**2, hidden)."""
        return self.proj(t, super().forward(t, pixels, call, images, seen, name), images, seen.grid)


class OcrTower(Module):
    """Both, and the queries."""

    def __init__(self, v: Config) -> None:
        self.sam_encoder = NarrowedSam(v.nested("sam_config") or Config({}))
        self.vision_encoder = QueryEncoder(v.nested("encoder_config") or Config({}))
        self.hidden = self.vision_encoder.s.hidden
        for side, count in QUERIES.items():
            setattr(self, f"query_{side}_resolution", Embedding(count, self.hidden))

    def forward(self, t: Tape, pixels: Tensor, call: Call, images: Size, side: int, several: bool) -> Tensor:
        """Shapes: (pictures * values) to (pictures * queries, hidden)."""
        name, count = "model.vision_tower", QUERIES[side]
        seen = Seen(side // self.sam_encoder.patch, several)
        hidden = t.local(self.sam_encoder(t, pixels, call, images, seen, f"{name}.sam_encoder"))
        queries = t.parameter(getattr(self, f"query_{side}_resolution").weight)
        queries = ops.broadcast(t, queries, images * (count * self.hidden), "queries", summed=several)
        if t.autocast is not None:  # autocast concatenates in the wider dtype
            hidden = t.local(ops.cast(t, hidden, queries.dtype, "patches in the queries' dtype"))
        combined = t.local(ops.cat(t, [hidden, queries], self.hidden, "patches and queries"))
        return self.vision_encoder(t, combined, call, images, 2 * count, f"{name}.vision_encoder")


class DeepseekOcr2Text(CausalDecoder):
    """Llama's attention and DeepSeek V2's experts."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config)
        bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
        experts = config.integer("n_routed_experts", "num_experts", default=64, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", high=experts)
        width = config.integer("moe_intermediate_size", default=1407)
        shared = config.integer("n_shared_experts", default=2, high=MAX_HEADS)
        kinds = config.words("mlp_layer_types", s.layers)
        if kinds is None or config.text("topk_method", "greedy") != "greedy":
            missing = "mlp_layer_types" if kinds is None else "topk_method"
            raise UnsupportedArchitecture(
                f"DeepSeek-OCR 2 is modelled with mlp_layer_types, and topk_method greedy: {missing} says otherwise",
                field=f"config.{missing}",
            )

        def layer(kind: str) -> DecoderLayer:
            mlp: Module = GatedMLP(s.hidden, s.intermediate, mlp_bias, s.act)
            if kind == "sparse":
                mlp = SparseMLP(
                    Router(s.hidden, experts, chosen, float32=True),
                    Experts(s.hidden, width, experts, s.act),
                    GatedMLP(s.hidden, width * shared, mlp_bias, s.act),
                    experts_first=True,
                )
            return DecoderLayer(s, SelfAttention(s, bias=bias, output_bias=bias), mlp)

        self.assemble(s, layer, kinds)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]


class DeepseekOcr2Media(Media):
    """A whole picture, its tiles, and a learned separator behind them."""

    tower = "vision_tower"
    projector = "multi_modal_projector"

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        super().__init__(root, outer)
        self._vision = OcrTower(outer.nested("vision_config") or Config({}))
        self._projector = Linear(self._vision.hidden, root.s.hidden, True, name="projector")
        self._separator = Parameter((root.s.hidden,))
        self.join([(self.tower, self._vision), (self.projector, self._projector)])
        root.model.view_separator = self._separator

    def buffer_bytes(self) -> int:
        """Inverse frequencies of the queries' layers and their copy."""
        return int(self._vision.vision_encoder.s.rotated // 2 * 4 * 2)

    def tiles(self, recipe: Recipe) -> int:
        """Of a picture, beside the whole."""
        if recipe.image_size is None:
            raise missing_size("1000x700")
        if max(recipe.image_size) <= TILE:
            return 0
        across, down = canvas(recipe.image_size, (TILE, TILE), MOST_TILES, FEWEST_TILES)
        return across * down

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """As many tokens as queries, and the separator."""
        if not recipe.images:
            return None
        sides = [WHOLE, *[TILE] * self.tiles(recipe)]
        rows = sum((side // self._vision.sam_encoder.patch) ** 2 for side in sides)
        values, tokens = sum(3 * side**2 for side in sides), sum(QUERIES[side] for side in sides) + 1
        return Pictures(*(recipe.images * count for count in (values, rows, tokens)))

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """The tower on whole pictures, then on tiles; then picture by picture."""
        packed = self._packed(t, call)
        self.returned = [Tensor(packed.storage, packed.numel, packed.dtype, packed.width)]
        rows = ops.cast(t, joined(t, packed, "pictures: tokens of all, joined"), hidden.dtype, TOKENS_CAST)
        mask = t.new(TOKENS, "bool", 1, "places of media")
        call.held += [rows, mask]
        return masked_scatter(t, hidden, mask, rows, "embeddings with pictures")

    def _packed(self, t: Tape, call: Call) -> Tensor:
        """Of every picture its tiles' tokens, the whole one's, and the separator."""
        recipe, width = call.recipe, self._projector.out_features
        first, tiles = t.layers_walked, self.tiles(recipe)
        whole = self._tokens(t, call, WHOLE, recipe.images)
        parts = []
        if tiles:
            t.layers_walked = first  # the same layers, whose gradients add up
            parts.append(split_up(t, self._tokens(t, call, TILE, recipe.images * tiles)))
        several = self._several(call, recipe.images)
        parts.append(picked(t, whole, several))
        separator = t.parameter(self._separator)
        parts.append(ops.broadcast(t, separator, BATCH * (recipe.images * width), "separators", summed=several))
        if t.autocast is not None:  # autocast concatenates in the wider dtype
            parts = [ops.cast(t, part, separator.dtype, "tokens in the separator's dtype") for part in parts]
        return ops.cat(t, parts, width, "pictures: tokens of each")

    def _tokens(self, t: Tape, call: Call, side: int, count: int) -> Tensor:
        """Of so many pictures of a sample. Shapes: result (pictures * queries, hidden of the language model)."""
        images, values = BATCH * count, 3 * side**2
        pixels = Tensor(None, images * values, given_dtype(call.recipe), values)  # booked with the batch
        own = replace(call.of_length(images), checkpointing=call.checkpointing)
        several = self._several(call, count)
        last = self._vision(t, pixels, own, images, side, several)
        call.held.append(last)
        states = ops.cut(t, last, "states of queries", numel=images * (QUERIES[side] * self._vision.hidden))
        out: Tensor = self._projector(t, ops.copy(t, states, "states of queries in one piece") if several else states)
        return out

    def _several(self, call: Call, count: int) -> bool:
        return count > 1 or call.validity.exceeds("micro_batch_size", 1)

    def parameters(self) -> list[Parameter]:
        """With the separator."""
        return [*super().parameters(), self._separator]

    def unreached(self, recipe: Recipe) -> Iterable[Parameter]:
        """And the tiles' queries, where there are none."""
        return super().unreached(recipe) or ([] if self.tiles(recipe) else [self._vision.query_768_resolution.weight])


def picked(t: Tape, tokens: Tensor, several: bool) -> Tensor:
    """Tokens picture by picture: views, each of whose gradients is written into zeros of all; these are added up."""
    out = tokens.view()
    size = tokens.numel, tokens.dtype, tokens.width
    label = "tokens picture by picture"

    def apply(g: Tensor) -> Tensor:
        total = t.new(*size, f"gradient: {label}", "temporaries")
        if several:
            t.end(t.new(*size, f"gradient: {label}: one", "temporaries"))
        return total

    t.record(label, [out], [tokens], [], apply)
    return out
