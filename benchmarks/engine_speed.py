"""How long one estimate takes, and how many points a second a plan gives; others' estimators in the same run.

    python benchmarks/engine_speed.py [model]

Peers are timed when they are installed: accelerate (`calculate_maximum_sizes` on an empty model) and ftuneai. Prints
medians of paired rounds in shuffled order, and ratios; single absolute times of a shared machine mean little.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "backend"))

from loralens.core import catalogue
from loralens.core.answer.estimate import estimate
from loralens.core.answer.plan import plan_for
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.core.tape.size import monomial_values

ROUNDS = 9


def ours(name: str) -> Callable[[], object]:
    """One warm estimate."""
    return lambda: estimate(name, method="lora", rank=8, sequence_length=random.randint(64, 4096))


def accelerates(name: str) -> Callable[[], object] | None:
    """accelerate's sizes of an empty model (weights only: no activations, no LoRA)."""
    try:
        import transformers
        from accelerate import init_empty_weights
        from accelerate.utils import calculate_maximum_sizes
    except ImportError:
        return None
    config = dict(resolve(name).config)
    settings = transformers.AutoConfig.for_model(config.pop("model_type"), **config)
    with init_empty_weights():
        model = transformers.AutoModelForCausalLM.from_config(settings)
    return lambda: calculate_maximum_sizes(model)


def ftuneais(name: str) -> Callable[[], object] | None:
    """ftuneai's estimate of a LoRA run."""
    try:
        from ftuneai import Estimator
    except ImportError:
        return None
    try:
        estimator = Estimator(model=catalogue.model(name).hf_id, method="lora")
    except Exception as error:  # whatever a peer raises, its row says so
        print(f"ftuneai: not measured ({type(error).__name__}: {error})")
        return None
    return lambda: estimator.estimate_memory()


def seconds(function: Callable[[], object], enough: float = 0.2) -> float:
    """Process time of one call, averaged over as many as fill `enough` seconds."""
    count, begun = 0, time.process_time()
    while (spent := time.process_time() - begun) < enough:
        function()
        count += 1
    return spent / count


def points_per_second(name: str) -> float:
    """A plan's peak over a million settings, with one matrix product."""
    plan = plan_for(resolve(name), "lora", Recipe.from_mapping({"micro_batch_size": 2}))
    moments = np.array([list(moment.total) for moment in plan.moments], dtype=np.float64)
    generator = np.random.default_rng(0)
    batch, sequence, rank = (generator.integers(2, high, 1_000_000) for high in (64, 8192, 256))
    values = np.array(np.broadcast_arrays(*monomial_values(batch, sequence, rank)), dtype=np.float64)  # type: ignore[arg-type]

    def evaluate() -> object:
        return (moments @ values).max(axis=0)

    return 1_000_000 / min(seconds(evaluate, 0.5) for _ in range(3))


def main() -> None:
    """Print the table."""
    name = sys.argv[1] if len(sys.argv) > 1 else "llama-2-7b"
    rows = {"LoRA Lens": ours(name), "accelerate": accelerates(name), "ftuneai": ftuneais(name)}
    present = {label: function for label, function in rows.items() if function is not None}
    for function in present.values():
        function()
    samples: dict[str, list[float]] = {label: [] for label in present}
    for _ in range(ROUNDS):
        for label in random.sample(sorted(present), len(present)):
            samples[label].append(seconds(present[label]))
    own = samples["LoRA Lens"]
    for label, times in samples.items():
        ratio = statistics.median(a / b for a, b in zip(times, own, strict=True))
        print(f"{label:12} {statistics.median(times) * 1e6:12.1f} µs an estimate   {ratio:10.1f} x ours")
    for label in rows.keys() - present.keys():
        print(f"{label:12} not installed: not measured")
    print(f"plan over arrays: {points_per_second(name) / 1e6:.1f} million points a second")


if __name__ == "__main__":
    main()
