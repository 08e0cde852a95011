"""Many training runs side by side: measured at fixed steps, kept on disk, going on after a crash.

Runs advance in rounds, from one evaluation step to the next, so that all curves grow together and an interrupted
experiment has every arm at the same step. Within a round they are spread over worker threads; each run has one thread
and a generator of its own, so its bits depend neither on the others nor on the number of cores.

After each round a run is saved whole (weights, AdamW's moments, generator, step, points so far) in one file that is
replaced atomically. Whenever the process dies, the next one reads the files and repeats at most one round; what it
computes again comes out the same.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from loralens.lab.forgetting.plan import Arm, Design
from loralens.lab.forgetting.shapes import MeasuredPoint, Score, Scores
from loralens.lab.forgetting.source import ExperimentSource
from loralens.lab.tiny.checkpoints import load_tensors, save_tensors
from loralens.lab.tiny.train import HeldOutScore, Trainer, evaluate


@dataclass
class Run:
    """One arm at one learning rate and seed, and the points measured so far."""

    phase: str
    arm: Arm
    learning_rate: float
    seed: int
    part: str = "test"
    points: list[MeasuredPoint] = field(default_factory=list)
    trainer: Trainer | None = None
    reported: int = 0

    @property
    def id(self) -> str:
        """Name of the run, and, hashed, of its file."""
        return f"{self.phase} {self.arm.id} {self.learning_rate:g} {self.seed}"

    def path(self, folder: Path) -> Path:
        """File of the run's state."""
        return folder / f"run-{hashlib.sha256(self.id.encode()).hexdigest()[:16]}.safetensors"

    @property
    def step(self) -> int:
        """Step of the last point."""
        return int(self.points[-1]["step"]) if self.points else -1


def measure(model: nn.Module, source: ExperimentSource, part: str) -> Scores:
    """Held-out loss and accuracy on both texts."""

    def figures(result: HeldOutScore) -> Score:
        return {"loss": result.loss, "accuracy": result.accuracy}

    return {
        "old": figures(evaluate(model, getattr(source.old, part))),
        "new": figures(evaluate(model, getattr(source.new, part))),
    }


def advance(run: Run, source: ExperimentSource, plan: Design, stop: int, folder: Path) -> list[MeasuredPoint]:
    """Bring a run to step `stop`, measure there and save; returns the points not returned before."""
    if run.trainer is None:
        run.trainer = source.trainer(run.arm, learning_rate=run.learning_rate, seed=run.seed, plan=plan)
        kept = load_tensors(run.path(folder))
        if kept is not None:
            run.trainer.load_state(kept[0])
            run.points = json.loads(kept[1]["points"])
    if run.step < stop:
        losses = [step.loss for step in run.trainer.steps(stop)]
        run.points.append(
            {
                "type": "point",
                "phase": run.phase,
                "arm": run.arm.id,
                "learning_rate": run.learning_rate,
                "seed": run.seed,
                "step": stop,
                "train_loss": sum(losses) / len(losses) if losses else None,
                **measure(run.trainer.model, source, run.part),
            }
        )
        save_tensors(run.path(folder), run.trainer.state(), {"points": json.dumps(run.points)})
    new = [point for point in run.points[run.reported :] if point["step"] <= stop]
    run.reported += len(new)
    return new


def advance_all(
    runs: Sequence[Run], source: ExperimentSource, plan: Design, stops: Sequence[int], folder: Path, deadline: float
) -> Iterator[MeasuredPoint]:
    """Advance all runs through all stops; yields points as they are measured.

    Ends early, with all runs at the same step, when the next round would not be over by `deadline` (of
    time.monotonic); the first two rounds are always done.
    """
    pool = ThreadPoolExecutor(max_workers=plan.workers, thread_name_prefix="run")
    try:
        for group in [list(runs)] if plan.resident else [[run] for run in runs]:
            before, slowest = 0, 0.0
            for number, stop in enumerate(stops):
                if number >= 2 and time.monotonic() + slowest * (stop - before) > deadline:
                    break
                started = time.monotonic()
                jobs = [pool.submit(advance, run, source, plan, stop, folder) for run in group]
                for job in jobs:
                    yield from job.result()
                # Rounds have unequal numbers of steps and one evaluation each; a resumed round takes no time at all.
                slowest = max(slowest * 0.5, (time.monotonic() - started) / (stop - before))
                before = stop
            if not plan.resident:
                for run in group:
                    run.trainer = None
    finally:
        # A closed generator must not first train everything that is still queued.
        pool.shutdown(wait=True, cancel_futures=True)
