"""A machine's own rates: small real steps are timed, and five numbers fitted to them.

Steps and not microbenchmarks: what a kernel takes inside a step, with Python, autograd and the caches of its neighbours, is
not what it takes alone. On one processor, five numbers from 18 steps of two small models predicted 36 others, of a third model
too, within 5% in the median.
"""

from __future__ import annotations

import datetime
import itertools
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
import torch

from loralens.core.answer.counted import Counted, count, counted_for
from loralens.core.answer.trainer import trained
from loralens.core.errors import DependencyMissing
from loralens.core.question.model import Model, resolve
from loralens.core.question.recipe import Recipe
from loralens.core.time.calibration import RATES, Calibration, TimedCase, calibrated
from loralens.core.time.measured_links import MeasuredLinks
from loralens.lab.device import Device
from loralens.lab.measure.links import measure_links, members_of
from loralens.lab.measure.run import prepare
from loralens.lab.trace.quantize import bitsandbytes_there

NOISE: Final = 0.04
SPREAD: Final = 1.5  # of a rate before the fit, in logs: a guess may be off several times
REPEATS: Final = 3
MOST_SECONDS: Final = 600.0  # after which no further step is begun
FEWEST: Final = 8  # steps that five rates are fitted to
SIZES: Final[Mapping[str, Sequence[tuple[int, int, int, int]]]] = {
    "cpu": ((256, 4, 704, 4000), (512, 6, 1408, 8000)),
    "cuda": ((1024, 8, 2816, 16_000), (2048, 8, 5632, 32_000)),
}  # hidden, layers, intermediate, vocabulary
SHAPES: Final[Mapping[str, Sequence[tuple[int, int]]]] = {
    "cpu": ((1, 64), (1, 512)), "cuda": ((1, 512), (4, 2048)),
}  # fmt: skip
GUESS: Final[Mapping[str, tuple[float, ...]]] = {
    "cpu": (5e10, 2e10, 1e10, 2e9, 2e-5), "cuda": (1e14, 8e13, 1e12, 1e11, 1e-5),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A step to be timed, with what it does."""

    recipe: Recipe
    method: str
    config: Mapping[str, Any]
    counted: Counted


def cases(kind: str) -> Iterator[Case]:
    """Full, LoRA and QLoRA of two small models, short and long, with and without checkpointing."""
    packs = bitsandbytes_there()
    dtype = "float32" if kind == "cpu" else "bfloat16"
    for size, shape, method, again in itertools.product(SIZES[kind], SHAPES[kind], METHODS, (False, True)):
        if method == "qlora" and not packs:
            continue
        words: dict[str, object] = {
            "micro_batch_size": shape[0], "sequence_length": shape[1], "weights_dtype": dtype, "autocast": None,
            "optimizer": "adamw_foreach", "gradient_checkpointing": again,
        }  # fmt: skip
        if method != "full":
            words["lora"] = {"rank": 8, "alpha": 16, "target_modules": "all-linear", "adapter_dtype": dtype}
        if method == "qlora":
            words["quantization"] = {"type": "nf4", "compute_dtype": dtype}
        recipe, config = Recipe.from_mapping(words), _config(*size)
        yield Case(recipe, method, config, count(resolve(config=config), method, recipe))


METHODS: Final = ("full", "lora", "qlora")


def _config(hidden: int, layers: int, intermediate: int, vocabulary: int) -> dict[str, object]:
    heads = hidden // 64
    return {
        "model_type": "llama", "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": intermediate,
        "vocab_size": vocabulary, "num_attention_heads": heads, "num_key_value_heads": heads,
        "tie_word_embeddings": False, "max_position_embeddings": 4096, "architectures": ["LlamaForCausalLM"],
    }  # fmt: skip


def step_seconds(config: Mapping[str, Any], method: str, recipe: Recipe, device: Device) -> float:
    """The quickest of a few steady steps."""
    ready = prepare(config, method, recipe, device.torch)
    device.time(lambda _: ready.step(), 0, 1)
    return min(device.time(lambda _: ready.step(), 0, 1).seconds for _ in range(REPEATS))


def timed(model: Model, method: str, recipe: Recipe, calibration: Calibration) -> tuple[float, float]:
    """Seconds of a real step on the calibrated device, and as computed with its rates."""
    recipe = trained(model, method, recipe)
    counted = counted_for(model, method, recipe)
    setting = (recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    computed = calibrated(counted.work, counted.trained(recipe), counted.used(recipe), calibration).at(*setting).seconds
    kind = calibration.device if calibration.serial else "cuda:0"
    return step_seconds(model.config, method, recipe, Device(kind, calibration.threads)), computed


def calibrate(
    name: str = "cpu", threads: int = 1, most_seconds: float = MOST_SECONDS, members: int | None = None
) -> Iterator[dict[str, object]]:
    """Time the cases and fit; yields one event a case, at the end `{"type": "result", "calibration": …}`.

    After `most_seconds` no further case is begun, once there are enough for a fit. Then transfers are timed among so many
    `members` (None: all GPUs of the machine; 1: none), one event a message.

    Raises:
        DeviceUnavailable: the device is not in this machine.
        DependencyMissing: transformers or PEFT is not installed.
    """
    device = Device(name, threads)
    kind = "cpu" if device.kind == "cpu" else "cuda"
    taking_part = members_of(kind, members)
    todo = list(cases(kind))
    if not todo:
        raise DependencyMissing("no step can be timed here", hint="LORALENS_EXTRAS=trace ./start.sh lab")
    seconds: list[float] = []
    begun = time.monotonic()
    for number, case in enumerate(todo, 1):
        if number > FEWEST and time.monotonic() - begun > most_seconds:
            break
        seconds.append(step_seconds(case.config, case.method, case.recipe, device))
        yield {"type": "case", "number": number, "of": len(todo), "method": case.method, "seconds": seconds[-1]}
    todo = todo[: len(seconds)]
    found = fit(todo, seconds, device, kind)
    beside = tuple(
        _timed_case(todo[out], seconds[out], fit(_without(todo, out), _without(seconds, out), device, kind))
        for out in range(len(todo))
    )
    off = statistics.median(abs(case.computed_seconds / case.measured_seconds - 1) for case in beside)
    links = None
    for event in measure_links(kind, taking_part) if taking_part > 1 else ():
        if event["type"] == "message":
            yield event
        else:
            links = MeasuredLinks.read(cast("Mapping[str, Any]", event["links"]))
    yield {"type": "result", "calibration": replace(found, median_error=off, cases=beside, links=links).to_dict()}


def _timed_case(case: Case, measured: float, found: Calibration) -> TimedCase:
    return TimedCase(
        method=case.method,
        hidden_size=case.config["hidden_size"],
        layers=case.config["num_hidden_layers"],
        micro_batch_size=case.recipe.micro_batch_size,
        sequence_length=case.recipe.sequence_length,
        gradient_checkpointing=case.recipe.gradient_checkpointing,
        measured_seconds=measured,
        computed_seconds=predicted(case, found),
    )


def _without(items: Sequence[Any], out: int) -> list[Any]:
    return [item for index, item in enumerate(items) if index != out]


def predicted(case: Case, calibration: Calibration) -> float:
    """A case's seconds with these rates."""
    setting = (case.recipe.micro_batch_size, case.recipe.sequence_length, case.recipe.lora.rank)
    return (
        calibrated(case.counted.work, case.counted.trained(case.recipe), case.recipe, calibration).at(*setting).seconds
    )


def fit(todo: Sequence[Case], seconds: Sequence[float], device: Device, kind: str) -> Calibration:
    """Least squares of log seconds over the five rates."""
    start = Calibration(
        device=_name(device), dtype="float32" if kind == "cpu" else "bfloat16", threads=device.threads,
        serial=kind == "cpu", **dict(zip(RATES, GUESS[kind], strict=True)), steps=len(todo), median_error=0.0,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(), software=f"torch {torch.__version__}", cases=(), links=None,
    )  # fmt: skip
    prior = np.log([getattr(start, name) for name in RATES])
    vector = prior.copy()

    def at(values: Any) -> Calibration:
        products, attention, moved, unpacked, kernel = map(float, np.exp(values))
        return replace(
            start,
            flops_per_second=products,
            attention_flops_per_second=attention,
            bytes_per_second=moved,
            weights_per_second=unpacked,
            kernel_seconds=kernel,
        )

    def residuals(values: Any) -> Any:
        found = at(values)
        return np.log([predicted(case, found) / measured for case, measured in zip(todo, seconds, strict=True)]) / NOISE

    for _ in range(STEPS):
        now = residuals(vector)
        slope = np.stack([(residuals(vector + STEP * one) - now) / STEP for one in np.eye(len(RATES))], axis=1)
        curve = slope.T @ slope + np.eye(len(RATES)) / SPREAD**2
        vector = vector - DAMPING * np.linalg.solve(curve, slope.T @ now + (vector - prior) / SPREAD**2)
    return at(vector)


STEPS: Final = 12
STEP: Final = 1e-3
DAMPING: Final = 0.8


def _name(device: Device) -> str:
    return torch.cuda.get_device_name(device.torch) if device.kind == "cuda" else device.kind
