"""Pictures and sound for a traced step: what the family's own processor makes, and what the model's code reads off it.

The processors are transformers' own and run on empty pictures before the trace begins. Fake tensors have no values, so the
functions whose results depend on the values of the grid get the grid as NumPy arrays, or are told their results' shapes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy
import torch
from torch._subclasses.fake_tensor import FakeTensor

from loralens.core.question.recipe import Recipe
from loralens.lab.trace import hub, kernels, media_grids, media_more, sound
from loralens.lab.trace.media_batch import MediaInputs, Sizes, pictures, processor
from loralens.lab.trace.media_phi4 import phi4

TOWERS: Final = ("visual", "vision_tower", "vision_model", "audio_tower", "image_tower", "video_tower",
                 "embed_tokens_extend.image_embed.img_processor", "embed_tokens_extend.audio_embed.encoder")  # fmt: skip
PROJECTORS: Final = (
    "multi_modal_projector",
    "connector",
    "embed_vision",
    "embed_audio",
    "mm_projector",
    "vision_adapter",
    "vision_projection",
    "mm_projector",
    "projector",
    "merger",
    "aligner",
    *(f"embed_tokens_extend.image_embed.img_projection_{way}" for way in ("up", "down")),
    *(
        f"embed_tokens_extend.audio_embed.{way}_proj_for_{kind}"
        for way in ("up", "down")
        for kind in ("speech", "vision_speech")
    ),
    "resampler_model",
)


def media_of(config: Any, recipe: Recipe) -> MediaInputs | None:
    """The media of one batch; None for a model of text alone, or a recipe without any."""
    make = _MAKERS.get(config.model_type)
    frames = recipe.video_frames if config.model_type in _SEE_FRAMES else 0
    if make is None or not (recipe.images or recipe.audio_seconds or frames):
        return None
    return make(config, recipe)


def keeps_out(model: torch.nn.Module, recipe: Recipe, name: str) -> bool:
    """Is this in the part of the model that the recipe freezes?"""
    return any(f"model.{part}." in f"model.{name}" for part in _frozen(model, recipe))


def left_out(model: torch.nn.Module, recipe: Recipe) -> str | None:
    """That part, and the layers that the recipe excludes itself, as PEFT's `exclude_modules`."""
    parts, own = _frozen(model, recipe), recipe.lora.exclude_modules
    patterns = [rf".*\b({'|'.join(parts)})(\..*)?"] if parts else []
    if isinstance(own, str):
        patterns.append(own)
    elif own:
        patterns.append(rf"(.*\.)?({'|'.join(map(re.escape, own))})")
    return "|".join(f"(?:{pattern})" for pattern in patterns) or None


def _frozen(model: torch.nn.Module, recipe: Recipe) -> list[str]:
    if recipe.freeze_tower == "none":
        return []
    wanted = TOWERS + (PROJECTORS if recipe.freeze_tower == "tower+projector" else ())
    inner: torch.nn.Module = getattr(model, "model", model)  # Llama 4 has its parts beside a causal model
    beside = [name for name, _ in model.named_children() if name in wanted]  # dots.ocr in it, with its names
    return [name for name, _ in inner.named_modules() if name in wanted] or beside


@contextmanager
def told(model: torch.nn.Module, media: MediaInputs | None) -> Iterator[None]:
    """Replace the functions and methods of the model's code that read values, and its checks, which would too."""
    if media is None:
        yield
        return
    listed = FakeTensor.tolist
    if media.listed is not None:
        known = media.listed
        FakeTensor.tolist = lambda x: known[x.dtype] if isinstance(known, dict) else known  # type: ignore[method-assign,assignment]
    kernels.CHOSEN.update(media.chosen)
    instead = {"torch_compilable_check": lambda *_, **__: None, **media.instead}
    code = {
        sys.modules[type(part).__module__]
        for part in model.modules()
        if type(part).__module__.startswith(("transformers.models", hub.__name__))
    }
    before = [(place, name, getattr(place, name)) for place in code for name in instead if hasattr(place, name)]
    methods = [(part, name) for part in model.modules() for name in instead if hasattr(type(part), name)]
    for place, name, _ in before:
        setattr(place, name, instead[name])
    for part, name in methods:
        setattr(part, name, instead[name])
    try:
        yield
    finally:
        FakeTensor.tolist = listed  # type: ignore[method-assign]
        kernels.CHOSEN.clear()
        for place, name, old in before:
            setattr(place, name, old)
        for part, name in methods:
            delattr(part, name)


