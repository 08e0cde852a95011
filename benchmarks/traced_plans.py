"""How far a plan that was made by tracing is from the walked one, at settings that were not traced.

    python benchmarks/traced_plans.py [method] [model …]

Each model keeps two layers of its published shape. Prints the largest difference in percent, whether the phase of every
peak and both counts agree, and how many traces it took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "backend"))

from loralens.core.answer.estimate import estimate_model
from loralens.core.answer.planned import CompiledPlan
from loralens.core.question.model import given
from loralens.core.question.recipe import Recipe
from loralens.lab.trace.case import recorded
from loralens.lab.trace.grid_cases import small_config
from loralens.lab.trace.ledger import Recorded
from loralens.lab.trace.plan.made import plans, setting_of
from loralens.lab.trace.plan.sizes import Setting

MODELS = (
    "llama-3.2-1b", "qwen2.5-0.5b", "qwen3-30b-a3b", "gemma-2-9b", "gpt2", "phi-3-mini-4k", "mixtral-8x7b", "falcon-7b",
    "bert-base-uncased", "t5-base", "gpt-oss-20b", "bloom-560m", "opt-1.3b", "gemma-3-1b",
)  # fmt: skip
UNSEEN: tuple[Setting, ...] = (
    (1, 512, 8),
    (1, 1032, 32),
    (2, 384, 16),
    (3, 1000, 5),
    (7, 2048, 64),
    (16, 1024, 8),
    (48, 256, 128),
)


def compared(
    config: dict[str, Any], method: str, found: list[CompiledPlan], recipe: Recipe
) -> Iterator[tuple[float, bool]]:
    """Difference in percent and whether phase and counts agree, for each unseen setting that the plans cover."""
    model = given(config)
    for setting in UNSEEN:
        plan = next((plan for plan in found if plan.validity.covers(*setting)), None)
        if plan is None:
            continue
        walked = estimate_model(model, method, setting_of(recipe, setting))
        _, moment, size = plan.peaks(*setting)
        counts = plan.total.at(*setting), plan.trainable.at(*setting)
        equal = counts == (walked.total_parameters, walked.trainable_parameters) and moment.phase == walked.phase
        yield 100 * abs(size - walked.allocated_bytes) / walked.allocated_bytes, equal


def main(method: str, names: list[str]) -> None:
    """One row a model."""
    recipe = Recipe.from_mapping({"sequence_length": 512})
    if method != "full":
        recipe = replace(recipe, lora=replace(recipe.lora, target_modules="all-linear"))
    print(f"{method:<22}{'unseen settings':>16}{'largest %':>12}  phase and counts  traces  seconds")
    for name in names:
        config, traced = small_config(name, 2), 0

        def trace(setting: Setting, config: dict[str, Any] = config) -> Recorded:
            nonlocal traced
            traced += 1
            return recorded(config, method, setting_of(recipe, setting))[0]

        started = time.perf_counter()
        found = [one.plan for one in plans(config, method, recipe, trace)]
        seconds = time.perf_counter() - started
        rows = list(compared(config, method, found, recipe))
        equal = "equal" if all(same for _, same in rows) else "differ"
        worst = max((off for off, _ in rows), default=float("nan"))
        print(f"{name:<22}{len(rows):>16}{worst:>12.5f}  {equal:<16}{traced:>8}{seconds:>9.0f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "lora", sys.argv[2:] or list(MODELS))
