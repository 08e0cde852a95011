"""How much more than the allocated peak a card must have: simulated settings, and the shares that the rule rests on.

    python benchmarks/fragmentation.py

Runs every setting of a grid through the simulated allocator and searches the least memory in which it ends. Minutes.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "backend"))

from loralens.core.answer import reserved
from loralens.core.answer.card import workspace_bytes
from loralens.core.answer.estimate import estimate_model
from loralens.core.answer.overhead import FRAGMENTATION_PERCENT
from loralens.core.errors import LoraLensError
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.validation.bands import quantile

MODELS = (
    "gpt2", "qwen2.5-0.5b", "llama-3.2-1b", "gemma-3-1b", "llama-3.2-3b", "7B", "qwen2.5-7b", "mistral-7b-v0.1", "13B",
)  # fmt: skip
METHODS = ("full", "lora", "qlora")
SHAPES = ((1, 2048), (4, 1024), (1, 512))
GPUS = (1, 4)


def main() -> None:
    """Print needed and reserved as percentages of the allocated peak."""
    needed, held = [], []
    for name, method, checkpointing, (batch, length), gpus in product(MODELS, METHODS, (False, True), SHAPES, GPUS):
        words = {
            "gradient_checkpointing": checkpointing,
            "micro_batch_size": batch,
            "sequence_length": length,
            "parallelism": {"gpus": gpus, "strategy": "fsdp" if gpus > 1 else "none"},
        }
        model = resolve(name)
        try:
            recipe = Recipe.from_mapping(words)
            found = estimate_model(model, method, recipe)
        except LoraLensError:
            continue
        peak = found.allocated_bytes + workspace_bytes()
        needed.append(100 * reserved.needed(model, method, recipe, found.allocated_bytes) / peak)
        held.append(100 * found.simulated().fixed_bytes / peak)
    for label, parts in (("needed", needed), ("reserved", held)):
        shares = ", ".join(f"{100 * share:.0f} %: {quantile(parts, share):.1f}" for share in (0.05, 0.5, 0.95, 0.98, 1))
        print(f"{label}, percent of the allocated peak, {len(parts)} settings: {shares}")
    enough = sum(part <= 100 + FRAGMENTATION_PERCENT for part in needed) / len(needed)
    print(f"{100 * enough:.1f} % need no more than {FRAGMENTATION_PERCENT} % beyond the peak")


if __name__ == "__main__":
    main()
