"""Fitting the time model's constants on published runs: least squares of log seconds, robust, around stated priors.

A constant that runs say little about stays near its prior, so the priors are part of the model. They were set before fitting
(vendors' data sheets, the kernels' papers, what a processor launches a second), but the model's form was chosen with all runs
in sight: only constants are held out below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from loralens.core.time.links import NVLINK_HIDES, link_of, network_of
from loralens.core.time.rates import Constants, Speed, known, share_of, speed
from loralens.core.time.step_time import beside_card, micro_batch
from loralens.validation.timed_runs import TimedRun

Array = NDArray[np.float64]

TAIL: Final = 2.0  # residuals beyond so many spreads count less
PRIORS: Final[dict[str, tuple[float, float]]] = {
    "bandwidth_share": (0.81, 0.3), "flash": (0.68, 0.3), "flash_hopper": (0.58, 0.15), "flash_1": (0.42, 0.3), "flash_1_hopper": (0.3, 0.3),
    "efficient": (0.39, 0.5), "efficient_float32": (0.25, 0.5),
    "nf4": (12.0, 0.7), "gptq": (18.0, 0.7), "gptq_triton": (7.7, 0.7), "kernel_seconds": (12e-6, 0.6),
    "micro_step_seconds": (8e-3, 0.15), "step_seconds": (6e-3, 0.15), "zero3_hook_seconds": (2.5e-3, 0.3),
    "sharded_share": (0.04, 0.7), "sharded_step_seconds": (0.08, 0.3), "sharded_unit_seconds": (0.4e-3, 0.7),
    "cut_matrix_seconds": (0.5e-3, 0.7), "overlap": (0.38, 0.3), "network_overlap": (0.8, 0.3),
    "nvlink_share": (0.8, 0.2), "network_share": (0.8, 0.3), "call_seconds": (0.1e-3, 0.7),
}  # fmt: skip
"""Value before fitting, and its spread in logs."""
SHARE_SPREAD, HOST_SPREAD, LINK_SPREAD = 0.25, 0.35, 0.7
MOST_SHARE: Final = 1.1
"""A vendor's peak is stated at a boost clock that cards exceed by some 10%; what would ask for more is another constant's."""
STEPS: Final = 25
ENOUGH: Final = 0.001
"""Of a gain in twice the negative log posterior: what follows moves no constant that can be read."""
WAYS: Final = ("waited", "waited_once", "ring", "hidden", "hidden_once")
"""In the order of `step_time.TransferTimes`."""


@dataclass(frozen=True, slots=True)
class TimeFit:
    """Constants, shares by card, processors by machine, links by machine and card."""

    constants: Constants
    shares: dict[str, float]
    hosts: dict[str, float]
    links: dict[str, float]


class RunColumns:
    """The runs as columns, and the parameters as one vector of logs."""

    def __init__(self, runs: Sequence[TimedRun]) -> None:
        self.runs = list(runs)
        self.rates = sorted({rate for run in runs for rate in run.flops if rate not in ("memory", "int8")})
        self.flops = {rate: np.array([run.flops.get(rate, 0.0) for run in runs]) for rate in self.rates}
        self.seconds = self._column(lambda run: run.seconds)
        self.padding = self._column(lambda run: run.padding)
        self.accumulation = self._column(lambda run: run.accumulation)
        self.moved = self._column(lambda run: run.moved)
        self.kernels = self._column(lambda run: run.kernels)
        self.update_bytes = self._column(lambda run: run.update_bytes)
        self.update_kernels = self._column(lambda run: run.update_kernels)
        self.hooks = self._column(lambda run: run.hooks)
        self.between = [[self._column(_moved(way, place)) for place in range(3)] for way in WAYS]
        self.attention = {rate: self._column(_attention(rate)) for rate in self.rates}
        self.leaves = self._column(lambda run: run.several_machines)
        self.noise = self._column(lambda run: run.noise)
        self.idle = self._column(lambda run: run.idle)
        self.loops = self._column(lambda run: run.loops)
        self.matrices = self._column(lambda run: run.matrices)
        self.zero3 = self._column(lambda run: run.strategy == "zero3")
        self.sharded = self._column(lambda run: run.hooks > 0 and run.gpus > 1)
        self.cards, self.card = _numbered([chip(run) for run in runs])
        self.gpus = {chip(run): run for run in runs}
        self.bandwidth = self._column(lambda run: run.gpu.memory_bandwidth_bytes_per_second)
        self.of_card = self._column(lambda run: self.gpus[chip(run)].gpu.memory_bandwidth_bytes_per_second)
        self.machines, self.machine = _numbered([run.machine for run in runs])
        self.ties, self.link = _numbered([_tie(run) for run in runs])
        self.nvlink = self._column(lambda run: link_of(run.gpu, known().constants)[1] == NVLINK_HIDES)
        self.wide = self._column(lambda run: link_of(run.gpu, known().constants)[0] / known().constants.nvlink_share)
        self.network = self._column(
            lambda run: network_of(run.gpu, known().constants) / known().constants.network_share
        )
        self.names = [*PRIORS, *self.cards, *self.machines, *self.ties]
        shares = [share_of(self.gpus[card].gpu, fitted=False).value for card in self.cards]
        links = [link_of(self._tied(tie).gpu, known().constants)[0] for tie in self.ties]
        self.prior = np.log([*(value for value, _ in PRIORS.values()), *shares, *[1.0] * len(self.machines), *links])
        self.spread = np.array(
            [*(spread for _, spread in PRIORS.values()), *[SHARE_SPREAD] * len(self.cards),
             *[HOST_SPREAD] * len(self.machines), *[LINK_SPREAD] * len(self.ties)]
        )  # fmt: skip

    def _column(self, value: Callable[[TimedRun], Any]) -> Array:
        return np.array([float(value(run)) for run in self.runs])

    def _tied(self, tie: str) -> TimedRun:
        return next(run for run in self.runs if _tie(run) == tie)

    def host_places(self) -> slice:
        """Where the processors stand in a vector."""
        start = len(PRIORS) + len(self.cards)
        return slice(start, start + len(self.machines))

    def read(self, vector: Array) -> TimeFit:
        """The parameters by name."""
        values = [float(value) for value in np.exp(vector)]
        cut = np.cumsum([len(PRIORS), len(self.cards), len(self.machines)])
        constants, shares, hosts, links = (values[a:b] for a, b in zip([0, *cut], [*cut, None], strict=True))
        return TimeFit(
            replace(known().constants, **dict(zip(PRIORS, constants, strict=True))),
            {card: min(share, MOST_SHARE) for card, share in zip(self.cards, shares, strict=True)},
            dict(zip(self.machines, hosts, strict=True)),
            dict(zip(self.ties, links, strict=True)),
        )

    def predict(self, vector: Array) -> Array:
        """Seconds of every run's step."""
        found = self.read(vector)
        k = found.constants
        speeds = []
        for card in self.cards:
            run = self.gpus[card]
            half = run.gpu.dense_flops_per_second[run.dtype] or run.gpu.dense_flops_per_second["float16"] or 0
            float32 = run.gpu.dense_flops_per_second["float32"] or half
            bandwidth = run.gpu.memory_bandwidth_bytes_per_second or 0
            speeds.append(speed(half, float32, bandwidth, found.shares[card], k, run.gpu.architecture))
        wide = self.bandwidth / self.of_card
        per_second = np.array([s.bytes_per_second for s in speeds])[self.card] * wide
        card_seconds = self.moved / per_second
        for rate in self.rates:
            card_seconds = card_seconds + self.flops[rate] / np.array([s.flops[rate] for s in speeds])[self.card]
        host = np.array([found.hosts[machine] for machine in self.machines])[self.machine]
        links = np.where(
            self.nvlink > 0, self.wide * k.nvlink_share, np.array([found.links[tie] for tie in self.ties])[self.link]
        )
        hook = np.where(self.zero3 > 0, k.zero3_hook_seconds, k.sharded_unit_seconds)
        busy = card_seconds * self.padding
        between = [
            moved / links + network / (self.network * k.network_share) + calls * k.call_seconds
            for moved, network, calls in self.between
        ]
        one = micro_batch(
            busy,
            host * (self.kernels * k.kernel_seconds + self.hooks * hook + self.matrices * k.cut_matrix_seconds),
            between,
            self._attention(speeds) * self.padding,
            k,
            hides=np.minimum(
                np.where(self.nvlink > 0, NVLINK_HIDES, k.overlap), np.where(self.leaves > 0, k.network_overlap, 1)
            ),
            sharded=self.sharded,
        )
        beside = beside_card(
            one,
            busy,
            between,
            k,
            accumulation=self.accumulation,
            sharded=self.sharded,
            host=host,
            loops=self.loops,
            idle=self.idle,
        )
        update = self.update_bytes / per_second + host * self.update_kernels * k.kernel_seconds
        whole: Array = self.accumulation * busy + sum(beside.values()) + update
        return whole

    def _attention(self, speeds: Sequence[Speed]) -> Array:
        """Seconds of attention, behind which a ring hides."""
        seconds = np.zeros(len(self.runs))
        for rate, flops in self.attention.items():
            seconds = seconds + flops / np.array([s.flops[rate] for s in speeds])[self.card]
        return seconds

    def fit(self, chosen: Sequence[int]) -> Array:
        """The vector that predicts the chosen runs best: damped Gauss-Newton with numerical derivatives."""
        part = RunColumns([self.runs[index] for index in chosen])
        vector, damping = part.prior.copy(), 1e-2
        cost = part.cost(vector)
        for _ in range(STEPS):
            residuals = part.residuals(vector)
            slope = np.empty((len(residuals), len(vector)))
            for column in range(len(vector)):
                moved = vector.copy()
                moved[column] += 1e-4
                slope[:, column] = (part.residuals(moved) - residuals) / 1e-4
            weight = 1 / (1 + (residuals / TAIL) ** 2)
            curve = slope.T @ (slope * weight[:, None]) + np.diag(1 / part.spread**2)
            gradient = slope.T @ (weight * residuals) + (vector - part.prior) / part.spread**2
            while damping < 1e8:
                step = np.linalg.solve(curve + damping * np.diag(np.diag(curve)), -gradient)
                if (tried := part.cost(vector + step)) < cost:
                    gained, vector, cost, damping = cost - tried, vector + step, tried, max(damping / 3, 1e-6)
                    break
                damping *= 4
            else:
                break
            if gained < ENOUGH:
                break
        return self.spread_out(part, vector)

    def spread_out(self, part: RunColumns, vector: Array) -> Array:
        """A part's parameters among all: what the part says nothing about keeps its prior."""
        found = dict(zip(part.names, vector, strict=True))
        return np.array([found.get(name, prior) for name, prior in zip(self.names, self.prior, strict=True)])

    def residuals(self, vector: Array) -> Array:
        """Log of predicted over measured seconds, in units of the noise."""
        measured: Array = self.seconds
        return (np.log(self.predict(vector)) - np.log(measured)) / self.noise

    def cost(self, vector: Array) -> float:
        """Twice the negative log posterior, with heavy tails."""
        tails = TAIL**2 * np.log1p((self.residuals(vector) / TAIL) ** 2)
        return float(tails.sum() + (((vector - self.prior) / self.spread) ** 2).sum())


def chip(run: TimedRun) -> str:
    """Cards of one chip share their part of the peak."""
    return run.gpu.id.removesuffix("-40").removesuffix("-80")


def _moved(way: str, place: int) -> Callable[[TimedRun], float]:
    return lambda run: run.between.get(way, (0.0, 0.0, 0.0))[place]


def _attention(rate: str) -> Callable[[TimedRun], float]:
    return lambda run: run.attention.get(rate, 0.0)


def _tie(run: TimedRun) -> str:
    """Machines without NVLink have a link of their own."""
    own = run.gpus > 1 and link_of(run.gpu, known().constants)[1] != NVLINK_HIDES
    return f"{run.machine}: link of {run.gpu.id}" if own else "card's own link"


def _numbered(names: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    known_names = list(dict.fromkeys(names))
    return known_names, np.array([known_names.index(name) for name in names])
