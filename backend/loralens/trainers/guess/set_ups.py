"""The set-ups that a message without one is compared with: every word here is an assumption about what is usual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from loralens.core.question.recipe import Recipe

COMMON: Final = (
    "qwen2.5-0.5b", "qwen3-0.6b", "gemma-3-1b", "tinyllama-1.1b", "llama-3.2-1b", "qwen2.5-1.5b", "qwen3-1.7b", "gemma-2-2b",
    "qwen2.5-3b", "llama-3.2-3b", "qwen3-4b", "llama-2-7b", "mistral-7b-v0.3", "qwen2.5-7b", "llama-3.1-8b", "qwen3-8b",
    "gemma-2-9b", "mistral-nemo-12b", "llama-2-13b", "qwen2.5-14b", "qwen3-14b", "phi-4", "qwen2.5-32b", "llama-3.1-70b",
)  # fmt: skip
"""The models that are fine-tuned most, the smallest first."""
BATCHES: Final = (1, 2, 4, 8, 16, 32)
LENGTHS: Final = (256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)
RANKS: Final = (8, 16, 32, 64)
MOST_TOKENS: Final = 65_536
SHAPES: Final = tuple((batch, length) for batch in BATCHES for length in LENGTHS if batch * length <= MOST_TOKENS)
Setting = tuple[int, int, int]
SETTINGS: Final[tuple[Setting, ...]] = tuple((*shape, rank) for shape in SHAPES for rank in RANKS)
OPTIMIZERS: Final[Mapping[str, float]] = {"adamw_fused": 1.0, "adamw_8bit": 0.5, "paged_adamw_8bit": 0.25}
"""How usual each is beside the first; they differ in what rests on the device before a step begins."""


@dataclass(frozen=True, slots=True)
class SetUp:
    """A method and words; `attentions`: the kernels that are tried with it."""

    method: str
    words: Mapping[str, Any]
    attentions: tuple[str, ...] = ("sdpa", "eager")

    @property
    def ranks(self) -> tuple[int, ...]:
        """Full fine-tuning has none, and is asked for with the first."""
        return RANKS if self.method != "full" else RANKS[:1]

    def recipe(self, words: Mapping[str, Any], shape: tuple[int, int], rank: int, optimizer: str) -> Recipe:
        """One recipe of it."""
        batch, length = shape
        lora = {} if self.method == "full" else {"lora": {**self.words.get("lora", {}), "rank": rank}}
        return Recipe.from_mapping(
            {
                **self.words,
                **words,
                **lora,
                "micro_batch_size": batch,
                "sequence_length": length,
                "optimizer": optimizer,
            }
        )


_ALL: Final = {"target_modules": "all-linear"}
SET_UPS: Final = (
    SetUp("qlora", {"lora": _ALL}),
    SetUp("qlora", {}),
    SetUp("lora", {"lora": _ALL}),
    SetUp("lora", {}),
    SetUp("full", {}),
    SetUp("full", {"weights_dtype": "float32"}, ("sdpa",)),
)
WALKED: Final = tuple((batch, length) for length in (2048, 8192, 512) for batch in (2, 1))
"""Batches and lengths at which a step is walked, where none before covers them."""
