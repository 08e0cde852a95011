"""Published speeds of generation beside computed ones: `python -m loralens.validation.generation_report docs/accuracy`.

Writes docs/accuracy-generation.md beside the folder, from its generation-runs.jsonl.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from loralens.core import catalogue
from loralens.core.answer.kv_cache import cache_of, queries_per_key
from loralens.core.architecture.registry import build
from loralens.core.methods.frozen import hold_frozen
from loralens.core.objectives.generating import pass_work
from loralens.core.objectives.rollouts import last_logits
from loralens.core.question.model import Model, resolve
from loralens.core.question.recipe import Recipe
from loralens.core.tape.work import WorkLog
from loralens.core.time.generation import Completions, prompt_seconds, token_seconds
from loralens.core.time.rates import GenerationRates, known, speed_of

ITSELF: Final = "transformers"
ROOM: Final = 0.92
"""Share of the card that engines fill with weights and cache: vLLM's default is 0.9, LMDeploy's runs used 0.95; between them."""
HEAD: Final = """# Accuracy of generation: computed against measured

Written by `python -m loralens.validation.generation_report docs/accuracy` from `accuracy/generation-runs.jsonl`: published speeds of
generation on one A100 80GB in 16 bits, each with its source. Nothing here was measured by us. They are the part of an
iteration of reinforcement learning in which completions are made; the passes that learn are in [accuracy-time.md](accuracy-time.md).
Error = computed / measured tokens a second - 1; a cell is the median and the 90th percentile of its absolute value, in percent.

A token takes what the walk of one token counts: weights read once, products, and keys and values read. The card's rates are those
of training. Two constants are generation's own (`backend/loralens/core/time/rates.json`): the least time of a kernel in an engine that
replays graphs, fitted on vLLM's runs, and how often transformers moves its cache for each query head of a key head. *Half*: fitted on
every second run, the others predicted, and the other way round. No run of LMDeploy or TensorRT-LLM had a part in any fit: they
are quicker than vLLM 0.6.3, and show what batches do.
"""


@dataclass(frozen=True, slots=True)
class GenerationRun:
    """A published run with what the walk counts of it."""

    id: str
    engine: str
    model: Model
    batch: Completions
    prompts: WorkLog
    token: WorkLog
    gpu: str
    tokens_per_second: float

    def computed(self, rates: GenerationRates) -> float:
        """Tokens a second, the prompts' pass included."""
        speed = speed_of(catalogue.gpu(self.gpu), "bfloat16")
        assert speed is not None
        constants, batch = known().constants, self.batch
        turns = batch.rows / batch.at_once
        seconds = prompt_seconds(self.prompts, batch, speed, constants)
        seconds += turns * batch.completion * token_seconds(self.token, batch, speed, constants, rates)
        return batch.rows * batch.completion / seconds

    def error(self, rates: GenerationRates) -> float:
        """Computed over measured, less one."""
        return self.computed(rates) / self.tokens_per_second - 1


def read(lines: Iterable[str]) -> list[GenerationRun]:
    """Runs of a file; each model is walked once for each way to run it."""
    walked: dict[tuple[str, bool], tuple[Model, WorkLog, WorkLog, int]] = {}
    return [_run(json.loads(line), walked) for line in lines]


