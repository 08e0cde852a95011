"""Pictures for a traced step, continued: families whose batch has parts of its own beside the pixels.

See `media`, which puts these behind its own.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any, Final

import numpy

from loralens.core.architecture.families.gemma4_unified import MOST_TOKENS, patches
from loralens.core.architecture.families.idefics3 import LONGEST
from loralens.core.architecture.families.internvl import canvas
from loralens.core.architecture.families.lfm2_vl import FEWEST_TILES, TILE, large, resized
from loralens.core.architecture.families.lfm2_vl import MOST_TILES as MOST_TILES_LFM2
from loralens.core.architecture.families.lfm2_vl import MOST_TOKENS as MOST_TOKENS_LFM2
from loralens.core.architecture.families.llama4_vision import MOST_TILES, best_fit
from loralens.core.architecture.families.step3p7_vision import CROP, WHOLE, crops
from loralens.core.question.recipe import Recipe
from loralens.lab.trace.media_batch import MediaInputs, Shape, pictures, processor


def _mllama(config: Any, recipe: Recipe) -> MediaInputs:
    """Llama 3.2 Vision: every picture as the most tiles that it may have, and which text looks at which of them."""
    vision = config.vision_config
    side, most = vision.image_size, vision.max_num_tiles
    made = processor(
        "mllama.image_processing_pil_mllama.MllamaImageProcessorPil",
        size={"height": side, "width": side},
        max_image_tiles=most,
    )
    picture = numpy.zeros((*(recipe.image_size or (side, side)), 3), dtype=numpy.uint8)
    given = made([[picture] * recipe.images] * recipe.micro_batch_size, return_tensors="np")
    shapes = {name: tuple(given[name].shape) for name in ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")}
    looks = (recipe.micro_batch_size, recipe.sequence_length, recipe.images, most)
    return MediaInputs({"pixel_values": shapes.pop("pixel_values")}, {**shapes, "cross_attention_mask": looks})


def _llama4(config: Any, recipe: Recipe) -> MediaInputs:
    """Llama 4: tiles of all pictures in one row. Its processor needs torchvision: the rule here is our own."""
    side = config.vision_config.image_size
    down, across = best_fit(recipe.image_size or (side, side), side, MOST_TILES)
    tiles = recipe.images * recipe.micro_batch_size * (down * across + (down * across > 1))
    return MediaInputs({"pixel_values": (tiles, config.vision_config.num_channels, side, side)})


def _idefics(config: Any, recipe: Recipe) -> MediaInputs:
    """Idefics 3 and SmolVLM: tiles and the whole picture, each of the tower's size, and which pixels are there: all of them."""
    side, kind = config.vision_config.image_size, config.model_type
    name = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[kind]
    made = processor(
        f"{kind}.image_processing_pil_{kind}.{name}ImageProcessorPil",
        size={"longest_edge": LONGEST * side},
        max_image_size={"longest_edge": side},
    )
    given = made([pictures(recipe)[: recipe.images]] * recipe.micro_batch_size, return_tensors="np")
    pixels = tuple(given["pixel_values"].shape)
    return MediaInputs(
        {"pixel_values": pixels},
        {"pixel_attention_mask": tuple(given["pixel_attention_mask"].shape)},
        instead={"create_bidirectional_mask": lambda **_: None},
        listed=[pixels[1]] * pixels[0],
    )


def _idefics2(config: Any, recipe: Recipe) -> MediaInputs:
    """Idefics 2: whole pictures, and which pixels are there: all of them."""
    made = processor("idefics2.image_processing_pil_idefics2.Idefics2ImageProcessorPil")
    given = made([pictures(recipe)[: recipe.images]] * recipe.micro_batch_size, return_tensors="np")
    pixels = tuple(given["pixel_values"].shape)
    return MediaInputs(
        {"pixel_values": pixels},
        {"pixel_attention_mask": tuple(given["pixel_attention_mask"].shape)},
        instead={"create_bidirectional_mask": lambda **_: None},
        listed=[pixels[1]] * pixels[0],
    )


