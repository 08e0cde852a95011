"""Sound for a traced step: the mel frames that the family's own feature extractor makes.

See `media`, which puts these behind its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

from loralens.core.question.recipe import Recipe
from loralens.lab.trace import media_grids
from loralens.lab.trace.media_batch import MediaInputs

RATE: Final = 16_000


def _voxtral(config: Any, recipe: Recipe) -> MediaInputs:
    """Voxtral: clips of half a minute, the last one filled up; its check of the placeholders, which reads values, is left out."""
    import numpy
    from transformers.models.whisper.feature_extraction_whisper import WhisperFeatureExtractor

    audio = config.audio_config
    extractor = WhisperFeatureExtractor(feature_size=audio.num_mel_bins)
    sound = numpy.zeros(round(recipe.audio_seconds * RATE), dtype=numpy.float32)
    frames = extractor(
        sound, sampling_rate=RATE, truncation=False, pad_to_multiple_of=extractor.n_samples, return_tensors="np"
    )["input_features"].shape[-1]
    longest = 2 * audio.max_source_positions

    def places(input_ids: torch.Tensor, inputs_embeds: torch.Tensor, audio_features: torch.Tensor) -> torch.Tensor:
        return (input_ids == config.audio_token_id).unsqueeze(-1).expand_as(inputs_embeds)

    clips = recipe.micro_batch_size * -(-frames // longest)
    return MediaInputs(
        floats={"input_features": (clips, audio.num_mel_bins, longest)}, instead={"get_placeholder_mask": places}
    )


def _audio(config: Any, recipe: Recipe) -> MediaInputs:
    """Qwen2-Audio: half a minute, and which frames and tokens of it are there."""
    import numpy
    from transformers.masking_utils import create_bidirectional_mask
    from transformers.models.whisper.feature_extraction_whisper import WhisperFeatureExtractor

    batch = recipe.micro_batch_size
    given = WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins)(
        numpy.zeros(round(recipe.audio_seconds * RATE), dtype=numpy.float32), sampling_rate=RATE, padding="max_length",
        return_attention_mask=True, return_tensors="np",
    )  # fmt: skip
    frames, longest = int(given["attention_mask"].sum()), given["input_features"].shape[-1]
    tokens = ((frames - 1) // 2 - 1) // 2 + 1
    return MediaInputs(
        {"input_features": (batch, *given["input_features"].shape[1:])},
        {"feature_attention_mask": (batch, longest)},
        instead={"create_bidirectional_mask": (lambda **_: None) if frames == longest else create_bidirectional_mask},
        chosen={(batch, longest // 4): batch * tokens},
    )


def _omni(config: Any, recipe: Recipe) -> MediaInputs:
    """Qwen's thinkers: pictures in a row, sound padded to five minutes, of which so many frames are there."""
    import numpy
    from transformers.models.whisper.feature_extraction_whisper import WhisperFeatureExtractor

    media = media_grids.in_a_row_of(config, recipe) if recipe.images else MediaInputs()
    media.integers.pop("mm_token_type_ids", None)
    if not recipe.audio_seconds:
        return media
    audio, batch = config.audio_config, recipe.micro_batch_size
    extractor = WhisperFeatureExtractor(feature_size=audio.num_mel_bins, chunk_length=300)
    given = extractor(
        numpy.zeros(round(recipe.audio_seconds * RATE), dtype=numpy.float32), sampling_rate=RATE, padding="max_length",
        return_attention_mask=True, return_tensors="np",
    )  # fmt: skip
    shape, frames = given["input_features"].shape, int(given["attention_mask"].sum())
    piece = 2 * audio.n_window
    pieces = [min(piece, frames - start) for start in range(0, frames, piece)]

    def lengths(x: torch.Tensor) -> torch.Tensor:
        """Places behind the convolutions, by the model's own rule."""
        if config.model_type == "qwen2_5_omni_thinker":
            return (x - 1) // 2 + 1
        from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import _get_feat_extract_output_lengths

        return _get_feat_extract_output_lengths(x, audio.n_window)

    places = lengths(torch.tensor(pieces))
    windows = places.tolist()
    if config.model_type == "qwen3_omni_moe_thinker":
        window = int(places.max()) * (audio.n_window_infer // piece)
        windows = [min(window, int(places.sum()) - start) for start in range(0, int(places.sum()), window)]
    tokens = (sum(windows) - 2) // 2 + 1 if config.model_type == "qwen2_5_omni_thinker" else sum(windows)

    def cut(input_features: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        chunk_list = input_features.T.split(pieces * batch, dim=0)
        padded = torch.nn.utils.rnn.pad_sequence(list(chunk_list), batch_first=True).transpose(1, 2)
        return padded, torch.empty(len(pieces) * batch, dtype=torch.int64, device="cuda")

    def numbers(count: int) -> Callable[..., torch.Tensor]:
        return lambda *_, **__: torch.empty(count * batch, dtype=torch.int64, device="cuda")

    media.floats["input_features"] = (batch, *shape[1:])
    media.integers["feature_attention_mask"] = (batch, shape[-1])
    media.chosen[batch, shape[-1]] = batch * frames
    media.listed = {torch.int64: [tokens] * batch}
    media.instead |= {
        "chunk_and_pad_features": cut,
        "get_valid_indices": numbers(sum(windows)),
        "get_pool_indices": numbers(tokens),
        "get_audio_cu_seqlens": lambda *_, **__: numpy.concatenate([[0], numpy.cumsum(windows * batch)]),
    }
    return media


MAKERS: Final[dict[str, Callable[[Any, Recipe], MediaInputs]]] = {
    "qwen2_5_omni_thinker": _omni,
    "qwen2_audio": _audio,
    "qwen3_omni_moe_thinker": _omni,
    "voxtral": _voxtral,
}
