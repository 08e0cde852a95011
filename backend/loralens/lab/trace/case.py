"""Trace one case: a config, a method and a recipe in, peaks and categories out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loralens.core.question.recipe import Recipe
from loralens.extras import needing
from loralens.lab.trace import peaks
from loralens.lab.trace.ledger import Recorded, TracedStorage, TraceLedger
from loralens.lab.trace.quantize import hush_bitsandbytes


@dataclass(frozen=True, slots=True)
class TraceResult:
    """What one traced step says. All sizes in bytes; `rounded` counts 512-byte blocks as the allocator does."""

    trainable: int
    total: int
    phase: str
    peak_allocated_bytes: int
    peak_allocated_bytes_rounded: int
    phase_peaks: dict[str, int]
    phase_peaks_rounded: dict[str, int]
    categories: dict[str, int]
    kinds: dict[str, int]
    phase_categories: dict[str, dict[str, int]]
    ledger: TraceLedger | Recorded = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, object]:
        """JSON form; `categories` are the contract's and sum to `peak_allocated_bytes`."""
        names = ("trainable", "total", "phase", "peak_allocated_bytes", "peak_allocated_bytes_rounded", "phase_peaks",
                 "phase_peaks_rounded", "categories", "kinds", "phase_categories")  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def living(self, phase: str) -> list[TracedStorage]:
        """The storages at the peak of a phase."""
        return peaks.live_at(self.ledger, peaks.phase_peaks(self.ledger)[phase].event)


def trace(
    config: Mapping[str, Any], method: str = "full", recipe: Recipe | Mapping[str, Any] | None = None
) -> TraceResult:
    """Run one steady-state training step on fake tensors and report its peaks.

    Raises:
        InvalidInput: the config or the recipe is refused.
        UnsupportedArchitecture: transformers has no such family, or none with a loss.
        DependencyMissing: transformers, PEFT or bitsandbytes is missing, or this build of torch cannot trace.
    """
    return summarize(*recorded(config, method, recipe))


def recorded(
    config: Mapping[str, Any], method: str, recipe: Recipe | Mapping[str, Any] | None, file: str | None = None
) -> tuple[Recorded, dict[str, int]]:
    """As `record`, where need be in a process that sees no card."""
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.from_mapping(recipe or {})
    with needing("trace", "tracing"):
        from loralens.lab.trace import apart, cuda_on_cpu

        elsewhere = cuda_on_cpu.card_is_visible()
    if elsewhere:
        return apart.record(config, method, recipe.to_dict(), file)
    return record(config, method, recipe, file)


def record(
    config: Mapping[str, Any], method: str, recipe: Recipe | Mapping[str, Any], file: str | None = None
) -> tuple[Recorded, dict[str, int]]:
    """The step's storages and events, and the parameters' counts; in this process, which must see no card.

    `file`: `FILE.py:FUNCTION` that builds the model in the config's place, from the command line alone.

    Raises:
        InvalidInput, UnsupportedArchitecture, DependencyMissing: see `trace`.
    """
    hush_bitsandbytes()
    with needing("trace", "tracing"):
        import peft  # noqa: F401
        import transformers  # noqa: F401

        from loralens.lab.trace import build, step
        from loralens.lab.trace.diffusion import CLASS, Diffusion
        from loralens.lab.trace.local import Local
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.from_mapping(recipe)
    if file is not None:
        subject: Any = Local(file)
    else:
        subject = Diffusion(config) if CLASS in config else build.read_config(config)
    ledger, counts = step.run(subject, method, recipe)
    return ledger.recorded(), counts


def summarize(ledger: TraceLedger | Recorded, counts: Mapping[str, int]) -> TraceResult:
    """Read the result off a finished ledger."""
    exact = peaks.phase_peaks(ledger)
    rounded = peaks.phase_peaks(ledger, rounded=True)
    top = max(exact.values(), key=lambda moment: moment.live_bytes)
    living = {phase: peaks.live_at(ledger, moment.event) for phase, moment in exact.items()}
    return TraceResult(
        trainable=counts["trainable"],
        total=counts["total"],
        phase=top.phase,
        peak_allocated_bytes=top.live_bytes,
        peak_allocated_bytes_rounded=max(moment.live_bytes for moment in rounded.values()),
        phase_peaks={phase: moment.live_bytes for phase, moment in exact.items()},
        phase_peaks_rounded={phase: moment.live_bytes for phase, moment in rounded.items()},
        categories=peaks.categories(living[top.phase]),
        kinds=peaks.kinds(living[top.phase]),
        phase_categories={phase: peaks.categories(storages) for phase, storages in living.items()},
        ledger=ledger,
    )