def _llava(config: Any, recipe: Recipe) -> MediaInputs:
    return (_pixtral if config.vision_config.model_type == "pixtral" else _fixed)(config, recipe)


def _fixed(config: Any, recipe: Recipe) -> MediaInputs:
    """Towers of one size of picture, to which their processors resize everything."""
    vision = config.vision_config
    words = {"height": vision.image_size, "width": vision.image_size}
    path, size = {
        "siglip_vision_model": ("siglip.image_processing_pil_siglip.SiglipImageProcessorPil", words),
        "clip_vision_model": (
            "clip.image_processing_pil_clip.CLIPImageProcessorPil",
            {"shortest_edge": vision.image_size},
        ),
    }[vision.model_type]
    more = {} if "shortest_edge" not in size else {"crop_size": words}
    given = processor(path, size=size, **more)(pictures(recipe), return_tensors="np")
    media = MediaInputs(floats={"pixel_values": tuple(given["pixel_values"].shape)})
    if config.model_type in ("gemma3", "paligemma"):
        media.integers["token_type_ids"] = (recipe.micro_batch_size, recipe.sequence_length)
    return media


def _tiled(config: Any, recipe: Recipe) -> MediaInputs:
    """InternVL and Aya Vision: tiles and a thumbnail; GOT-OCR 2: whole pictures, as its processor has it."""
    side = config.vision_config.image_size
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    made = processor(
        "got_ocr2.image_processing_pil_got_ocr2.GotOcr2ImageProcessorPil",
        size={"height": height, "width": width},
        crop_to_patches=config.model_type != "got_ocr2",
    )
    given = made(pictures(recipe), return_tensors="np")
    return MediaInputs(floats={"pixel_values": tuple(given["pixel_values"].shape)})


class _Torch:
    """torch, but a list that is to be read by value stays one."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def as_tensor(self, value: Any, **_: Any) -> Any:
        """The values themselves."""
        return value


def _pixtral(config: Any, recipe: Recipe) -> MediaInputs:
    """Pixtral: pictures padded to the largest of the batch, and their sizes."""
    vision = config.vision_config
    merge = getattr(config, "spatial_merge_size", 1)
    side = vision.patch_size * merge
    made = processor(
        "pixtral.image_processing_pil_pixtral.PixtralImageProcessorPil",
        size={"longest_edge": vision.image_size},
        patch_size={"height": side, "width": side},
    )
    given = made(pictures(recipe), return_tensors="np")
    sizes = numpy.array(numpy.asarray(given["image_sizes"]).tolist(), dtype=object).view(Sizes)
    return MediaInputs(
        floats={"pixel_values": tuple(given["pixel_values"].shape)},
        values={"image_sizes": sizes},
        instead={"torch": _Torch()},
    )


def _next(config: Any, recipe: Recipe) -> MediaInputs:
    """LLaVA-NeXT: a picture's tiles, and its own size."""
    side = config.vision_config.image_size
    made = processor(
        "llava_next.image_processing_pil_llava_next.LlavaNextImageProcessorPil",
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_grid_pinpoints=config.image_grid_pinpoints,
    )
    given = made(pictures(recipe), return_tensors="np")
    sizes = numpy.array(numpy.asarray(given["image_sizes"]).tolist(), dtype=object)
    return MediaInputs(floats={"pixel_values": tuple(given["pixel_values"].shape)}, values={"image_sizes": sizes})


_SEE_FRAMES: Final = ("video_llava",)
_MAKERS: Final[dict[str, Callable[[Any, Recipe], MediaInputs]]] = {
    "aya_vision": _tiled,
    "gemma3": _fixed,
    "got_ocr2": _tiled,
    "interns1": _tiled,
    "internvl": _tiled,
    "llava": _llava,
    "llava_next": _next,
    "llava_next_video": _next,
    "mistral3": _pixtral,
    "paligemma": _fixed,
    "phi4_multimodal": phi4,
    **media_grids.MAKERS,
    **media_more.MAKERS,
    **sound.MAKERS,
}
