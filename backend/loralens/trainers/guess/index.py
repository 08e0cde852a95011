"""The table of steps that a message without a set-up is compared with, as `loralens.trainers.guess.build` wrote it."""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from loralens.core.tape.size import MONOMIALS
from loralens.trainers.guess.set_ups import SET_UPS, SETTINGS
from loralens.trainers.guess.steps import Floats, Places, Repeats, StepArrays

TABLE: Final = Path(__file__).parent / "steps.json.xz"
_SETTINGS: Final = np.array(SETTINGS)
VARIABLES: Final = ("micro_batch_size", "sequence_length", "rank")


@dataclass(frozen=True, slots=True)
class KeptStep:
    """One walked step: its set-up's number, its switches, and its rows `start` to `end` (exclusive) among the model's.

    `runs`: start and end within the step, the number of the size that is added, and how many times more.
    """

    set_up: int
    checkpointing: bool
    attention: str
    start: int
    end: int
    runs: list[tuple[int, int, int, int]]


@dataclass(frozen=True, slots=True)
class ModelSteps:
    """What is kept of one model: steps, each with those of its requests that can fail, in order.

    Attributes:
        sizes: distinct sizes as polynomials, shape (sizes, monomials).
        requests: label, category and phase of each distinct request; `size_of`: its size's number.
        resting: by set-up and optimizer the number of the size that is there before a step; empty where it is refused.
        request, added: of each row which request it is, and the number of the size by which more is alive before it than
            before the row above; of a step's first row, more than what rests.
        change, times: the size that is added each time that the row comes again, and how many times more it does.
        step: of each row the number of its step.
        ranges: of each step the least and the most batch, length and rank; `holds`: at which of `SETTINGS`, shape (steps, settings).
    """

    id: str
    sizes: Floats
    requests: list[tuple[str, str, str]]
    size_of: Places
    resting: list[list[int]]
    steps: list[KeptStep]
    request: Places
    added: Places
    change: Places
    times: Places
    step: Places
    ranges: list[list[list[int]]]
    holds: NDArray[np.bool_]

    def alive(self) -> Floats:
        """What is alive before each row, beside what rests; shape (rows, monomials)."""
        whole = np.cumsum(self.sizes[self.added], axis=0)
        starts = np.array([step.start for step in self.steps], dtype=np.intp)
        before = np.where((starts > 0)[:, None], whole[starts - 1], 0.0)
        found: Floats = whole - before[self.step]
        return found

    def arrays(self, number: int) -> StepArrays:
        """One step."""
        step = self.steps[number]
        rows = slice(step.start, step.end)
        runs = tuple(Repeats(start, end, self.sizes[change], times) for start, end, change, times in step.runs)
        return StepArrays(
            self.sizes[self.size_of[self.request[rows]]], np.cumsum(self.sizes[self.added[rows]], axis=0), runs
        )


@lru_cache(maxsize=1)
def kept_models() -> tuple[ModelSteps, ...]:
    """Every model of the table."""
    return tuple(_model(row) for row in rows())


def rows() -> list[dict[str, Any]]:
    """The table's lines as they were written."""
    return [json.loads(line) for line in lzma.decompress(TABLE.read_bytes()).decode().splitlines()]


def pack(found: list[dict[str, Any]]) -> None:
    """Write the table."""
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in found)
    TABLE.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def _model(row: Mapping[str, Any]) -> ModelSteps:
    sizes = np.zeros((len(row["sizes"]), len(MONOMIALS)))
    for number, pairs in enumerate(row["sizes"]):
        sizes[number, pairs[::2]] = pairs[1::2]
    steps: list[KeptStep] = []
    found: list[int] = []
    change, times, step, holds = [], [], [], []
    for number, (set_up, checkpointing, attention, ranges, remainders, pairs, runs) in enumerate(row["steps"]):
        start, count = len(found) // 2, len(pairs) // 2
        steps.append(KeptStep(set_up, bool(checkpointing), attention, start, start + count, runs))
        found += pairs
        step += [number] * count
        again = np.zeros((count, 2), dtype=np.intp)
        for first, last, size, more in runs:
            again[first:last] = size, more
        change.append(again[:, 0])
        times.append(again[:, 1])
        holds.append(_holds(ranges, remainders, SET_UPS[set_up].ranks))
    request, added = np.array(found, dtype=np.intp).reshape(-1, 2).T
    return ModelSteps(
        row["id"], sizes, [(label, category, phase) for label, category, phase, _ in row["requests"]],
        np.array([size for *_, size in row["requests"]], dtype=np.intp), row["resting"], steps, request, added,
        np.concatenate(change), np.concatenate(times), np.array(step, dtype=np.intp),
        [step[3] for step in row["steps"]], np.array(holds),
    )  # fmt: skip


def _holds(ranges: list[list[int]], remainders: Mapping[str, list[int]], ranks: tuple[int, ...]) -> NDArray[np.bool_]:
    """At which of `SETTINGS` a step holds and its set-up is tried."""
    low, high = np.array(ranges).T
    found: NDArray[np.bool_] = ((low <= _SETTINGS) & (high >= _SETTINGS)).all(axis=1) & np.isin(_SETTINGS[:, 2], ranks)
    for name, (modulus, left) in remainders.items():
        found &= _SETTINGS[:, VARIABLES.index(name)] % modulus == left
    return found
