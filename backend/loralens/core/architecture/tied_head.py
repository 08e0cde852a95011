"""Whether a multimodal model's head is tied to its embedding: which of its two configs says so, and what silence means.

Source: transformers 5.23 models/*/configuration_*.py (what the outer config is by default, and where it takes the text's word too)
and modeling_utils.py (`get_expanded_tied_weights_keys`: the outer config decides; `tie_weights`: a file that holds head and
embedding keeps both); 4.57 modeling_utils.py (`tie_embeddings_and_encoder_decoder`: the text's config decides). Each
combination was built with both versions.
"""

from __future__ import annotations

from typing import Final

from loralens.core.architecture.config import Config
from loralens.core.architecture.media_types import MEDIA
from loralens.core.question.versions import read_version

WORD: Final = "tie_word_embeddings"
OUTER_DECIDES_SINCE: Final = (5,)
_TIED: Final = frozenset(
    {
        "aya_vision",
        "deepseek_vl",
        "diffusion_gemma",
        "ernie4_5_vl_moe",
        "gemma3",
        "gemma3n",
        "gemma4",
        "gemma4_unified",
        "got_ocr2",
        "interns1",
        "internvl",
        "kimi_k25",
        "lfm2_vl",
        "mistral3",
        "ovis2",
        "paddleocr_vl",
        "paligemma",
    }
)
"""Tied where the outer config does not say; the others are not."""
_EITHER: Final = frozenset(
    {
        "llava",
        "llava_next_video",
        "llava_onevision",
        "minimax_m3_vl",
        "qwen2_vl",
        "qwen2_5_vl",
        "glm4v",
        "glm4v_moe",
        "glm_ocr",
        "paddleocr_vl",
    }
)
"""Tied where the text's config says so too, or is so by default; with the others the outer config decides alone."""
_INNER_ALONE: Final = ("llama4", "kimi_vl")  # whose language model is a whole causal one, tied as its own config says
_NEVER: Final = ("qwen2_audio", "voxtral")  # whose head has weights of its own since transformers 5


def tied(outer: Config) -> bool | None:
    """Is the head tied? None: as the text's config says, or its family's default."""
    wrapper = outer.text("model_type", "")
    if left_to_text(outer):
        return None
    if wrapper in _NEVER:
        return False
    if outer.flag(WORD, wrapper in _TIED):
        return True
    return None if wrapper in _EITHER else False


def left_to_text(outer: Config) -> bool:
    """Does the text's config decide alone?

    So it was before transformers 5. A file that was written then holds a head of its own where its text is not tied, and
    loading keeps it, whatever the outer config now is by default.
    """
    wrapper = outer.text("model_type", "")
    if wrapper in _INNER_ALONE or outer.transformers < OUTER_DECIDES_SINCE:
        return True
    if outer.has(WORD):
        return False
    return wrapper not in MEDIA or (wrapper in _TIED and _written_before(outer))


def is_uncertain(outer: Config) -> bool:
    """Is it decided by the version that wrote the file, which nobody names, or by one before transformers 5?"""
    unsaid = outer.text("model_type", "") in MEDIA and not outer.has(WORD) and not left_to_text(outer)
    return unsaid and not _written(outer) >= OUTER_DECIDES_SINCE


def _written_before(outer: Config) -> bool:
    return () < _written(outer) < OUTER_DECIDES_SINCE


def _written(outer: Config) -> tuple[int, ...]:
    said = outer.entries.get("transformers_version")
    return read_version(said) if isinstance(said, str) else ()
