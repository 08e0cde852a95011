"""From measured points to answers: how much each arm forgot and learned, and how it compares with full fine-tuning.

`forgetting` is held-out loss on the old text after minus before (nats per token; positive = forgot), or the accuracy
lost (percentage points). `learned` is the same drop of loss, or gain of accuracy, on the new text. Comparisons are
paired: the same seed sees the same batches in every arm, so their differences are taken seed by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from loralens.lab.forgetting.plan import Arm, Design
from loralens.lab.forgetting.shapes import (
    AgainstFull,
    ArmFigures,
    BestOfFamily,
    MeasuredPoint,
    RankPoint,
    Scores,
    Spread,
    Summary,
    SweepAtEqualLearning,
    Truncated,
)
from loralens.lab.forgetting.uncertainty import old_loss_at, spread

Points = Sequence[MeasuredPoint]
Text = Literal["old", "new"]


def at_start(base: Scores) -> MeasuredPoint:
    """The base's own scores as the point where every curve begins."""
    return {"type": "point", "phase": "base", "arm": "base", "step": 0, "old": base["old"], "new": base["new"]}


def curves_by_run(points: Points, base: Scores) -> dict[tuple[str, float, int], list[MeasuredPoint]]:
    """Points of each (arm, learning rate, seed) in order of steps, the base's at step 0 first."""
    runs: dict[tuple[str, float, int], list[MeasuredPoint]] = {}
    for point in points:
        runs.setdefault((point["arm"], point["learning_rate"], point["seed"]), [at_start(base)]).append(point)
    return runs


def summarise(plan: Design, base: Scores, points: Points, sweep: Points, sweep_base: Scores) -> Summary:
    """Every arm's figures at the last step that all runs reached, with intervals, and the paired comparisons."""
    runs = curves_by_run(points, base)
    last = min(run[-1]["step"] for run in runs.values())
    runs = {key: [p for p in run if p["step"] <= last] for key, run in runs.items()}
    by_arm: dict[str, dict[int, list[MeasuredPoint]]] = {}
    rates: dict[str, float] = {}
    for (arm, rate, seed), run in runs.items():
        by_arm.setdefault(arm, {})[seed] = run
        rates[arm] = rate
    arms = [_arm_figures(arm, rates[arm.id], by_arm[arm.id], base) for arm in plan.arms]
    return {
        "step": last,
        "seeds": list(plan.seeds),
        "base": {"old": base["old"], "new": base["new"]},
        "arms": arms,
        "comparisons": [_compare(arm.id, by_arm[arm.id], by_arm["full"]) for arm in plan.arms if arm.id != "full"],
        "sweep_at_equal_learning": sweep_at_equal_learning(plan, sweep, sweep_base),
    }


def _arm_figures(arm: Arm, rate: float, runs: Mapping[int, Points], base: Scores) -> ArmFigures:
    ends = [runs[seed][-1] for seed in sorted(runs)]

    def over_seeds(text: Text, what: Literal["loss", "accuracy"], sign: int, scale: float, minus: float) -> Spread:
        return spread([sign * scale * (end[text][what] - minus) for end in ends])

    return {
        "arm": arm.id,
        "method": arm.method,
        "rank": arm.rank,
        "targets": None if arm.targets is None else list(arm.targets),
        "train_rest": arm.train_rest,
        "mix": arm.mix,
        "learning_rate": rate,
        "old_loss": over_seeds("old", "loss", 1, 1.0, 0.0),
        "old_accuracy": over_seeds("old", "accuracy", 1, 1.0, 0.0),
        "new_loss": over_seeds("new", "loss", 1, 1.0, 0.0),
        "new_accuracy": over_seeds("new", "accuracy", 1, 1.0, 0.0),
        "forgetting_nats": over_seeds("old", "loss", 1, 1.0, base["old"]["loss"]),
        "forgetting_points": over_seeds("old", "accuracy", -1, 100.0, base["old"]["accuracy"]),
        "learned_nats": over_seeds("new", "loss", -1, 1.0, base["new"]["loss"]),
        "learned_points": over_seeds("new", "accuracy", 1, 100.0, base["new"]["accuracy"]),
    }


def _compare(arm: str, runs: Mapping[int, Points], full: Mapping[int, Points]) -> AgainstFull:
    """Arm minus full fine-tuning, seed by seed: positive forgetting means that the arm forgot more."""
    seeds = sorted(runs)
    equal = [at_equal_learning(runs[seed], full[seed]) for seed in seeds]
    reached = [value for value in equal if value is not None]
    return {
        "arm": arm,
        "forgetting_nats": spread([runs[s][-1]["old"]["loss"] - full[s][-1]["old"]["loss"] for s in seeds]),
        "new_loss": spread([runs[s][-1]["new"]["loss"] - full[s][-1]["new"]["loss"] for s in seeds]),
        "at_equal_learning": {
            "forgetting_nats": spread(reached) if reached else None,
            "seeds_reached": len(reached),
        },
    }


def at_equal_learning(run: Points, full: Points) -> float | None:
    """Old-text loss of `run` minus that of `full` where both had the same new-text loss: that of the slower learner.

    Without this, an arm that learned nothing would win by having nothing to forget with.
    """
    target = max(run[-1]["new"]["loss"], full[-1]["new"]["loss"])
    one, other = old_loss_at(run, target), old_loss_at(full, target)
    return None if one is None or other is None else one - other


def sweep_at_equal_learning(plan: Design, sweep: Points, base: Scores) -> SweepAtEqualLearning | None:
    """The least forgetting of each family over its learning rates, at one and the same new-text loss (validation).

    One seed: it shows how far the rate decides, not how certain that is.
    """
    runs = curves_by_run(sweep, base)
    of_family: dict[str, list[tuple[float, Points]]] = {}
    for family, arm in plan.families().items():
        if family not in ("full", "lora", "full_rank"):
            continue
        of_family[family] = [(rate, run) for (name, rate, _), run in runs.items() if name == arm.id]
    if not all(of_family.values()):
        return None
    target = max(min(run[-1]["new"]["loss"] for _, run in group) for group in of_family.values())
    best: dict[str, BestOfFamily] = {}
    for family, group in of_family.items():
        reached = [(old_loss_at(run, target), rate) for rate, run in group]
        values = [(old - base["old"]["loss"], rate) for old, rate in reached if old is not None]
        if values:
            forgetting, rate = min(values)
            best[family] = {"forgetting_nats": forgetting, "learning_rate": rate}
    return {"new_loss": target, "families": best}


def rank_curve(plan: Design, summary: Summary, truncated: Sequence[Truncated]) -> list[RankPoint]:
    """LoRA's loss by rank beside the truncated update's: what the rank costs, and what LoRA loses beyond it.

    `truncated` are the figures of the linear layers' own fine-tuning, cut to each rank, one list entry per rank with
    spreads; the gap is LoRA's new-text loss minus that at the same rank.
    """
    by_rank = {entry["rank"]: entry for entry in truncated}
    result: list[RankPoint] = []
    for arm in plan.arms:
        if arm.id != f"lora-r{arm.rank}":
            continue
        figures = next(a for a in summary["arms"] if a["arm"] == arm.id)
        cut = None if arm.rank is None else by_rank.get(arm.rank)
        gap = None
        if cut is not None:
            pairs = zip(figures["new_loss"]["values"], cut["new_loss"]["values"], strict=False)
            gap = spread([lora - truncation for lora, truncation in pairs])
        result.append({"rank": arm.rank, "arm": arm.id, "new_loss": figures["new_loss"], "gap_to_truncation": gap})
    return sorted(result, key=lambda entry: entry["rank"] or 0)
