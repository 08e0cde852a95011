"""Published speeds of training runs, each beside what the walk counts of its step.

A row of docs/accuracy/timing-runs.jsonl: `id` (of the run in published-runs.jsonl, or with `model`, `method` and `recipe` of
its own), `gpu`, `machine` (whose runs share a host), `tokens_per_second_per_gpu` without padding, `sequence_length` (the mean
of what was trained on), `published` (the figure in its own unit). `words` corrects recipe words, with `why`;
`rates` names another kernel than the usual one; `machine_gpus` are the GPUs of a machine, `links` the part of a card's links that
goes to the others of its group; `stand_in`: the config is another model's of the same shapes; `padding` is by how much lengths
were filled up; `excluded` says why a run is not judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from math import fsum
from typing import Any, Final

from loralens.core import catalogue
from loralens.core.answer.counted import Counted, counted_for
from loralens.core.catalogue import Gpu
from loralens.core.errors import InvalidInput, LoraLensError
from loralens.core.partition.rank import is_cut
from loralens.core.question.recipe import Recipe
from loralens.core.tape.cost import ATTENTION
from loralens.core.tape.size import Size, monomial_values
from loralens.core.time.communication import HookCalls, Sent, sent, shards_leave
from loralens.core.time.links import link_of, network_of, rate_of
from loralens.core.time.pipeline import PipelineTime
from loralens.core.time.rates import known
from loralens.core.time.step_time import RECOMPUTATION, half_dtype, launches, loops_of
from loralens.core.time.update import update_kernels, update_of
from loralens.validation.rows import MeasuredRow, model_of, words_of

NOISE: Final = 0.05
"""Spread of a published speed between equal runs; T4 runs repeated in one session differ by 8%, FMS's by 1 to 3%."""
STAND_IN: Final = 2 * NOISE
"""Of a run whose model another one stands for."""
CLIPPED: Final = 1.0
"""The norm to which trainers clip gradients where nothing is said."""


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
    matrices: int  # that are cut and dispatched one by one
    between: Mapping[str, tuple[float, float, float]]  # by how it is waited for: bytes on links and network, calls
    several_machines: bool
    attention: Mapping[str, float]  # operations of it by rate, among `flops`
    idle: float  # micro-batches' time of waiting for other stages
    loops: int  # of the training loop in a step
    cut: bool  # has a rank a part of the model or of the sequence?
    noise: float  # spread of the published speed around any model's


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
    return [
        TimedRun(
            **{
                **row,
                "gpu": catalogue.gpu(row["gpu"]),
                "between": {way: tuple(moved) for way, moved in row["between"].items()},
            }
        )
        for row in rows
    ]


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
    if "machine_gpus" in row:
        words["parallelism"] = words["parallelism"] | {"machine_gpus": row["machine_gpus"]}
    recipe = Recipe.from_mapping(words)
    return counted_for(model_of(run), str(data.get("method") or "lora"), recipe), recipe


def _timed(row: dict[str, Any], gpu: Gpu, counted: Counted, recipe: Recipe, excluded: str | None) -> TimedRun:
    length = row["sequence_length"]
    setting = (recipe.micro_batch_size, length, recipe.lora.rank)
    counted, idle = _slowest(counted, recipe, gpu, setting)
    used, values = counted.used(recipe), monomial_values(*setting)
    flops: dict[str, float] = {}
    attention: dict[str, float] = {}
    moved = 0.0
    for phase, cause, rate, work in counted.work.rows():
        name = row.get("rates", {}).get(rate, rate)
        flops[name] = flops.get(name, 0.0) + _at(work.flops, values)
        moved += _at(work.bytes, values)
        if cause == ATTENTION and phase != RECOMPUTATION:
            attention[name] = attention.get(name, 0.0) + _at(work.flops, values)
    trained = counted.trained(recipe)
    p = used.parallelism
    hooks = HookCalls.of(used, counted.held, counted.layers)
    tokens = recipe.micro_batch_size * length
    accumulation = recipe.gradient_accumulation_steps
    return TimedRun(
        id=row["id"],
        machine=row["machine"],
        gpu=gpu,
        dtype=half_dtype(used),
        gpus=p.gpus,
        strategy=p.strategy,
        seconds=tokens * accumulation / row["tokens_per_second_per_gpu"] / (p.model_parallel * p.cp),
        tokens=tokens / p.cp,
        padding=row.get("padding", 1.0),
        accumulation=accumulation,
        length_known=row.get("length_known", True),
        excluded=excluded,
        flops=flops,
        moved=moved,
        kernels=launches(counted.work) if "rates" not in row else sum(work.kernels for *_, work in counted.work.rows()),
        update_bytes=_at(update_of(trained, replace(used, max_grad_norm=used.max_grad_norm or CLIPPED)), values),
        update_kernels=update_kernels(trained, used.optimizer),
        hooks=hooks.units,
        matrices=hooks.matrices,
        between=_between(sent(counted.traffic, p), gpu, values, row.get("links", 1.0)),
        several_machines=shards_leave(used),
        attention=attention if p.cp > 1 else {},
        idle=idle,
        loops=loops_of(used),
        cut=is_cut(used),
        noise=STAND_IN if row.get("stand_in") else NOISE,
    )


def _slowest(counted: Counted, recipe: Recipe, gpu: Gpu, setting: tuple[int, int, int]) -> tuple[Counted, float]:
    """The stage that sets the pace, and its idle time."""
    times = counted.time_on(gpu, recipe)
    if times is None:
        raise InvalidInput(f"the rates of {gpu.name} are not known", field="gpu")
    if not isinstance(times, PipelineTime):
        return counted, 0.0
    number, idle = times.set(*setting).slowest()
    return (counted, *counted.later)[number], idle


def _between(
    rows: Iterable[Sent], gpu: Gpu, values: tuple[float, ...], links: float
) -> dict[str, tuple[float, float, float]]:
    """`links`: the part of a card's links that goes to the others of its group."""
    found: dict[str, tuple[float, float, float]] = {}
    k = known().constants
    link, network = link_of(gpu, k)[0], network_of(gpu, k)
    for row in rows:
        wire = row.route.wire(row.kind, _at(row.size, values))
        rate = rate_of(row.route, row.kind, link, network)
        own = (wire / links, 0.0, row.calls) if rate == link else (0.0, wire * network / rate, row.calls)
        before = found.get(row.name, (0.0, 0.0, 0.0))
        found[row.name] = (before[0] + own[0], before[1] + own[1], before[2] + own[2])
    return found


def _unknown(row: Mapping[str, Any], gpu: Gpu, why: str) -> TimedRun:
    second = 1 / row["tokens_per_second_per_gpu"]
    return TimedRun(
        row["id"],
        row["machine"],
        gpu,
        "",
        1,
        "",
        second,
        1,
        1.0,
        1,
        True,
        why,
        {},
        0,
        0,
        0,
        0,
        0,
        0,
        {},
        False,
        {},
        0.0,
        1,
        False,
        NOISE,
    )


def _at(size: Size, values: tuple[float, ...]) -> float:
    """The value of a polynomial; `sum` of floats rounds otherwise from Python 3.12 on, `fsum` alike on all."""
    return fsum(coefficient * value for coefficient, value in zip(size, values, strict=True))
