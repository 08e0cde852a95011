"""The answer of `POST /api/traces` and `loralens trace`: traced beside computed, method by method."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from loralens.core.answer.answers import read_body
from loralens.core.answer.estimate import estimate_model
from loralens.core.answer.trainer import trained
from loralens.core.architecture.registry import build
from loralens.core.errors import LoraLensError
from loralens.core.methods.adapters import settled
from loralens.core.question.model import Model
from loralens.core.question.recipe import Recipe
from loralens.extras import needing
from loralens.lab.trace.limits import check as traceable

if TYPE_CHECKING:
    from loralens.lab.trace.case import TraceResult

PACKAGES: Final = ("torch", "transformers", "peft", "bitsandbytes")
LEAVES_OUT: Final = (
    "scratch inside CUDA kernels (flash attention's backward, cuBLAS workspaces), except where an operator's own is named",
    "8-bit layers are traced without outlier columns, whose number depends on values",
)


def check(body: Mapping[str, Any]) -> tuple[Model, tuple[str, ...], Recipe]:
    """Refuse what cannot be traced before anything heavy is imported.

    Raises:
        InvalidInput, UnknownModel: as `POST /api/memory`, and for words that only the computed answer knows.
    """
    model, methods, recipe, _gpus = read_body(body)
    if "method" not in body and "methods" not in body:
        methods = ("lora",)
    for method in methods:
        traceable(method, trained(model, method, recipe))
    return model, methods, recipe


def trace_events(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """`progress` before each method, then one `result` with all of them.

    Raises:
        InvalidInput, UnknownModel, UnsupportedArchitecture, DependencyMissing: see `check` and `case.trace`.
    """
    model, methods, asked = check(body)
    with needing("trace", "tracing"):
        from loralens.lab.trace.case import trace
    traces = []
    for number, method in enumerate(methods):
        yield {"type": "progress", "method": method, "done": number, "total": len(methods)}
        started = time.perf_counter()
        recipe = as_computed(model, method, trained(model, method, asked))
        result = trace(model.config, method, recipe)
        seconds = round(time.perf_counter() - started, 2)
        traces.append(
            {**described(method, result), "computed": _computed(model, method, recipe, result), "seconds": seconds}
        )
    yield {
        "type": "result",
        "model": {"id": model.id, "name": model.name, "family": model.family},
        "recipe": asked.to_dict(),
        "traces": traces,
        "versions": versions(),
        "leaves_out": list(LEAVES_OUT),
    }


def as_computed(model: Model, method: str, recipe: Recipe) -> Recipe:
    """The recipe with the target modules that are computed where it names none, and PEFT has none for the family either."""
    with needing("trace", "tracing"):
        from loralens.lab.trace.build import usual_targets

    named = recipe.lora.target_modules is not None or recipe.lora.target_parameters
    if method == "full" or named or usual_targets(model.config.get("model_type")) is None:
        return recipe
    try:
        return replace(recipe, lora=settled(build(model.config), recipe.lora))
    except LoraLensError:  # a family that is not walked: every linear layer is traced
        return recipe


def described(method: str, result: TraceResult) -> dict[str, object]:
    """A trace in the contract's words."""
    return {
        "method": method,
        "basis": "traced",
        "parameters": {"total": result.total, "trainable": result.trainable},
        "peak": {
            "phase": result.phase,
            "allocated_bytes": result.peak_allocated_bytes,
            "allocated_in_blocks_bytes": result.peak_allocated_bytes_rounded,
        },
        "breakdown": {f"{name}_bytes": size for name, size in result.categories.items()},
        "phases": [{"phase": name, "peak_bytes": size} for name, size in result.phase_peaks.items()],
    }


def _computed(model: Model, method: str, recipe: Recipe, traced: TraceResult) -> dict[str, object]:
    """What the symbolic engine says about the same case, and how far off it is."""
    try:
        found = estimate_model(model, method, recipe)
    except LoraLensError as problem:
        return {"error": {"code": problem.code, "detail": problem.message}}
    off = found.allocated_bytes - traced.peak_allocated_bytes
    return {
        "phase": found.phase,
        "allocated_bytes": found.allocated_bytes,
        "difference_bytes": off,
        "difference_percent": round(100 * off / traced.peak_allocated_bytes, 4),
    }


def versions() -> dict[str, str | None]:
    """The installed libraries that a trace runs; None for one that is not there."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
