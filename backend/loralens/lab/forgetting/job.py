"""The forgetting experiment as a job: `run(spec)` yields events that are JSON as they are.

    spec = {"budget": "quick"}           # or "full"; all fields: `request.check_request`

Events, in order (see `api/routes/forgetting.py` for their fields): plan, progress (phase base), point (base), point
(phase sweep), choice, point and progress (phase main), spectrum, cost, result.

An interrupted run (crash, kill, cancel) has left its states in `<state_dir>/forgetting/<digest>`; the same spec then
goes on from there and ends in the same curves. A finished run removes them.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import loralens
from loralens.lab.forgetting.experiment import experiment
from loralens.lab.forgetting.plan import Design, plan_from_spec
from loralens.lab.forgetting.request import check_request, corpora
from loralens.lab.forgetting.source import tiny_source
from loralens.lab.tiny.checkpoints import base_key, base_steps, default_state_dir, is_cached
from loralens.lab.tiny.corpus import Corpus
from loralens.lab.tiny.model import TinyLM, parameter_count

Event = dict[str, object]


def run(spec: Mapping[str, Any]) -> Iterator[Event]:
    """The whole experiment on our own small model, in the program's state folder.

    Raises: InvalidInput for a bad spec or text, before anything is trained.
    """
    state_dir = default_state_dir()
    old, new = corpora(check_request(spec), state_dir)
    yield from run_plan(plan_from_spec(spec), old, new, state_dir, fresh=bool(spec.get("fresh", False)))


def run_plan(
    plan: Design, old: Corpus, new: Corpus, state_dir: Path, *, fresh: bool = False, limited: bool = True
) -> Iterator[Event]:
    """Run a plan on two corpora; the base is trained first where it is not in the state folder yet.

    `limited` ends the training early to keep to the announced time; without it all steps are done, however long.
    """
    started = time.monotonic()
    cached = is_cached(plan.preset, old, state_dir)
    folder = state_dir / "forgetting" / plan.digest(base_key(plan.preset, old), new.content_hash, torch.__version__)
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    resumed = folder.is_dir() and any(folder.iterdir())
    yield {
        "type": "plan",
        "budget": plan.budget,
        "budget_seconds": plan.seconds,
        "base_cached": cached,
        "resumed": resumed,
        "arms": [describe(arm) for arm in plan.arms],
        "seeds": list(plan.seeds),
        "steps": plan.steps,
        "evaluation_steps": list(plan.evaluation_steps),
        "sweep": {family: list(plan.rates_of(family)) for family in plan.families()},
        "sweep_steps": plan.sweep_steps,
        "tokens_per_step": plan.batch_size * plan.sequence_length,
        "old": about(old),
        "new": about(new),
        "machine": machine(),
    }
    base = yield from _base(plan, old, state_dir)
    # Spectra, costs and checks come after the training; they took an eighth of the time, assumed: a fifth.
    deadline = started + 0.8 * plan.seconds if limited else math.inf
    for event in experiment(tiny_source(base, old, new, plan), plan, folder, deadline):
        if event["type"] == "result":
            event |= {
                "model": {"parameters": parameter_count(base), "config": base.config.to_hf()},
                "old": about(old),
                "new": about(new),
                "seconds": round(time.monotonic() - started, 1),
                "budget_seconds": plan.seconds,
                "base_was_cached": cached,
                "machine": machine(),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            shutil.rmtree(folder, ignore_errors=True)
        yield event


def _base(plan: Design, old: Corpus, state_dir: Path) -> Any:
    total = plan.preset.train.steps
    job = base_steps(plan.preset, old, state_dir)
    told = time.monotonic()
    while True:
        try:
            step = next(job)
        except StopIteration as done:
            base: TinyLM = done.value
            return base
        if time.monotonic() - told > 0.5 or step.step == total:
            told = time.monotonic()
            yield {"type": "progress", "phase": "base", "done": step.step, "total": total, "train_loss": step.loss}


def describe(arm: Any) -> Event:
    """An arm's own fields."""
    return {
        "arm": arm.id,
        "method": arm.method,
        "rank": arm.rank,
        "targets": None if arm.targets is None else list(arm.targets),
        "train_rest": arm.train_rest,
        "mix": arm.mix,
    }


def about(corpus: Corpus) -> Event:
    """A text's name, origin, size and hash; never its content."""
    return {
        "name": corpus.name,
        "description": corpus.description,
        "characters": corpus.characters,
        "content_hash": corpus.content_hash,
    }


def machine() -> Event:
    """What the figures were made with."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "loralens": loralens.__version__,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
