"""How many parameters a vision tower that is not walked has, and the layers that join it to the language model.

Source: transformers 5.23, models/{siglip,clip,pixtral,qwen3_5}/modeling_*.py for the towers,
models/{llava,mistral3}/modeling_*.py for the projectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from loralens.core.architecture.config import MAX_LAYERS, Config

Count = Callable[[Config], int]


def _linear(inputs: int, outputs: int, bias: bool = True) -> int:
    return inputs * outputs + (outputs if bias else 0)


def _sizes(v: Config, hidden: int, intermediate: int, layers: int) -> tuple[int, int, int]:
    return (
        v.integer("hidden_size", default=hidden),
        v.integer("intermediate_size", default=intermediate),
        v.integer("num_hidden_layers", "depth", default=layers, high=MAX_LAYERS),
    )


def _grid(v: Config, image: int, patch: int) -> tuple[int, int]:
    """Patches of a picture, and pixels of a patch."""
    height, width = v.pair("image_size", image)
    rows, columns = v.pair("patch_size", patch)
    return (height // rows) * (width // columns), rows * columns


def _encoder(hidden: int, intermediate: int, layers: int) -> int:
    """Layers of two norms, four projections and an MLP, all with biases."""
    attention = 4 * _linear(hidden, hidden)
    mlp = _linear(hidden, intermediate) + _linear(intermediate, hidden)
    return layers * (attention + mlp + 4 * hidden)


def siglip(v: Config) -> int:
    """SigLIP: no class token; a pooling head where the config keeps one."""
    hidden, intermediate, layers = _sizes(v, 768, 3072, 12)
    patches, pixels = _grid(v, 224, 16)
    total = _linear(v.integer("num_channels", default=3) * pixels, hidden) + patches * hidden
    total += _encoder(hidden, intermediate, layers) + 2 * hidden
    if v.flag("vision_use_head", True):
        mlp = _linear(hidden, intermediate) + _linear(intermediate, hidden)
        total += hidden + 4 * _linear(hidden, hidden) + 2 * hidden + mlp
    return total


def clip(v: Config) -> int:
    """CLIP: a class token, norms before and after the layers."""
    hidden, intermediate, layers = _sizes(v, 768, 3072, 12)
    patches, pixels = _grid(v, 224, 32)
    embeddings = hidden + v.integer("num_channels", default=3) * pixels * hidden + (patches + 1) * hidden
    return embeddings + _encoder(hidden, intermediate, layers) + 4 * hidden


def pixtral(v: Config) -> int:
    """Pixtral: Llama's layers on patches."""
    hidden, intermediate, layers = _sizes(v, 1024, 4096, 24)
    _, pixels = _grid(v, 1024, 16)
    layer = 4 * hidden * hidden + 3 * hidden * intermediate + 2 * hidden
    return v.integer("num_channels", default=3) * pixels * hidden + hidden + layers * layer


def _cube(v: Config, patch: int) -> int:
    """Values of a patch over pictures in time."""
    side = v.integer("patch_size", default=patch, high=65_536)
    frames = v.integer("temporal_patch_size", default=2, high=65_536)
    return v.integer("in_channels", "in_chans", default=3) * frames * side * side


def _merged(v: Config, hidden: int) -> int:
    return hidden * v.integer("spatial_merge_size", default=2, high=1_024) ** 2


def qwen3_5(v: Config) -> int:
    """Qwen3.5: learned positions, plain layers, one merger."""
    hidden, intermediate, depth = _sizes(v, 1152, 4304, 27)
    layer = 4 * hidden + _linear(hidden, 3 * hidden) + _linear(hidden, hidden)
    layer += _linear(hidden, intermediate) + _linear(intermediate, hidden)
    positions = v.integer("num_position_embeddings", default=2304) * hidden
    return _linear(_cube(v, 16), hidden) + positions + depth * layer + 2 * hidden + _merger(v, hidden)


def _merger(v: Config, hidden: int) -> int:
    merged = _merged(v, hidden)
    return _linear(merged, merged) + _linear(merged, v.integer("out_hidden_size", default=3584))


TOWERS: Final[dict[str, Count]] = {
    "siglip_vision_model": siglip,
    "clip_vision_model": clip,
    "pixtral": pixtral,
    "qwen3_5": qwen3_5,
    "qwen3_5_vision": qwen3_5,
    "qwen3_5_moe": qwen3_5,
    "qwen3_5_moe_vision": qwen3_5,
}
# the tower of a wrapper that does not name one
USUAL: Final = {
    "llava": "clip_vision_model",
    "mistral3": "pixtral",
}


def projector(outer: Config, v: Config, text_hidden: int) -> int | None:
    """The layers between tower and language model; None where the wrapper's are not known."""
    wrapper = outer.text("model_type", "")
    if wrapper.startswith("qwen3_5"):
        return 0  # part of the tower
    match wrapper:
        case "llava":
            return _two_layers(outer, v, text_hidden, bias=True)
        case "mistral3":
            hidden = v.integer("hidden_size", default=1024)
            return hidden + _merged(outer, hidden) * hidden + _two_layers(outer, v, text_hidden, bias=False)
    return None


def _two_layers(outer: Config, v: Config, text_hidden: int, *, bias: bool) -> int:
    layers = outer.entries.get("vision_feature_layer")
    taken = max(1, len(layers)) if isinstance(layers, (list, tuple)) else 1
    bias = outer.flag("multimodal_projector_bias", bias)
    hidden = v.integer("hidden_size", default=1024) * taken
    return _linear(hidden, text_hidden, bias) + _linear(text_hidden, text_hidden, bias)
