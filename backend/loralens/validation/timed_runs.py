"""Published speeds of training runs, each beside what the walk counts of its step.

A row of docs/accuracy/timing-runs.jsonl: `id` (of the run in published-runs.jsonl, or with `model`, `method` and `recipe` of
its own), `gpu`, `machine` (whose runs share a host), `tokens_per_second_per_gpu` without padding, `sequence_length` (the mean
of what was trained on), `published` (the figure in its own unit). `words` corrects recipe words, with `why`; `rates` names
another kernel than the usual one; `padding` is by how much lengths were filled up; `excluded` says why a run is not judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import fsum
from typing import Any

from loralens.core import catalogue
from loralens.core.answer.counted import Counted, counted_for
from loralens.core.catalogue import Gpu
from loralens.core.errors import InvalidInput, LoraLensError
from loralens.core.question.recipe import Recipe
from loralens.core.tape.size import Size, monomial_values
from loralens.core.time.communication import communication
from loralens.core.time.rates import known
from loralens.core.time.step_time import launches
from loralens.core.time.update import update_bytes, update_kernels
from loralens.validation.rows import MeasuredRow, model_of, words_of


@dataclass(frozen=True, slots=True)
class TimedRun:
    """One run and its step's work. `flops`: operations by rate; `moved`: bytes; both of one micro-batch on one GPU."""

    id: str
    machine: str
    gpu: Gpu
    dtype: str
    gpus: int
    strategy: str
    seconds: float  # of a step, gradient accumulation included
    tokens: float  # of a micro-batch
    padding: float
    accumulation: int
    length_known: bool
    excluded: str | None
    flops: Mapping[str, float]
    moved: float
    kernels: int
    update_bytes: float
    update_kernels: float
    hooks: int  # around sharded units
    gathered: float  # bytes
    reduced: float


def read_timed(lines: Iterable[str], runs: Iterable[str]) -> list[TimedRun]:
    """Every row with its work; a row whose model is not computed is excluded, with the reason.

    Args:
        lines: of timing-runs.jsonl.
        runs: lines of published-runs.jsonl.

    Raises:
        InvalidInput: a row names a run that is not there.
    """
    published = {row["id"]: row for row in map(json.loads, runs)}
    return [_read(json.loads(line), published) for line in lines]


def written(runs: Iterable[TimedRun]) -> str:
    """Every run with its work as a line of JSON, for those who judge without walking 240 steps anew."""
    names = [field.name for field in fields(TimedRun)]
    rows = ({name: getattr(run, name) for name in names} | {"gpu": run.gpu.id} for run in runs)
    return "".join(json.dumps(row) + "\n" for row in rows)


def read_written(lines: Iterable[str]) -> list[TimedRun]:
    """What `written` wrote."""
    rows = map(json.loads, lines)
    return [TimedRun(**{**row, "gpu": catalogue.gpu(row["gpu"])}) for row in rows]


def _read(row: dict[str, Any], published: Mapping[str, dict[str, Any]]) -> TimedRun:
    data = row if "recipe" in row else published.get(row["id"])
    if data is None:
        raise InvalidInput(f"no published run is called {row['id']!r}", field="id")
    gpu = catalogue.gpu(row["gpu"])
    excluded = row.get("excluded")
    try:
        counted, recipe = _counted(row, data)
    except LoraLensError as error:
        if excluded is None:
            raise
        return _unknown(row, gpu, f"{excluded}: {error.message}")
    return _timed(row, gpu, counted, recipe, excluded)


def _counted(row: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[Counted, Recipe]:
    run = MeasuredRow(row["id"], data)
    words = words_of(run) | row.get("words", {})
    if words.get("lora"):
        words["lora"] = {name: value for name, value in words["lora"].items() if value is not None}
    recipe = Recipe.from_mapping(words)
    return counted_for(model_of(run), str(data.get("method") or "lora"), recipe), recipe


def _timed(row: dict[str, Any], gpu: Gpu, counted: Counted, recipe: Recipe, excluded: str | None) -> TimedRun:
    used, length = counted.used(recipe), row["sequence_length"]
    values = monomial_values(recipe.micro_batch_size, length, recipe.lora.rank)
    flops: dict[str, float] = {}
    moved = 0.0
    for _, _, rate, work in counted.work.rows():
        name = row.get("rates", {}).get(rate, rate)
        flops[name] = flops.get(name, 0.0) + _at(work.flops, values)
        moved += _at(work.bytes, values)
    trained = counted.trained(recipe)
    between = communication(used, counted.held, counted.layers, gpu, known().constants)
    if between is None:
        raise InvalidInput(f"no time is known for {used.parallelism.strategy}", field="parallelism.strategy")
    tokens = recipe.micro_batch_size * length
    accumulation = recipe.gradient_accumulation_steps
    split = used.parallelism.gpus if used.parallelism.strategy not in ("none", "ddp") else 1
    return TimedRun(
        id=row["id"],
        machine=row["machine"],
        gpu=gpu,
        dtype=used.autocast or used.weights_dtype,
        gpus=used.parallelism.gpus,
        strategy=used.parallelism.strategy,
        seconds=tokens * accumulation / row["tokens_per_second_per_gpu"],
        tokens=tokens,
        padding=row.get("padding", 1.0),
        accumulation=accumulation,
        length_known=row.get("length_known", True),
        excluded=excluded,
        flops=flops,
        moved=moved,
        kernels=launches(counted.work) if "rates" not in row else sum(work.kernels for *_, work in counted.work.rows()),
        update_bytes=_at(update_bytes(trained, used.optimizer), values) / split,
        update_kernels=update_kernels(trained, used.optimizer),
        hooks=between.hooks,
        gathered=_at(between.gathered, values),
        reduced=_at(between.reduced, values),
    )


def _unknown(row: Mapping[str, Any], gpu: Gpu, why: str) -> TimedRun:
    rate = row["tokens_per_second_per_gpu"]
    return TimedRun(row["id"], row["machine"], gpu, "", 1, "", 1 / rate, 1, 1.0, 1, True, why, {}, 0, 0, 0, 0, 0, 0, 0)


def _at(size: Size, values: tuple[float, ...]) -> float:
    """The value of a polynomial; `sum` of floats rounds otherwise from Python 3.12 on, `fsum` alike on all."""
    return fsum(coefficient * value for coefficient, value in zip(size, values, strict=True))