def _run(row: dict[str, Any], walked: dict[tuple[str, bool], tuple[Model, WorkLog, WorkLog, int]]) -> GenerationRun:
    itself = row["engine"] == ITSELF
    key = row["model"], itself
    if key not in walked:
        walked[key] = _walk(*key)
    model, prompts, token, weights = walked[key]
    rows, prompt, completion = row["rows"], row["prompt"], row["completion"]
    each = cache_of(model, 1, prompt + completion, 2)[0]
    room = catalogue.gpu(row["gpu"]).memory_bytes * ROOM - weights
    at_once = rows if itself else max(1, min(rows, int(room // each)))
    cache = cache_of(model, at_once, prompt + completion // 2, 2)[0]
    batch = Completions(rows, at_once, prompt, completion, 1, cache, queries_per_key(model), not itself)
    return GenerationRun(row["id"], row["engine"], model, batch, prompts, token, row["gpu"], row["tokens_per_second"])


def _walk(name: str, itself: bool) -> tuple[Model, WorkLog, WorkLog, int]:
    model = resolve(name)
    words = Recipe(weights_dtype="bfloat16", autocast=None, attention="sdpa" if itself else "flash")
    root = build(model.config)
    hold_frozen(root, words)
    weights = sum(one.bytes[0] * places for _, module, places in root.distinct() for _, one in module.own_parameters())
    prompts, token = (pass_work(root, words, 4, length, last_logits) for length in (64, 1))
    return model, prompts, token, weights


Rated = Callable[[int], GenerationRates]
"""The rates with one constant in so many of its units."""


def fitted(runs: Sequence[GenerationRun], rated: Rated) -> GenerationRates:
    """The rates that bring the computed speeds nearest to the published ones (least mean absolute log)."""

    def far(steps: int) -> float:
        rates = rated(steps)
        return math.fsum(abs(math.log(run.computed(rates) / run.tokens_per_second)) for run in runs)

    low, high = 1, MOST
    while high - low > 2:  # the distance has one valley
        left, right = low + (high - low) // 3, high - (high - low) // 3
        low, high = (low, right) if far(left) <= far(right) else (left, high)
    return rated(min(range(low, high + 1), key=far))


MOST: Final = 200  # units of either constant
FITS: Final[dict[str, Rated]] = {
    "vllm": lambda steps: replace(known().generation, engine_kernel_seconds=steps * 5e-8),
    ITSELF: lambda steps: replace(known().generation, cache_passes_per_query=steps / 10),
}


def halves(runs: Sequence[GenerationRun], rated: Rated) -> list[float]:
    """Errors of each half at rates that were fitted on the other."""
    errors = []
    for half in (0, 1):
        rates = fitted(runs[1 - half :: 2], rated)
        errors += [run.error(rates) for run in runs[half::2]]
    return errors


def markdown(runs: Sequence[GenerationRun]) -> str:
    """The document."""
    rates = known().generation
    lines = [HEAD, "| engine | runs | as it stands | half | mean error |", "|---|---:|---:|---:|---:|"]
    for engine in dict.fromkeys(run.engine for run in runs):
        own = [run for run in runs if run.engine == engine]
        errors = [run.error(rates) for run in own]
        half = "no part"
        if engine in FITS:
            half = _spread(halves(own, FITS[engine]))
        lines.append(
            f"| {engine} | {len(own)} | {_spread(errors)} | {half} | {100 * sum(errors) / len(errors):+.0f}% |"
        )
    engines = sorted(1 + run.error(rates) for run in runs if run.engine != ITSELF)
    band = rates.bands["vllm"]
    inside = sum(band.low <= value <= band.high for value in engines) / len(engines)
    lines += [
        "",
        f"- Band of an engine on the card: {band.low:g} to {band.high:g} times the computed time; of the engines' runs it holds {inside:.0%}.",
        f"- Band of transformers: {rates.bands[ITSELF].low:g} to {rates.bands[ITSELF].high:g}, and from the quickest to the slowest published "
        "machine's processor: an assumption, since its published runs are of one sequence.",
        "- What a whole iteration of GRPO or PPO takes was not found published with everything that it depends on (model, card, lengths that "
        "were really generated, micro-batches): it is the sum of phases that are judged one by one.",
        "",
        "| run | sequences | at once | tokens/s, measured | computed |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {run.id} | {run.batch.rows} | {run.batch.at_once} | {run.tokens_per_second:,.0f} | {100 * run.error(rates):+.0f}% |"
        for run in runs
    ]
    return "\n".join(lines) + "\n"


def _spread(errors: Iterable[float]) -> str:
    ordered = sorted(abs(error) for error in errors)
    return f"{100 * ordered[len(ordered) // 2]:.1f} / {100 * ordered[int(0.9 * len(ordered))]:.0f}"


def write(folder: Path) -> None:
    """Write the document anew."""
    runs = read((folder / "generation-runs.jsonl").read_text(encoding="utf-8").splitlines())
    (folder.parent / "accuracy-generation.md").write_text(markdown(runs), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
