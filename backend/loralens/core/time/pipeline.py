"""The time of a step whose layers are cut into stages: the slowest one sets the pace, and waits while the others fill and drain.

Of m micro batches over stages that take t each, forward and backward together, GPipe and 1F1B take (m - 1) times the slowest
and once every stage; with v stages on each GPU filling and draining takes a v-th of that. One after another, without a
schedule, every stage waits for all others in every micro batch.

Sources: Narayanan et al. 2021, arXiv:2104.04473, section 2.2 ((p - 1) / (v m) of equal stages); torch 2.13
distributed/pipelining/schedules.py. Leaves out: warm-up of interleaved stages where m is no multiple of p;
what of the bubble the halves of backward fill in zero-bubble schedules, which are as quick as interleaved ones here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralens.core.time.floats import added

if TYPE_CHECKING:
    from loralens.core.question.parallelism import Parallelism
    from loralens.core.time.step_time import SetTime, StepTime, TimePlan
    from loralens.core.time.transfers import Transfer


@dataclass(frozen=True, slots=True)
class PipelineTime:
    """The stages that differ: the first, the second and the last, as far as there are so many."""

    stages: tuple[TimePlan, ...]
    parallelism: Parallelism

    def at(self, batch: float, sequence: float, rank: float, host: float = 1.0) -> StepTime:
        """The slowest stage's step, with the time in which it waits for the others; `TimePlan.at` has the arguments."""
        return self.set(batch, sequence, rank).step(host)

    def set(self, batch: float, sequence: float, rank: float) -> SetPipeline:
        """The formula at one setting, for any processor."""
        return SetPipeline(self, tuple(stage.set(batch, sequence, rank) for stage in self.stages))


@dataclass(frozen=True, slots=True)
class SetPipeline:
    """A pipeline at one setting."""

    times: PipelineTime
    stages: tuple[SetTime, ...]

    def step(self, host: float = 1.0) -> StepTime:
        """A step's time."""
        slowest, idle = self.slowest(host)
        return self.stages[slowest].step(host, idle)

    def shares(self, host: float = 1.0) -> dict[str, float]:
        """Each phase's part of the slowest stage's micro-batch."""
        return self.stages[self.slowest(host)[0]].shares(host)

    def transfers(self) -> list[tuple[Transfer, float]]:
        """What the slowest stage sends and is sent."""
        return self.stages[self.slowest()[0]].transfers()

    def waited(self) -> float:
        """Of the slowest stage's `COMMUNICATION`, what is waited for of its transfers."""
        return float(self.stages[self.slowest()[0]].waited())

    def slowest(self, host: float = 1.0) -> tuple[int, float]:
        """The stage that sets the pace, and how many of its micro batches' time it waits for the others in a step."""
        paces, p = [stage.pace(host) for stage in self.stages], self.times.parallelism
        slowest = max(range(len(paces)), key=paces.__getitem__)
        alike = p.pp - len(paces)  # as the second, if there is one
        others = added(paces) + alike * paces[min(1, len(paces) - 1)] - paces[slowest]
        times = self.times.stages[slowest].accumulation if p.schedule == "sequential" else 1 / p.stages_per_gpu
        return slowest, times * others / paces[slowest]
