"""Pictures for a traced step: families that lay the patches of all pictures in one row, beside a grid that is read by value.

See `media`, which puts these behind its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy
import torch

from loralens.core.architecture.families.dots_ocr import DotsMedia
from loralens.core.architecture.families.ernie4_5_vl import ENDS
from loralens.core.architecture.families.kimi_vision import CUBIC_TAPS, padded
from loralens.core.architecture.families.kimi_vl import fitted as fitted_moon
from loralens.core.architecture.families.minicpmv4_6 import WINDOW
from loralens.core.architecture.families.minimax_m3_vision import MiniMaxM3Media
from loralens.core.architecture.families.muse_glimmer_vision import MOST_TOKENS, fitted
from loralens.core.architecture.families.qwen_vision import resized
from loralens.core.question.recipe import Recipe
from loralens.lab.trace.media_batch import MediaInputs, Shape, Sizes, pictures, processor


def _integers(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.int64, device="cuda")


def _windows(grid_thw: numpy.ndarray, kwargs: Any = None, **words: Any) -> tuple[Any, Any]:
    from torch.utils._python_dispatch import _disable_current_modes
    from transformers.vision_utils import get_vision_window_index

    with _disable_current_modes():
        index, lengths = get_vision_window_index(torch.tensor(grid_thw), **words)
        ends = lengths.numpy()
    return torch.empty(index.shape, dtype=torch.int64), ends


def _ends(grid_thw: numpy.ndarray, *_: Any, **__: Any) -> numpy.ndarray:
    return numpy.concatenate([[0], numpy.repeat(grid_thw[:, 1] * grid_thw[:, 2], grid_thw[:, 0]).cumsum()])


def _deepened(hidden: torch.Tensor, mask: Any, extra: torch.Tensor) -> torch.Tensor:
    """Qwen3-VL's own lines, with places in the mask's stead, which would be counted by value."""
    extra = extra.to(hidden.device, hidden.dtype)
    places = [torch.zeros(extra.shape[0], dtype=torch.int64) for _ in range(2)]
    hidden = hidden.clone()
    local_this = hidden[places[0], places[1], :] + extra
    hidden[places[0], places[1], :] = local_this
    return hidden


def in_a_row(recipe: Recipe, pixels: Shape, grid: numpy.ndarray, **instead: Any) -> MediaInputs:
    """Pixels of all patches, the grid, and the functions that would read it off a fake tensor."""
    batch, length, patches = recipe.micro_batch_size, recipe.sequence_length, int(grid.prod(-1).sum())
    taps = (patches, 4)
    return MediaInputs(
        floats={"pixel_values": pixels},
        integers={"mm_token_type_ids": (batch, length)},
        values={"image_grid_thw": grid.view(Sizes)},
        instead={
            "get_vision_position_ids": lambda *_, **__: _integers(patches, 2),
            "get_vision_attention_seqlens": lambda *given, **__: (_ends(*given), None),
            "get_vision_cu_seqlens": _ends,
            "get_vision_window_index": _windows,
            "get_vision_interpolation_indices_and_weights": lambda *_, **__: (
                _integers(*taps),
                torch.empty(taps, device="cuda"),
            ),
            "_deepstack_process": _deepened,
            "get_rope_index": lambda *_, **__: (_integers(3, batch, length), _integers(batch, 1)),
            **instead,
        },
    )


def in_a_row_of(config: Any, recipe: Recipe) -> MediaInputs:
    """Qwen2-VL's and its successors'."""
    vision = config.vision_config
    limits = {"shortest_edge": 56 * 56, "longest_edge": 14 * 14 * 4 * 16384}
    if vision.patch_size == 16:
        limits = {"shortest_edge": 65536, "longest_edge": 16777216}
    made = processor(
        "qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil",
        size=limits,
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
    )
    return _given(recipe, made)


def _given(recipe: Recipe, made: Any) -> MediaInputs:
    given = made(pictures(recipe), return_tensors="np")
    return in_a_row(recipe, tuple(given["pixel_values"].shape), numpy.asarray(given["image_grid_thw"]))


def _paddle(config: Any, recipe: Recipe) -> MediaInputs:
    """PaddleOCR-VL."""
    vision = config.vision_config
    made = processor(
        "paddleocr_vl.image_processing_pil_paddleocr_vl.PaddleOCRVLImageProcessorPil",
        patch_size=vision.patch_size,
        merge_size=vision.spatial_merge_size,
    )
    return _given(recipe, made)


def _ernie(config: Any, recipe: Recipe) -> MediaInputs:
    """ERNIE 4.5 VL: and which tokens are a picture's, its two ends among them, for other experts."""
    vision, text = config.vision_config, config.text_config
    made = processor(
        "ernie4_5_vl_moe.image_processing_pil_ernie4_5_vl_moe.Ernie4_5_VLMoeImageProcessorPil",
        patch_size=vision.patch_size,
        merge_size=vision.spatial_merge_size,
    )
    media = _given(recipe, made)
    batch, length, pictured = recipe.micro_batch_size, recipe.sequence_length, recipe.images * recipe.micro_batch_size
    grid = media.values["image_grid_thw"]
    tokens = int(numpy.asarray(grid).prod(-1).sum()) // vision.spatial_merge_size**2
    seen = tokens + ENDS * pictured
    left = batch * length - seen
    media.integers["moe_mm_token_type_ids"] = (batch, length)
    media.chosen = {
        (): 1,
        (batch, length, text.hidden_size): (left * text.hidden_size, seen * text.hidden_size),
        (batch * length, text.moe_num_experts): (left * text.moe_num_experts, seen * text.moe_num_experts),
    }

    def sliced(hidden: torch.Tensor, *_: Any) -> torch.Tensor:
        first, second = (_integers(hidden.shape[0]) for _ in range(2))
        return torch.concat([torch.index_select(hidden, 0, first), torch.index_select(hidden, 0, second)], dim=-1)

    media.instead["_temporal_slicing"] = sliced
    return media


