"""What to change so that a step fits: single changes with what each saves, and the shortest mild way to get there."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from loralens.core import catalogue
from loralens.core.answer.pace import Pace, pace_on
from loralens.core.catalogue import Gpu
from loralens.core.errors import LoraLensError
from loralens.core.question.parallelism import Parallelism
from loralens.core.tape.ledger import CATEGORIES
from loralens.planner.beside import fits_card, share_change
from loralens.planner.changes import CHANGES, COSTS, Change
from loralens.planner.mends import mend, mends
from loralens.planner.question import Question

if TYPE_CHECKING:
    from loralens.planner.shapes import Advice, AdvisedChange, SeveralGpus, SmallestGpu


MAX_STEPS: Final = 40
WORTH_SAYING: Final = 2**20
"""Bytes. A change that saves less is not shown."""


def advise(question: Question, device: Gpu) -> Advice:
    """What would make a step fit, with the engine that generates beside it where there is one.

    `changes`: every single change that saves memory, those that are enough by themselves first, then the mildest; of those
        that cost time, the one with the least time per byte saved first. `time_ratio`: time a token after over before.
    Where another share of the card lets engine and step fit, it is the only change and the path. What no saving mends, a
        machine of which nobody says what it has or a sequence too short for its pictures (`mends`), comes before them.
    `path`: changes to make together, mildest first, none of them superfluous; None where no path is known.
    `smallest_gpu`: the same vendor's GPU with the least memory that fits without any change; any vendor's where the
        GPU in question is one's own.
    `several_gpus`: how many of the GPU in question do when weights, gradients and optimizer state are sharded.
    """
    pace = _pace(question, device) if question.estimate().holds_media else None  # else it stops with an error
    share = share_change(question, device)
    changes: list[AdvisedChange] = [share] if share else []

    def judged(change: Change, changed: Question) -> AdvisedChange:
        row = _row(change, question, changed)
        row["fits"] = fits_card(changed, device)
        row["time_ratio"] = _ratio(pace, _pace(changed, device))
        return row

    ways = () if share else mends(question)
    first = [judged(change, question.with_(change.field, value)) for change, value in ways]
    for change, changed in () if share or any(row["fits"] for row in first) else _applicable(question):
        if question.estimate().allocated_bytes - changed.estimate().allocated_bytes >= WORTH_SAYING:
            changes.append(judged(change, changed))
    changes.sort(key=lambda row: (not row["fits"], COSTS.index(row["cost"]), _slowed(row), -row["saves_bytes"]))
    return {
        "changes": first + changes,
        "path": [share] if share else path(question, device) or next(([row] for row in first if row["fits"]), None),
        "smallest_gpu": smallest_gpu(question, device.vendor),
        "several_gpus": several_gpus(question, device),
    }


def _pace(question: Question, device: Gpu) -> Pace | None:
    return pace_on(question.model, question.method, question.recipe, device)


def _ratio(before: Pace | None, after: Pace | None) -> float | None:
    return None if before is None or after is None else before.tokens_per_second / after.tokens_per_second


def _slowed(row: AdvisedChange) -> float:
    """Time that a change costs per byte that it saves."""
    ratio = row["time_ratio"]
    return 0.0 if row["cost"] != "time" or ratio is None else (ratio - 1) / row["saves_bytes"]


def path(question: Question, device: Gpu) -> list[AdvisedChange] | None:
    """Changes that together make the step fit.

    Takes the largest saving of the mildest kind that still saves anything, until it fits; then takes back, the harshest
    first, whatever is not needed. None where everything together is not enough.
    """
    if _lightest_weights(question) > device.memory_bytes:
        return None
    # Per field the values it went through, so that repeated halvings can be taken back one by one.
    taken: dict[str, list[tuple[Change, Any]]] = {}
    now = question
    for _ in range(MAX_STEPS):
        mended, ways = mend(now)
        if fits_card(mended, device):
            for change, value in ways:
                taken.setdefault(change.field, []).append((change, value))
            return _rows(question, _needed(question, taken, device))
        best = _best(now)
        if best is None:
            return None
        change, now = best
        taken.setdefault(change.field, []).append((change, now.get(change.field)))
    return None


def smallest_gpu(question: Question, vendor: str) -> SmallestGpu | None:
    """The vendor's GPU with the least memory that fits the step as asked; only where the driver's figure is known."""
    known = [
        gpu
        for gpu in catalogue.gpus()
        if vendor in (gpu.vendor, catalogue.OWN_VENDOR) and gpu.memory_basis.startswith("driver")
    ]
    enough = [gpu for gpu in known if fits_card(question, gpu)]
    if not enough:
        return None
    best = min(enough, key=lambda gpu: gpu.memory_bytes)
    return {"id": best.id, "name": best.name, "memory_bytes": best.memory_bytes}


def several_gpus(question: Question, device: Gpu) -> SeveralGpus | None:
    """The least power of two of such GPUs on which the step fits under FSDP2; None where none of 1,024 or fewer does."""
    if question.recipe.parallelism.gpus > 1:
        return None
    least = held_weights(question)
    for count in (2**power for power in range(1, 11)):
        if least > count * device.memory_bytes:  # a share of the weights alone is more
            continue
        shared = Parallelism(count, "fsdp2", host_memory=question.recipe.parallelism.host_memory)
        sharded = replace(question, recipe=replace(question.recipe, parallelism=shared))
        try:
            needed = sharded.estimate().overhead.needed[1]
        except LoraLensError:  # this method or model is not modelled on several GPUs
            return None
        if fits_card(sharded, device):
            return {"gpus": count, "strategy": "fsdp2", "needed_bytes": needed}
    return None


def _applicable(question: Question, costs: Container[str] = COSTS) -> Iterator[tuple[Change, Question]]:
    for change in CHANGES:
        value = change.to(question) if change.cost in costs else None
        if value is None:
            continue
        changed = question.with_(change.field, value)
        try:
            changed.estimate()
        except LoraLensError:  # this combination is not modelled or not allowed: then it is no advice
            continue
        yield change, changed


def _best(question: Question) -> tuple[Change, Question] | None:
    """The mildest kind first; within it the largest saving. Methods are tried in their order: LoRA before QLoRA."""
    before = question.estimate().allocated_bytes
    for cost in COSTS:
        peaks = ((row, row[1].estimate().allocated_bytes) for row in _applicable(question, (cost,)))
        saving = ((row, peak) for row, peak in peaks if peak < before)
        best = next(saving, None) if cost == "method" else min(saving, key=itemgetter(1), default=None)
        if best is not None:
            return best[0]
    return None


def _lightest_weights(question: Question) -> int:
    """Bytes of the weights when everything that holds them in fewer is done; 0 where that is not modelled."""
    lightest = replace(question, method="qlora") if question.recipe.quantization is None else question
    for change in CHANGES:
        if change.field in ("double_quant", "prepare_kbit", "weights_dtype"):
            value = change.to(lightest)
            lightest = lightest if value is None else lightest.with_(change.field, value)
    try:
        return held_weights(lightest)
    except LoraLensError:
        return 0


def held_weights(question: Question) -> int:
    """Bytes of the weights that a step holds all the time, whatever its batch, length and rank."""
    found = question.estimate()
    weights = CATEGORIES.index("weights")
    return min(moment.by_category()[weights].at(*found.point) for moment in found.plan.moments)


def _needed(question: Question, taken: dict[str, list[tuple[Change, Any]]], device: Gpu) -> list[tuple[Change, Any]]:
    """What remains of the changes when everything superfluous is taken back."""
    kept = {field: list(values) for field, values in taken.items()}
    for field in sorted(kept, key=lambda field: COSTS.index(kept[field][-1][0].cost), reverse=True):
        while kept[field]:
            shorter = {**kept, field: kept[field][:-1]}
            if not fits_card(_apply(question, shorter), device):
                break
            kept = shorter
    return [values[-1] for values in kept.values() if values]


def _apply(question: Question, taken: dict[str, list[tuple[Change, Any]]]) -> Question:
    for field, values in taken.items():
        if values:
            question = question.with_(field, values[-1][1])
    return question


def _rows(question: Question, taken: list[tuple[Change, Any]]) -> list[AdvisedChange]:
    """The changes one after the other, each time the one that saves most by then."""
    rows: list[AdvisedChange] = []
    left = list(taken)
    while left:
        change, value = min(left, key=lambda one: _peak(question, one))
        left.remove((change, value))
        changed = question.with_(change.field, value)
        rows.append(_row(change, question, changed))
        question = changed
    return rows


def _peak(question: Question, one: tuple[Change, Any]) -> int:
    return question.with_(one[0].field, one[1]).estimate().allocated_bytes


def _row(change: Change, before: Question, after: Question) -> AdvisedChange:
    now, then = before.estimate(), after.estimate()
    return {
        "field": change.field,
        "from": before.get(change.field),
        "to": after.get(change.field),
        "cost": change.cost,
        "why": {"key": change.key, "en": change.en},
        "saves_bytes": now.allocated_bytes - then.allocated_bytes,
        "peak_allocated_bytes": then.allocated_bytes,
        "needed_bytes": then.overhead.needed[1],
    }
