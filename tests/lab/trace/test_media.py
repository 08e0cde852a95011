"""How many patches and tokens a picture gives: our rules against transformers' own processors, on empty pictures."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from loralens.core.architecture.media import Media
from loralens.core.architecture.registry import build
from loralens.core.question.recipe import Recipe
from loralens.lab.trace.build import read_config
from loralens.lab.trace.grid_media import media_config
from loralens.lab.trace.media import media_of

SIZES = ([31, 400], [1000, 301])
NAMES = ("qwen2-vl-2b", "qwen2.5-vl-3b", "qwen3-vl-4b", "gemma-3-4b", "llava-1.5-7b", "internvl3-2b", "mistral-small-3.1-24b",
         "pixtral-12b", "llava-v1.6-mistral-7b", "paligemma-3b-224", "llama-3.2-11b-vision", "smolvlm2-2.2b",
         "idefics3-8b", "gemma-4-31b", "glm-4.1v-9b", "glm-ocr", "aya-vision-8b", "llava-onevision-7b",
         "paddleocr-vl", "minicpm-v-4.6", "idefics2-8b", "got-ocr-2", "deepseek-vl-1.3b", "ernie-4.5-vl-narrow")  # fmt: skip
PER_TILE = {
    "llava-v1.6-mistral-7b": 577,
    "smolvlm2-2.2b": 729,
    "idefics3-8b": 676,
    "llava-onevision-7b": 729,
}  # rows in the tower


@pytest.mark.parametrize("name", NAMES)
def test_values_and_rows_are_the_processors(name: str) -> None:
    config = media_config(name, 2, 2)
    media = build(config).media
    assert isinstance(media, Media)
    for size in SIZES:
        recipe = Recipe.from_mapping({"images": 2, "image_size": size})
        own, given = media.pictures(recipe), media_of(read_config(config), recipe)
        assert own is not None and given is not None
        pixels = given.floats["pixel_values"]
        values = 1
        for side in pixels:
            values *= side
        assert own.values == values
        if "image_grid_thw" in given.values:
            assert own.rows == given.values["image_grid_thw"].prod(-1).sum() == pixels[0]
            assert own.rows == own.tokens * 4
        if name.startswith("glm"):
            assert own.rows == pixels[0] == own.tokens * 4
        if name.startswith("gemma-4"):
            assert own.rows == pixels[0] * 2520
            assert own.tokens * 9 == sum(given.chosen[pixels[0], 280] for _ in range(9))
        if name in PER_TILE:
            assert own.rows == pixels[0] * pixels[1] * PER_TILE[name]
        elif "image_sizes" in given.values:
            patch = config["vision_config"]["patch_size"]
            assert own.rows == (given.values["image_sizes"] // patch).prod(dim=-1).sum()
        if name == "minicpm-v-4.6":
            assert own.rows * 14 == pixels[-1] and own.rows == own.tokens * 16
        if name == "idefics2-8b":
            assert own.rows == 2 * (pixels[-2] // 14) * (pixels[-1] // 14) and own.tokens == 2 * 64
        if name == "got-ocr-2":
            assert (own.rows, own.tokens) == (pixels[0] * 4096, pixels[0] * 256)
        if name == "internvl3-2b":
            assert (own.rows, own.tokens) == (pixels[0] * 1025, pixels[0] * 256)


def test_deepseek_ocr_2_s_tiles_are_its_processors() -> None:
    config = media_config("deepseek-ocr-2-narrow", 2, 2)
    media = build(config).media
    assert isinstance(media, Media)
    for size in (*SIZES, [768, 768], [769, 700], [2000, 1900], [300, 3000]):
        recipe = Recipe.from_mapping({"images": 2, "image_size": size})
        own, given = media.pictures(recipe), media_of(read_config(config), recipe)
        assert own is not None and given is not None
        counts = given.values["num_local_patches"]
        assert isinstance(counts, list) and counts[0] == counts[1]
        assert own.tokens == 2 * (256 + 144 * counts[0] + 1)
        assert own.rows == 2 * (64**2 + counts[0] * 48**2)
        assert own.values == 2 * 3 * (1024**2 + counts[0] * 768**2)
        local = given.floats.get("pixel_values_local", (0, 3, 768, 768))
        assert (given.floats["pixel_values"], local) == ((2, 3, 1024, 1024), (sum(counts), 3, 768, 768))


def test_minicpm_v_s_slices_without_a_merge_in_the_tower_are_its_processors() -> None:
    config = {**media_config("minicpm-v-4.6", 2, 2), "downsample_mode": "4x"}
    media = build(config).media
    assert isinstance(media, Media)
    for size in (*SIZES, [20, 20], [448, 449], [2000, 1900], [300, 3000]):
        recipe = Recipe.from_mapping({"images": 1, "image_size": size})
        own, given = media.pictures(recipe), media_of(read_config(config), recipe)
        assert own is not None and given is not None
        assert own.rows * 14 == given.floats["pixel_values"][-1] and own.rows == own.tokens * 4


def test_tiles_are_those_of_llama_4_s_processor() -> None:
    import ast
    from collections import defaultdict
    from functools import lru_cache
    from pathlib import Path
    from types import SimpleNamespace

    import torch
    import transformers

    from loralens.core.architecture.families.llama4_vision import MOST_TILES, best_fit

    path = Path(transformers.__file__).parent / "models" / "llama4" / "image_processing_llama4.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    wanted = [node for node in functions if node.name in ("get_factors", "find_supported_resolutions", "get_best_fit")]
    names: dict[str, object] = {"torch": torch, "defaultdict": defaultdict, "lru_cache": lru_cache, "SizeDict": object}
    exec(
        compile(ast.Module(wanted, []), "llama4", "exec"), names
    )  # its module needs torchvision, its arithmetic does not
    square = SimpleNamespace(height=336, width=336)
    possible = torch.tensor(names["find_supported_resolutions"].__wrapped__(MOST_TILES, square))  # type: ignore[attr-defined]
    for size in ((600, 900), (31, 400), (1000, 301), (336, 336), (4000, 4000), (200, 3000)):
        high, wide = names["get_best_fit"](size, possible).tolist()  # type: ignore[operator]
        down, across = best_fit(size, 336, MOST_TILES)
        assert down * across == high * wide // 336**2


def test_crops_are_those_of_phi_4_multimodal_s_processor() -> None:
    import ast
    import math
    from pathlib import Path
    from types import SimpleNamespace

    import torch
    import transformers

    from loralens.core.architecture.families.phi4_multimodal import PATCH, SIDE, cut

    path = Path(transformers.__file__).parent / "models" / "phi4_multimodal" / "image_processing_phi4_multimodal.py"
    wanted = ("find_closest_aspect_ratio", "dynamic_preprocess")
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name in wanted
    ]

    def as_large(image: torch.Tensor, size: list[int]) -> torch.Tensor:
        return torch.empty(3, *size, device="meta")

    def grown(image: torch.Tensor, padding: list[int], **_: object) -> torch.Tensor:
        return torch.empty(3, image.shape[1] + padding[3], image.shape[2] + padding[2], device="meta")

    names: dict[str, object] = {"math": math, "torch": torch, "tvF": SimpleNamespace(resize=as_large, pad=grown)}
    exec(
        compile(ast.Module(functions, []), "phi4", "exec"), names
    )  # its module needs torchvision, its arithmetic does not
    own = SimpleNamespace(find_closest_aspect_ratio=lambda *given: names["find_closest_aspect_ratio"](None, *given))  # type: ignore[operator]
    for high, wide in (
        (500, 700),
        (31, 400),
        (1000, 301),
        (448, 448),
        (449, 896),
        (4000, 4000),
        (3000, 2100),
        (200, 3000),
    ):
        image, mask = names["dynamic_preprocess"](own, torch.empty(3, high, wide), SIDE, PATCH, SIDE // PATCH)  # type: ignore[operator]
        found = cut(high, wide)
        assert (found.down * SIDE, found.across * SIDE) == tuple(image.shape[1:])
        assert (found.rows, found.columns) == (int(mask[:, 0].sum()), int(mask[0].sum()))
        assert found.useful == (int(mask[0::2, 0].sum()), int(mask[0, 0::2].sum()))


def test_tiles_are_those_of_lfm2_vl_s_processor() -> None:
    import ast
    import math
    from pathlib import Path
    from types import SimpleNamespace

    import transformers

    from loralens.core.architecture.families.internvl import canvas
    from loralens.core.architecture.families.lfm2_vl import FEWEST_TILES, MOST_TILES, TILE, large, resized

    folder = Path(transformers.__file__).parent / "models" / "lfm2_vl"
    tree = ast.parse((folder / "image_processing_lfm2_vl.py").read_text(encoding="utf-8"))
    wanted = ("round_by_factor", "find_closest_aspect_ratio", "smart_resize", "_is_image_too_large", "_target_ratios")
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in wanted]
    for node in functions:
        node.decorator_list = []
    names: dict[str, object] = {"math": math}
    exec(compile(ast.Module(list(functions), []), "lfm2_vl", "exec"), names)  # its module needs torchvision
    itself = SimpleNamespace()
    shapes = names["_target_ratios"](itself, FEWEST_TILES, MOST_TILES)  # type: ignore[operator]
    for height, width in ((360, 640), (40, 400), (1000, 301), (4000, 4000), (600, 1500), (20, 20), (1024, 1024)):
        wide, high = names["smart_resize"](itself, height, width, 2, 64, 256, 16)  # type: ignore[operator]
        assert resized(height, width, 16, 2) == (high, wide)
        assert large(height, width, 16, 2) == names["_is_image_too_large"](itself, height, width, 256, 16, 2, 2.0)  # type: ignore[operator]
        nearest = names["find_closest_aspect_ratio"](width / height, shapes, width, height, TILE)  # type: ignore[operator]
        assert canvas((height, width), (TILE, TILE), MOST_TILES, FEWEST_TILES) == nearest


def test_squares_are_those_of_muse_glimmer_s_processor() -> None:
    import ast
    import itertools
    import math
    from pathlib import Path

    import transformers

    from loralens.core.architecture.families.muse_glimmer_vision import MOST_TOKENS, fitted

    folder = Path(transformers.__file__).parent / "models" / "muse_glimmer"
    tree = ast.parse((folder / "image_processing_muse_glimmer.py").read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "smart_resize")
    names: dict[str, object] = {"math": math, "itertools": itertools}
    exec(compile(ast.Module([found], []), "smart_resize", "exec"), names)  # its module needs torchvision
    for size in ((360, 640), (31, 400), (1000, 301), (4000, 4000), (10, 3000), (20, 20)):
        high, wide = names["smart_resize"](*size, 28, MOST_TOKENS)  # type: ignore[operator]
        assert fitted(*size, 28, MOST_TOKENS) == (high // 28, wide // 28)


def test_sides_are_those_of_kimi_s_processor() -> None:
    import ast
    import math
    from pathlib import Path

    import transformers

    from loralens.core.architecture.families.kimi_vision import LONGEST_SIDE, MOST_PATCHES, padded

    folder = Path(transformers.__file__).parent / "models" / "kimi_k25"
    tree = ast.parse((folder / "image_processing_kimi_k25.py").read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "navit_resize")
    names: dict[str, object] = {"math": math}
    exec(compile(ast.Module([found], []), "navit_resize", "exec"), names)  # its module needs torchvision
    for size in ((360, 640), (31, 400), (1000, 301), (4000, 4000), (10, 8000), (20, 20)):
        _, sides = names["navit_resize"](*size, 14, 2, MOST_PATCHES, LONGEST_SIDE)  # type: ignore[operator]
        assert padded(*size, 14, 2) == sides


@pytest.mark.parametrize("frames", [4, 9, 64])
def test_a_video_s_frames_are_resized_as_qwen_s_processors_do(frames: int) -> None:
    import ast
    import math
    from pathlib import Path

    import transformers

    from loralens.core.architecture.families.qwen_vision import resized

    folder = Path(transformers.__file__).parent / "models" / "qwen3_vl"
    tree = ast.parse((folder / "video_processing_qwen3_vl.py").read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "smart_resize")
    names: dict[str, object] = {"math": math}  # its module needs torchvision, its arithmetic does not
    exec(compile(ast.Module([found], []), "smart_resize", "exec"), names)
    for height, width in ((360, 640), (1080, 1920), (40, 48)):
        real = names["smart_resize"](frames, height, width, factor=32, min_pixels=4096, max_pixels=25_165_824)  # type: ignore[operator]
        assert resized(height, width, 32, 4096, 25_165_824, frames) == real
