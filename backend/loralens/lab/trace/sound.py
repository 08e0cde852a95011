"""Sound for a traced step: the mel frames that the family's own feature extractor makes.

See `media`, which puts these behind its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

from loralens.core.question.recipe import Recipe
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


MAKERS: Final[dict[str, Callable[[Any, Recipe], MediaInputs]]] = {"voxtral": _voxtral}