def _gemma4(config: Any, recipe: Recipe) -> MediaInputs:
    """Gemma 4: patches padded to the most, and their places."""
    vision, images = config.vision_config, recipe.images * recipe.micro_batch_size
    made = processor(
        "gemma4.image_processing_pil_gemma4.Gemma4ImageProcessorPil",
        patch_size=vision.patch_size,
        pooling_kernel_size=vision.pooling_kernel_size,
    )
    given = made(pictures(recipe), return_tensors="np")
    tokens = int(given["num_soft_tokens_per_image"][0])
    shape = (recipe.micro_batch_size, recipe.sequence_length)
    places = tuple(given["image_position_ids"].shape)
    return MediaInputs(
        {"pixel_values": tuple(given["pixel_values"].shape)},
        {"image_position_ids": places, "mm_token_type_ids": shape},
        chosen={
            (images, places[1] // vision.pooling_kernel_size**2): images * tokens,
            (*shape, config.text_config.hidden_size): 1,
        },
        listed=[tokens] * images,
    )


def _unified(config: Any, recipe: Recipe) -> MediaInputs:
    """Gemma 4 without a tower: patches padded to the most. Its processor needs torchvision: the rule here is our own."""
    vision, images = config.vision_config, recipe.images * recipe.micro_batch_size
    side = vision.patch_size * vision.pooling_kernel_size
    height, width = recipe.image_size or (side, side)
    tokens = patches(height, width, side, MOST_TOKENS)
    rows = (images, MOST_TOKENS)
    shape = (recipe.micro_batch_size, recipe.sequence_length)
    return MediaInputs(
        {"pixel_values": (*rows, 3 * side**2)},
        {"image_position_ids": (*rows, 2), "mm_token_type_ids": shape},
        chosen={rows: images * tokens, (*shape, config.text_config.hidden_size): 1},
        listed=[tokens] * images,
    )


def _glm4v(config: Any, recipe: Recipe) -> MediaInputs:
    """GLM-4.1V and its successors: patches of all pictures in one row, and a grid."""
    import torch

    vision = config.vision_config
    made = processor(
        "glm4v.image_processing_pil_glm4v.Glm4vImageProcessorPil",
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
    )
    given = made(pictures(recipe), return_tensors="np")
    rows = [int(each.prod()) for each in given["image_grid_thw"]]
    batch, length = recipe.micro_batch_size, recipe.sequence_length

    def integers(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="cuda")

    return MediaInputs(
        {"pixel_values": tuple(given["pixel_values"].shape)},
        {"image_grid_thw": (len(rows), 3), "mm_token_type_ids": (batch, length)},
        instead={
            "get_vision_position_ids": lambda *_, **__: integers(sum(rows), 2),
            "get_vision_attention_seqlens": lambda *_, **__: (integers(len(rows) + 1, dtype=torch.int32), None),
            "get_rope_index": lambda *_, **__: (integers(3, batch, length), integers(batch, 1)),
        },
        listed={torch.int32: rows, torch.int64: [count // vision.spatial_merge_size**2 for count in rows]},
    )


def _onevision(config: Any, recipe: Recipe) -> MediaInputs:
    """LLaVA-OneVision: tiles of a picture alone, of several pictures one each, and how many a sample has."""
    side = config.vision_config.image_size
    made = processor(
        "llava_onevision.image_processing_pil_llava_onevision.LlavaOnevisionImageProcessorPil",
        size={"height": side, "width": side},
        image_grid_pinpoints=config.image_grid_pinpoints,
    )
    given = made([pictures(recipe)[: recipe.images]] * recipe.micro_batch_size, return_tensors="np")
    sizes = numpy.array(numpy.asarray(given["image_sizes"]).tolist(), dtype=object)
    number = numpy.full(recipe.micro_batch_size, recipe.images)
    return MediaInputs(
        {"pixel_values": tuple(given["pixel_values"].shape)}, values={"image_sizes": sizes, "batch_num_images": number}
    )


class _Present(numpy.ndarray):
    """Which patches are there, read by value."""

    def sum(self, dim: int | None = None) -> Any:  # type: ignore[override]
        """How many, along an axis."""
        return numpy.asarray(self).sum(axis=dim)


def _lfm2(config: Any, recipe: Recipe) -> MediaInputs:
    """LFM2-VL: patches padded to the most, and each tile's shape. Its processor needs torchvision: the rule here is our own."""
    import torch
    from transformers.masking_utils import create_bidirectional_mask

    patch, merge = config.vision_config.patch_size, config.downsample_factor
    height, width = recipe.image_size or (TILE, TILE)
    high, wide = resized(height, width, patch, merge)
    shapes = [(high // patch, wide // patch)]
    if large(height, width, patch, merge):
        across, down = canvas((height, width), (TILE, TILE), MOST_TILES_LFM2, FEWEST_TILES)
        shapes = [(TILE // patch, TILE // patch)] * (across * down) + shapes
    shapes *= recipe.images * recipe.micro_batch_size
    places = 4 * MOST_TOKENS_LFM2
    present = numpy.array([[int(at < down * across) for at in range(places)] for down, across in shapes]).view(_Present)

    def mask(config: Any, inputs_embeds: torch.Tensor, attention_mask: Any) -> torch.Tensor | None:
        if numpy.asarray(present).all():
            return None
        there = torch.empty(present.shape, dtype=torch.int64, device="cuda")
        found: torch.Tensor = create_bidirectional_mask(
            config=config, inputs_embeds=inputs_embeds, attention_mask=there
        )
        return found

    return MediaInputs(
        {"pixel_values": (len(shapes), places, config.vision_config.num_channels * patch**2)},
        values={"pixel_attention_mask": present, "spatial_shapes": numpy.array(shapes)},
        numbers=[present.shape],
        instead={"create_bidirectional_mask": mask},
    )


def _gemma3n(config: Any, recipe: Recipe) -> MediaInputs:
    """Gemma 3n: pictures of one size."""
    size = {"height": 768, "width": 768}
    given = processor("siglip.image_processing_pil_siglip.SiglipImageProcessorPil", size=size)(
        pictures(recipe), return_tensors="np"
    )
    media = MediaInputs(floats={"pixel_values": tuple(given["pixel_values"].shape)})
    media.integers["token_type_ids"] = (recipe.micro_batch_size, recipe.sequence_length)
    return media


def _video_llava(config: Any, recipe: Recipe) -> MediaInputs:
    """Video-LLaVA: pictures and frames as large as the tower takes."""
    one, batch = (3, config.vision_config.image_size, config.vision_config.image_size), recipe.micro_batch_size
    given = {"pixel_values": (recipe.images * batch, *one), "pixel_values_videos": (batch, recipe.video_frames, *one)}
    counts = {"pixel_values": recipe.images, "pixel_values_videos": recipe.video_frames}
    return MediaInputs({name: shape for name, shape in given.items() if counts[name]})


def _deepseek_vl(config: Any, recipe: Recipe) -> MediaInputs:
    """DeepSeek-VL: pictures as large as the tower takes, padded to a square."""
    side = config.vision_config.image_size
    made = processor(
        "deepseek_vl.image_processing_pil_deepseek_vl.DeepseekVLImageProcessorPil",
        size={"height": side, "width": side},
    )
    given = made(pictures(recipe), return_tensors="np")
    return MediaInputs({"pixel_values": tuple(given["pixel_values"].shape)})


def _deepseek_ocr2(config: Any, recipe: Recipe) -> MediaInputs:
    """DeepSeek-OCR 2: whole pictures, and tiles of larger ones with how many each picture has."""
    made = processor("deepseek_ocr2.image_processing_pil_deepseek_ocr2.DeepseekOcr2ImageProcessorPil")
    given = made(pictures(recipe), return_tensors="np")
    names = ("pixel_values", "pixel_values_local")
    counts = [int(number) for number in given["num_local_patches"]]
    return MediaInputs(
        {name: tuple(given[name].shape) for name in names if name in given}, values={"num_local_patches": counts}
    )


def _ovis2(config: Any, recipe: Recipe) -> MediaInputs:
    """Ovis 2: pictures cut into tiles with a thumbnail, as its published processor has it."""
    side, batch = config.vision_config.image_size, recipe.micro_batch_size
    made = processor(
        "ovis2.image_processing_pil_ovis2.Ovis2ImageProcessorPil",
        size={"height": side, "width": side},
        crop_to_patches=True,
    )
    given = made(pictures(recipe), return_tensors="np")
    return MediaInputs(
        {"pixel_values": tuple(given["pixel_values"].shape)},
        chosen={(): 1, (batch, recipe.sequence_length): recipe.images * batch},
    )


def _step(config: Any, recipe: Recipe) -> MediaInputs:
    """Step-3.7: pictures of one size, and crops of them. Its processor needs torchvision: the rule here is our own."""
    import torch

    patch, channels = config.vision_config.patch_size, config.vision_config.num_channels
    pictured = recipe.images * recipe.micro_batch_size
    beside = crops(*(recipe.image_size or (WHOLE, WHOLE)))
    sides = [WHOLE, CROP] if beside else [WHOLE]
    rows = cycle([(side // patch) ** 2 for side in sides])
    shapes: dict[str, Shape] = {"pixel_values": (pictured, channels, WHOLE, WHOLE)}
    if beside:
        shapes["pixel_values_local"] = (pictured * beside, channels, CROP, CROP)
    return MediaInputs(
        shapes,
        values={"num_local_patches": [beside] * pictured},
        instead={
            "get_vision_position_ids": lambda *_, **__: torch.empty((next(rows), 2), dtype=torch.int64, device="cuda")
        },
    )


MAKERS: Final[dict[str, Callable[[Any, Recipe], MediaInputs]]] = {
    "deepseek_ocr2": _deepseek_ocr2,
    "deepseek_vl": _deepseek_vl,
    "ovis2": _ovis2,
    "gemma3n": _gemma3n,
    "gemma4": _gemma4,
    "gemma4_unified": _unified,
    "glm46v": _glm4v,
    "glm4v": _glm4v,
    "glm4v_moe": _glm4v,
    "glm_ocr": _glm4v,
    "idefics2": _idefics2,
    "idefics3": _idefics,
    "lfm2_vl": _lfm2,
    "llama4": _llama4,
    "llava_onevision": _onevision,
    "mllama": _mllama,
    "smolvlm": _idefics,
    "step3p7": _step,
    "video_llava": _video_llava,
}
