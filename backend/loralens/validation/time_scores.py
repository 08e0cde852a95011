"""How well the time model predicts runs that had no part in fitting it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import fsum
from typing import Final

import numpy as np

from loralens.core.time.links import NVLINK_HIDES, link_of
from loralens.core.time.rates import known
from loralens.validation.bands import quantile
from loralens.validation.time_fit import Array, RunColumns, chip
from loralens.validation.timed_runs import TimedRun

FEW_TOKENS: Final = 1000
"""Below so many tokens a micro-batch the processor sets the pace, and its speed is not known."""
LOW, HIGH = 0.1, 0.9
APART: Final = 1.1  # pairs whose speeds differ by less are not judged
FORMER_SHARE: Final = 0.4


@dataclass(frozen=True, slots=True)
class Judged:
    """Every run's seconds as predicted by fits that did not know it. `machine`, `card`: none of that one's runs was known."""

    runs: list[TimedRun]
    half: Array
    machine: Array
    card: Array
    former: Array  # 40% of the peak for every card and case
    host_range: tuple[Array, Array]  # without its machine, with the quickest and the slowest published processor

    def errors(self, seconds: Array, chosen: Sequence[int]) -> Array:
        """Predicted over measured tokens a second, minus 1."""
        measured = np.array([self.runs[index].seconds for index in chosen])
        found: Array = measured / seconds[list(chosen)] - 1
        return found

    def chosen(self, wanted: Callable[[TimedRun], bool]) -> list[int]:
        """Numbers of the runs that are wanted."""
        return [index for index, run in enumerate(self.runs) if wanted(run)]


def judge_times(runs: Sequence[TimedRun]) -> Judged:
    """Fit again and again, each time without some runs, and predict those."""
    kept = [run for run in runs if run.excluded is None]
    table = RunColumns(kept)
    half, machine, card, low, high = (np.empty(len(kept)) for _ in range(5))
    for chosen in halves(kept):
        rest = [index for index in range(len(kept)) if index not in set(chosen)]
        half[rest] = table.predict(table.fit(chosen))[rest]
    quick, slow = known().host
    for without, into in ((_machine, machine), (chip, card)):
        for name in dict.fromkeys(map(without, kept)):
            inside = [index for index, run in enumerate(kept) if without(run) == name]
            vector = table.fit([index for index in range(len(kept)) if index not in set(inside)])
            vector[table.host_places()] = 0.0 if into is machine else vector[table.host_places()]
            into[inside] = table.predict(vector)[inside]
            if into is machine:
                for host, end in ((quick, low), (slow, high)):
                    vector[table.host_places()] = np.log(host)
                    end[inside] = table.predict(vector)[inside]
    former = np.array([_former(run) for run in kept])
    return Judged(kept, half, machine, card, former, (low, high))


def halves(runs: Sequence[TimedRun]) -> Iterator[list[int]]:
    """Two halves: of every machine and card, each second run in the order of their names."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index in sorted(range(len(runs)), key=lambda index: runs[index].id):
        groups.setdefault((runs[index].machine, chip(runs[index])), []).append(index)
    yield [index for own in groups.values() for index in own[::2]]
    yield [index for own in groups.values() for index in own[1::2]]


def _machine(run: TimedRun) -> str:
    return run.machine.split("-4090")[0]


def _former(run: TimedRun) -> float:
    peak = run.gpu.dense_flops_per_second.get(run.dtype) or 1
    work = fsum(flops for rate, flops in run.flops.items() if rate not in ("nf4", "gptq", "gptq_triton", "int8"))
    return run.accumulation * run.padding * work / (peak * FORMER_SHARE)


def over_nvlink(run: TimedRun) -> bool:
    """Do a run's cards talk over NVLink?"""
    return link_of(run.gpu, known().constants)[1] == NVLINK_HIDES


def ordered(judged: Judged) -> tuple[float, int]:
    """Of pairs of runs on one card whose speeds differ, the share in which the faster one is predicted faster; their number."""
    right = pairs = 0
    for a, b in combinations(range(len(judged.runs)), 2):
        one, other = judged.runs[a], judged.runs[b]
        if one.gpu.id != other.gpu.id:
            continue
        measured = _speed(one, one.seconds) / _speed(other, other.seconds)
        if max(measured, 1 / measured) <= APART:
            continue
        predicted = _speed(one, judged.half[a]) / _speed(other, judged.half[b])
        right, pairs = right + ((measured > 1) == (predicted > 1)), pairs + 1
    return right / pairs, pairs


def _speed(run: TimedRun, seconds: float) -> float:
    return run.tokens * run.accumulation / seconds


def band(judged: Judged, seconds: Array, chosen: Sequence[int]) -> tuple[float, float]:
    """Measured over predicted seconds: the values between which four of five lie."""
    ratios = [judged.runs[index].seconds / seconds[index] for index in chosen]
    return quantile(ratios, LOW), quantile(ratios, HIGH)


def band_by_card(judged: Judged, seconds: Array, chosen: Sequence[int]) -> tuple[float, float]:
    """The same with every card counting alike, however many runs it has."""
    ratios: dict[str, list[float]] = {}
    for index in chosen:
        ratios.setdefault(chip(judged.runs[index]), []).append(judged.runs[index].seconds / seconds[index])
    alike = [quantile(own, tenth / 10) for own in ratios.values() for tenth in range(1, 10)]
    return quantile(alike, LOW), quantile(alike, HIGH)


def held(
    judged: Judged,
    seconds: Array,
    chosen: Sequence[int],
    group: Callable[[TimedRun], str],
    make: Callable[[Judged, Array, Sequence[int]], tuple[float, float]] = band,
) -> float:
    """Share of runs inside a band that is made from the runs of all other groups."""
    inside = 0
    for name in sorted({group(judged.runs[index]) for index in chosen}):
        own = [index for index in chosen if group(judged.runs[index]) == name]
        low, high = make(judged, seconds, [index for index in chosen if index not in set(own)])
        inside += sum(low <= judged.runs[index].seconds / seconds[index] <= high for index in own)
    return inside / len(chosen)
