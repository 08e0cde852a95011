"""Write the table of steps that messages are compared with: python -m loralens.trainers.guess.build [MODEL …]; all if none is named.

A walk of every set-up of every model takes minutes, so it is done once and kept: of each step the requests that can fail at some
batch, length and rank, with what is alive before them. Tests walk some of them again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from loralens.core import catalogue
from loralens.core.answer.asked import AskedStep, asked_step, resting
from loralens.core.errors import LoraLensError
from loralens.core.question.model import named
from loralens.core.tape.size import Size
from loralens.trainers.guess.index import pack, rows
from loralens.trainers.guess.set_ups import COMMON, OPTIMIZERS, SET_UPS, SHAPES, WALKED, SetUp
from loralens.trainers.guess.steps import Repeats, StepArrays, monomials

TOO_LONG: Final = ("jamba-v0.1",)
"""Its scan is walked chunk by chunk, for minutes."""


class _Numbers:
    """Numbers things in the order in which they come."""

    def __init__(self) -> None:
        self.found: dict[Any, int] = {}

    def of(self, one: Any) -> int:
        """The number of one."""
        return self.found.setdefault(one, len(self.found))


def row(id_: str) -> dict[str, Any]:
    """One model's line: distinct sizes, requests, what rests by set-up and optimizer, and the steps."""
    sizes, requests = _Numbers(), _Numbers()
    rested: list[list[int]] = []
    steps: list[list[Any]] = []
    for number, set_up in enumerate(SET_UPS):
        try:
            rest = [resting(named(id_), set_up.method, set_up.recipe({}, SHAPES[0], 8, one)) for one in OPTIMIZERS]
        except LoraLensError:
            rested.append([])
            continue
        rested.append([sizes.of(one) for one in rest])
        for attention in set_up.attentions:
            for checkpointing in (True, False):
                words = {"gradient_checkpointing": checkpointing, "attention": attention}
                for step in _walks(id_, set_up, words):
                    steps.append([number, int(checkpointing), attention, *_short(step, rest[0], sizes, requests)])
    return {
        "id": id_,
        "sizes": [[each for place, value in enumerate(one) if value for each in (place, value)] for one in sizes.found],
        "requests": [list(one) for one in requests.found],
        "resting": rested,
        "steps": steps,
    }


def _walks(id_: str, set_up: SetUp, words: dict[str, Any]) -> Iterator[AskedStep]:
    done: list[AskedStep] = []
    for shape in WALKED:
        if any(step.validity.covers(*shape, 8) for step in done):
            continue
        try:
            step = asked_step(named(id_), set_up.method, set_up.recipe(words, shape, 8, next(iter(OPTIMIZERS))))
        except LoraLensError:
            return
        done.append(step)
        yield step


def _short(step: AskedStep, rest: Size, sizes: _Numbers, requests: _Numbers) -> list[Any]:
    """Where it holds, its requests that can fail (which, and by what more is alive than before the one before), and its runs."""
    covered = [(*shape, rank) for shape in SHAPES for rank in (8, 64) if step.validity.covers(*shape, rank)]
    kept = _can_fail(step, covered)
    found, alive = [], rest
    for place in kept:
        one = step.requests[place]
        found += [requests.of((one.label, one.category, one.phase, sizes.of(one.size))), sizes.of(one.alive - alive)]
        alive = one.alive
    places = np.array(kept)
    runs = [
        [
            int(np.searchsorted(places, run.start)),
            int(np.searchsorted(places, run.end)),
            sizes.of(run.change),
            run.times,
        ]
        for run in step.repeated
    ]
    validity = step.validity
    return [[*validity.ranges.values()], {key: [*rest] for key, rest in validity.remainders.items()}, found, runs]


def _can_fail(step: AskedStep, settings: list[tuple[int, int, int]]) -> list[int]:
    """Those that exceed all before them at some setting: where the card ends between the two, it is they that fail."""
    arrays = StepArrays(
        np.array([list(one.size) for one in step.requests], dtype=np.float64),
        np.array([list(one.alive) for one in step.requests], dtype=np.float64),
        tuple(
            Repeats(one.start, one.end, np.array(list(one.change), dtype=np.float64), one.times)
            for one in step.repeated
        ),
    )
    if not settings:
        return []
    moments = arrays.at(monomials(settings))
    fails = (moments.first > 0) | ((moments.times > 0) & (moments.after > moments.below))
    return [int(place) for place in np.flatnonzero(fails.any(axis=1))]


def models() -> list[str]:
    """Of the catalogue's models of one shape the first, those first that are fine-tuned most."""
    seen, found = set(), []
    for id_ in (*COMMON, *(entry.id for entry in catalogue.models())):
        shape = json.dumps({k: v for k, v in catalogue.entry(id_).config.items() if k not in UNSHAPED}, sort_keys=True)
        if id_ not in TOO_LONG and shape not in seen:
            seen.add(shape)
            found.append(id_)
    return found


UNSHAPED: Final = {
    "_name_or_path", "torch_dtype", "dtype", "transformers_version", "max_position_embeddings", "rope_theta", "rope_scaling",
    "rope_parameters", "bos_token_id", "eos_token_id", "pad_token_id", "initializer_range", "use_cache", "rms_norm_eps",
    "layer_norm_eps",
}  # fmt: skip
"""Keys of a config that no size depends on, at the lengths looked at."""


def main(asked: Iterable[str]) -> None:
    """Write the table; of named models only their lines anew."""
    wanted = list(asked)
    kept = {one["id"]: one for one in rows()} if wanted else {}
    for id_ in wanted or models():
        kept[id_] = row(id_)
        print(id_, len(kept[id_]["steps"]), flush=True)
    pack([kept[id_] for id_ in (models() if not wanted else kept)])


if __name__ == "__main__":
    main(sys.argv[1:])
