"""The experiment on a given base and texts, as a generator of events; `job.run` prepares these and calls it.

Order: base measured, learning rates swept, all arms and seeds together, then spectra, truncations, costs and checks.
Everything that enters the figures is deterministic; times and peaks are measured and are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from loralens.core.errors import JobFailed
from loralens.lab.forgetting.costs import measure_cost
from loralens.lab.forgetting.plan import Arm, Design
from loralens.lab.forgetting.runs import Run, advance_all, measure
from loralens.lab.forgetting.sentences import findings
from loralens.lab.forgetting.shapes import ArmCost, ArmSpectrum, MeasuredPoint, RunSpectrum, RunTruncated, Scores
from loralens.lab.forgetting.source import ExperimentSource, delta
from loralens.lab.forgetting.spectrum import spectrum, truncated_losses
from loralens.lab.forgetting.summary import at_start, rank_curve, summarise
from loralens.lab.forgetting.uncertainty import spread
from loralens.lab.tiny.checkpoints import load_tensors
from loralens.lab.tiny.lora import base_hash
from loralens.lab.tiny.train import one_thread

Event = dict[str, object]
SPECTRUM_ARMS = ("full", "linear")


def experiment(source: ExperimentSource, plan: Design, folder: Path, deadline: float) -> Iterator[Event]:
    """All phases; the last event is the result. `deadline` (time.monotonic) ends the training early if it must."""
    # Many small runs share the cores between them; one large model takes them all.
    with one_thread() if plan.resident else nullcontext():
        yield from _experiment(source, plan, folder, deadline)


def _experiment(source: ExperimentSource, plan: Design, folder: Path, deadline: float) -> Iterator[Event]:
    before = base_hash(source.base)
    base = at_start(measure(source.base, source, "test"))
    sweep_base = measure(source.base, source, "validation")
    yield {**base}

    yield {"type": "progress", "phase": "sweep", "done": 0, "total": plan.sweep_steps}
    sweep: list[MeasuredPoint] = []
    for point in _sweep(source, plan, folder):
        sweep.append(point)
        yield {**point}
    rates = choose_rates(plan, sweep)
    yield {"type": "choice", "learning_rates": rates, "chosen_by": "lowest validation loss on the new text"}

    points: list[MeasuredPoint] = []
    runs = [Run("main", arm, rates[arm.family], seed) for seed in plan.seeds for arm in plan.arms]
    for point in advance_all(runs, source, plan, plan.evaluation_steps, folder, deadline):
        points.append(point)
        yield {**point}
        yield {
            "type": "progress",
            "phase": "main",
            "done": len(points),
            "total": len(runs) * len(plan.evaluation_steps),
        }

    summary = summarise(plan, base, points, sweep, sweep_base)
    yield {"type": "progress", "phase": "spectrum", "done": 0, "total": len(SPECTRUM_ARMS)}
    spectra: dict[str, ArmSpectrum] = {}
    for arm_id in SPECTRUM_ARMS:
        spectra[arm_id] = _spectrum_of(arm_id, runs, source, plan, folder)
        yield {"type": "spectrum", "arm": arm_id, **spectra[arm_id]}
    for run in runs:
        run.trainer = None  # the costs below are measured with nothing else held

    costs: list[ArmCost] = []
    for arm in plan.arms:
        costs.append(measure_cost(source, arm, plan))
        yield {"type": "cost", **costs[-1]}

    after = base_hash(source.base)
    if after != before:
        raise JobFailed("the frozen base changed while adapters were trained on it")
    result: Event = {
        "type": "result",
        "budget": plan.budget,
        "reference_arm": next(arm.id for arm in plan.arms if arm.family == "lora"),
        "learning_rates": rates,
        "stopped_early": summary["step"] < plan.steps,
        "summary": summary,
        "rank_curve": rank_curve(plan, summary, spectra["linear"]["truncated"]),
        "spectrum": spectra,
        "costs": costs,
        "checks": {
            "base_hash": before,
            "base_unchanged": True,
            "rank_zero_is_base": _rank_zero_is_base(source, plan, base),
        },
    }
    yield result | {"findings": findings(result)}


def _sweep(source: ExperimentSource, plan: Design, folder: Path) -> Iterator[MeasuredPoint]:
    runs = [
        Run("sweep", arm, rate, plan.sweep_seed, part="validation")
        for family, arm in plan.families().items()
        for rate in plan.rates_of(family)
    ]
    stops = sorted({s for s in plan.evaluation_steps if s < plan.sweep_steps} | {plan.sweep_steps})
    # Never cut short: another sweep could choose other rates, and the same seed must give the same curves.
    yield from advance_all(runs, source, plan, stops, folder, math.inf)


def choose_rates(plan: Design, sweep: Sequence[MeasuredPoint]) -> dict[str, float]:
    """The rate of each family whose last point has the lowest new-text loss; a run that diverged never wins."""
    chosen: dict[str, float] = {}
    for family, arm in plan.families().items():
        ends: dict[float, float] = {}
        for point in sweep:
            if point["arm"] == arm.id:
                loss = point["new"]["loss"]
                ends[point["learning_rate"]] = loss if math.isfinite(loss) else math.inf
        chosen[family] = min(ends, key=lambda rate: (ends[rate], rate))
    return chosen


def _spectrum_of(arm_id: str, runs: Sequence[Run], source: ExperimentSource, plan: Design, folder: Path) -> ArmSpectrum:
    """Spectrum of the first seed in detail; energies and truncated losses as spreads over all seeds."""
    weights = {name.removesuffix(".weight"): p for name, p in source.base.named_parameters()}
    details: list[RunSpectrum] = []
    cut: list[list[RunTruncated]] = []
    for run in runs:
        if run.arm.id != arm_id:
            continue
        kept = load_tensors(run.path(folder))
        if kept is None:
            raise JobFailed("a run's saved state has disappeared", hint="start the experiment again")
        trained = {k.removeprefix("parameter."): t for k, t in kept[0].items() if k.startswith("parameter.")}
        deltas = delta(source.base, trained, source.linear_names)
        details.append(spectrum(deltas, weights, plan.ranks))
        cut.append(truncated_losses(source, trained, deltas, plan.ranks))
    return {
        "modules": details[0]["modules"],
        "energy": [
            {
                "rank": rank,
                "share": spread([detail["energy"][i]["share"] for detail in details]),
                "random_share": details[0]["energy"][i]["random_share"],
            }
            for i, rank in enumerate(plan.ranks)
        ],
        "truncated": [
            {
                "rank": rank,
                "old_loss": spread([entries[i]["old"]["loss"] for entries in cut]),
                "new_loss": spread([entries[i]["new"]["loss"] for entries in cut]),
            }
            for i, rank in enumerate(plan.ranks)
        ],
    }


def _rank_zero_is_base(source: ExperimentSource, plan: Design, base: Scores) -> bool:
    """Train LoRA of rank 0 for two steps: its figures must be the base's to the last bit."""
    arm = Arm("lora-r0", "lora", rank=0, targets=source.linear_names)
    trainer = source.trainer(arm, learning_rate=1.0, seed=0, plan=plan)
    for _ in trainer.steps(2):
        pass
    figures = measure(trainer.model, source, "test")
    return bool(figures["old"] == base["old"] and figures["new"] == base["new"])