def _kimi_vl(config: Any, recipe: Recipe) -> MediaInputs:
    """Kimi-VL. Its processor is on the Hub: the rule here is our own."""
    vision = config.vision_config
    patch, (down, _) = vision.patch_size, vision.merge_kernel_size
    height, width = recipe.image_size or (patch, patch)
    high, wide = fitted_moon(height, width, patch, down)
    number = recipe.images * recipe.micro_batch_size
    grids = [(high // patch, wide // patch)] * number
    rows = sum(down * across for down, across in grids)
    batch, length = recipe.micro_batch_size, recipe.sequence_length
    return MediaInputs(
        floats={"pixel_values": (rows, 3, patch, patch)},
        values={"image_grid_hws": grids},
        chosen={(batch * length,): rows // down**2},
    )


def _dots(config: Any, recipe: Recipe) -> MediaInputs:
    """dots.ocr: Qwen2-VL's processor, with one frame in a patch."""
    vision = config.vision_config
    made = processor(
        "qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil",
        size={"shortest_edge": DotsMedia.limits[0], "longest_edge": DotsMedia.limits[1]},
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
    )
    given = made(pictures(recipe), return_tensors="np")
    grids = [(int(high), int(wide)) for _, high, wide in given["image_grid_thw"]]
    return MediaInputs(floats={"pixel_values": tuple(given["pixel_values"].shape)}, values={"image_grid_thw": grids})


def _minimax(config: Any, recipe: Recipe) -> MediaInputs:
    """MiniMax-M3. Its processor needs torchvision: the rule here is our own."""
    vision = config.vision_config
    patch, merge = vision.patch_size, vision.spatial_merge_size
    height, width = recipe.image_size or (patch, patch)
    high, wide = resized(height, width, patch * merge, *MiniMaxM3Media.limits)
    grid = numpy.array([[1, high // patch, wide // patch]] * (recipe.images * recipe.micro_batch_size))
    rows = int(grid.prod(-1).sum())
    media = in_a_row(
        recipe,
        (rows, vision.num_channels * vision.temporal_patch_size * patch**2),
        grid,
        get_vision_position_ids=lambda *_, **__: _integers(rows, 3),
    )
    hidden = config.text_config.hidden_size
    media.chosen = {(recipe.micro_batch_size, recipe.sequence_length, hidden): rows // merge**2 * hidden}
    return media


def _muse(config: Any, recipe: Recipe) -> MediaInputs:
    """Muse Glimmer. Its processor needs torchvision: the rule here is our own."""
    vision = config.vision_config
    side = vision.patch_size * vision.merge_size
    height, width = recipe.image_size or (side, side)
    down, across = fitted(height, width, side, MOST_TOKENS)
    one = [1, down * vision.merge_size, across * vision.merge_size]
    grid = numpy.array([one] * (recipe.images * recipe.micro_batch_size))
    rows = int(grid.prod(-1).sum())
    values = vision.patch_temporal * 3 * vision.patch_size**2
    media = in_a_row(recipe, (rows, values), grid, get_vision_pixel_shuffle_index=lambda *_, **__: _integers(rows))
    media.integers.clear()
    return media


def _kimi(config: Any, recipe: Recipe) -> MediaInputs:
    """Kimi K2.5. Its processor needs torchvision: the rule here is our own."""
    vision = config.vision_config
    side, merge = vision.patch_size, vision.merge_kernel_size[0]
    height, width = recipe.image_size or (side, side)
    high, wide = padded(height, width, side, merge)
    grid = numpy.array([[1, high // side, wide // side]] * (recipe.images * recipe.micro_batch_size))
    rows = int(grid.prod(-1).sum())
    taps = (rows, CUBIC_TAPS)
    media = in_a_row(
        recipe,
        (rows, 3, side, side),
        grid,
        get_vision_frame_index=lambda *_, **__: _integers(rows),
        get_vision_temporal_merge_index=lambda *_, **__: _integers(rows // merge**2, 1, merge**2),
        get_vision_interpolation_indices_and_weights=lambda *_, **__: (
            _integers(*taps),
            torch.empty(taps, device="cuda"),
        ),
    )
    media.integers.clear()
    return media


class _Ends(numpy.ndarray):
    """Where pieces of a row end, read by value, with torch's words."""

    def to(self, *_: object, **__: object) -> _Ends:
        """As they are."""
        return self

    def numel(self) -> int:
        """How many."""
        return int(self.size)


class _SummingTorch:
    """torch, but numbers that are read by value are summed as they are."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def cumsum(self, value: Any, **words: Any) -> Any:
        """Sums so far."""
        return numpy.cumsum(value).view(_Ends) if isinstance(value, numpy.ndarray) else torch.cumsum(value, **words)


class _PaddingFunctional:
    """torch's functions, but such numbers get their zero in front as they are."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.nn.functional, name)

    def pad(self, value: Any, pad: Any, *rest: Any, **words: Any) -> Any:
        """Zeros around."""
        if isinstance(value, numpy.ndarray):
            return numpy.concatenate([[0], value]).view(_Ends)
        return torch.nn.functional.pad(value, pad, *rest, **words)


def _minicpm(config: Any, recipe: Recipe) -> MediaInputs:
    """MiniCPM-V 4.6: patches of all pieces in one row, and each piece's shape."""
    patch, merged = config.vision_config.patch_size, config.downsample_mode != "4x"
    made = processor(
        "minicpmv4_6.image_processing_pil_minicpmv4_6.MiniCPMV4_6ImageProcessorPil",
        patch_size=patch,
        downsample_mode=config.downsample_mode,
    )
    given = made(pictures(recipe), return_tensors="np")
    sizes = numpy.array(numpy.asarray(given["target_sizes"]).tolist(), dtype=object)
    rows, shape = int((sizes[:, 0] * sizes[:, 1]).sum()), (recipe.micro_batch_size, recipe.sequence_length)
    windows = numpy.arange(0, rows + 1, WINDOW).view(_Ends)
    hidden, tokens = config.text_config.hidden_size, rows // (WINDOW**2 if merged else WINDOW)
    return MediaInputs(
        {"pixel_values": tuple(given["pixel_values"].shape)},
        values={"target_sizes": sizes},
        instead={
            "torch": _SummingTorch(),
            "F": _PaddingFunctional(),
            "get_vision_nearest_position_ids": lambda *_, **__: _integers(rows),
            "get_window_index": lambda *_, **__: (_integers(rows), windows, WINDOW),
        },
        chosen={(*shape, hidden): tokens * hidden},
    )


MAKERS: Final[dict[str, Callable[[Any, Recipe], MediaInputs]]] = {
    "dots_ocr": _dots,
    "kimi_vl": _kimi_vl,
    "ernie4_5_vl_moe": _ernie,
    "kimi_k25": _kimi,
    "minimax_m3_vl": _minimax,
    "minicpmv4_6": _minicpm,
    "muse_glimmer": _muse,
    "paddleocr_vl": _paddle,
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_5", "qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe"), in_a_row_of),
}
