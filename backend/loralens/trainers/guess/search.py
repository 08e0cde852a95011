"""The search: of all kept steps those at which a request of the message's size comes when about as much is allocated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from loralens.core.answer.explain import formula
from loralens.core.step.allocator import MIN_BLOCK, MIN_LARGE_REQUEST, ROUND_LARGE
from loralens.core.tape.size import Size
from loralens.trainers.guess.index import ModelSteps, kept_models
from loralens.trainers.guess.set_ups import COMMON, OPTIMIZERS, SET_UPS, SETTINGS
from loralens.trainers.guess.steps import Floats, Places, monomials
from loralens.trainers.oom import OutOfMemoryText

if TYPE_CHECKING:
    from loralens.trainers.shapes import GuessedSetUp, GuessedTensor

MOST_TENSORS, MOST_SET_UPS = 5, 3
NEAR: Final = 6 << 20
"""Bytes. What was alive is known within it where the set-up is right: two decimals of a GiB, and what rounding adds."""
UNSPLIT: Final = 0.06
UNSPLIT_BYTES: Final = 48 << 20
"""Assumption: more than that by some 48 MiB is about so likely. A block whose rest is below 1 MiB is handed out whole; of 250
made-up messages a fifth said more than was asked for, by 6 to 280 MiB."""
FARTHEST: Final = 1 << 28
"""Bytes. Where nothing is near, the nearest within this count: a set-up that was not tried has neighbours that were."""
LEAST: Final = 1e-3
RARE: Final = 0.25
"""Assumption: how usual a model is that is not among `COMMON`, and the eager kernel."""
USUAL_TOKENS: Final = 2048
FEWER: Final = 0.6
"""Assumption: how usual twice or half as many tokens are."""
_VALUES: Final = monomials(SETTINGS)
_TOKENS: Final = np.array([batch * length for batch, length, _ in SETTINGS])


@dataclass(frozen=True, slots=True)
class Guessed:
    """Tensors, the likeliest first; `models`: how many were looked at."""

    tensors: list[GuessedTensor]
    models: int


@dataclass(frozen=True, slots=True)
class _Found:
    """Candidates of one model; every array has one entry for each.

    Attributes:
        row: which request of which step; `setting`, `optimizer`: where.
        again: for which time more it comes. `alive`: bytes alive before it then.
    """

    model: ModelSteps
    row: Places
    setting: Places
    optimizer: Places
    again: Floats
    alive: Floats
    weight: Floats


def guessed(message: OutOfMemoryText) -> Guessed:
    """Tensors of this size, the likeliest first, each with its share of all that speaks for any and the set-ups that have it.

    What was allocated decides among set-ups; where the message does not say it, only common models are looked at.
    """
    models = kept_models()
    if message.allocated_bytes is None:
        models = tuple(model for model in models if model.id in COMMON)
    placed = [one for model in models if (one := _placed(model, message)) is not None]
    found: list[_Found] = []
    for nearness in (_near, _far):
        found = [one for each in placed if (one := _weighed(each, message, nearness)) is not None]
        if found:
            break
    sums: dict[tuple[str, str, str], float] = {}
    for each in found:
        by_request = np.bincount(each.model.request[each.row], each.weight)
        for request in np.flatnonzero(by_request).tolist():
            name = each.model.requests[request]
            sums[name] = sums.get(name, 0.0) + float(by_request[request])
    total = sum(sums.values())
    likeliest = sorted(sums, key=lambda name: -sums[name])[:MOST_TENSORS]
    return Guessed([_tensor(name, sums[name] / total, found) for name in likeliest], len(models))


def _placed(model: ModelSteps, message: OutOfMemoryText) -> _Found | None:
    """Every row of the message's size at every setting where its step holds; of its times the nearest."""
    fits = _prints_alike(model.sizes[model.size_of] @ _VALUES, message)
    some: NDArray[np.bool_] = np.logical_or.reduce(fits, axis=1)
    rows = np.flatnonzero(some[model.request])
    which, setting = np.nonzero(fits[model.request[rows]] & model.holds[model.step[rows]])
    row = rows[which]
    if not row.size:
        return None
    values, polynomials = _VALUES[:, setting].T, model.alive()
    alive = np.einsum("ij,ij->i", polynomials[row], values)
    change = np.einsum("ij,ij->i", model.sizes[model.change[row]], values)
    resting = np.array([[model.sizes[size] for size in sizes] or np.full((len(OPTIMIZERS), len(_VALUES)), np.nan)
                        for sizes in model.resting])  # fmt: skip
    set_ups = np.array([step.set_up for step in model.steps])[model.step[row]]
    alive = alive[:, None] + np.einsum("ikj,ij->ik", resting[set_ups], values)
    held, again = message.allocated_bytes, np.zeros(alive.shape)
    if held is not None:
        wanted = np.divide(held - alive, change[:, None], out=again, where=change[:, None] > 0)
        again = np.clip(np.rint(wanted), 0, model.times[row][:, None])
        alive = alive + again * change[:, None]
        kept = np.abs(alive - held) < FARTHEST
    else:
        kept = alive <= (message.capacity_bytes or np.inf)
    entry, optimizer = np.nonzero(kept)
    return _Found(model, row[entry], setting[entry], optimizer, again[kept], alive[kept], np.zeros(len(entry)))


def _weighed(found: _Found, message: OutOfMemoryText, nearness: Callable[[Floats], Floats]) -> _Found | None:
    """Those that are near enough, and can fail: how likely each is among all, but for one factor.

    On a card of any size, of one step the request fails which the card's end falls into. Another set-up is as likely as it is
    usual: some 2048 tokens, SDPA, AdamW, a common model.
    """
    model, held = found.model, message.allocated_bytes
    near = np.ones(len(found.row)) if held is None else nearness(held - found.alive)
    usual = FEWER ** np.abs(np.log2(_TOKENS[found.setting] / USUAL_TOKENS))
    rare = np.array([RARE if step.attention == "eager" else 1.0 for step in model.steps])
    usual *= rare[model.step[found.row]] * np.array([*OPTIMIZERS.values()])[found.optimizer]
    weight = near * usual * (1.0 if model.id in COMMON else RARE)
    for number in np.unique(model.step[found.row[near > 0]]).tolist():
        ours = np.flatnonzero((model.step[found.row] == number) & (near > 0))
        settings, column = np.unique(found.setting[ours], return_inverse=True)
        moments = model.arrays(number).at(_VALUES[:, settings])
        exceeds = moments.exceeds(found.row[ours] - model.steps[number].start, column, found.again[ours])
        weight[ours] *= np.maximum(0.0, exceeds) / np.maximum(1.0, moments.most[column])
    kept = np.flatnonzero(weight > 0)
    if not kept.size:
        return None
    return _Found(model, found.row[kept], found.setting[kept], found.optimizer[kept], found.again[kept],
                  found.alive[kept], weight[kept])  # fmt: skip


def _near(more: Floats) -> Floats:
    """How likely a message says so many bytes more than is alive; 0: not at all."""
    away = np.maximum(0.0, np.abs(more) - NEAR)
    near = np.maximum(np.exp(-4 * away / NEAR), (more > 0) * UNSPLIT * np.exp(-away / UNSPLIT_BYTES))
    return np.where(near > LEAST, near, 0.0)


def _far(more: Floats) -> Floats:
    return np.exp(-np.abs(more) / UNSPLIT_BYTES)


def _prints_alike(sizes: Floats, message: OutOfMemoryText) -> NDArray[np.bool_]:
    """Sizes whose segment lies within what the printed figure stands for."""
    blocks = np.ceil(sizes / MIN_BLOCK) * MIN_BLOCK
    segments = np.ceil(blocks / ROUND_LARGE) * ROUND_LARGE
    fits = (blocks >= MIN_LARGE_REQUEST) & (segments >= message.tried.low) & (segments <= message.tried.high)
    found: NDArray[np.bool_] = fits
    return found


def _tensor(name: tuple[str, str, str], share: float, found: list[_Found]) -> GuessedTensor:
    """One tensor with the set-ups that speak most for it, one of each model, method and shape."""
    ranked = sorted(_ranked(name, found), key=lambda one: -one[0])
    set_ups: dict[tuple[object, ...], GuessedSetUp] = {}
    for _, each, place in ranked:
        row = _set_up(each, place)
        key = (row["model"], row["method"], row["micro_batch_size"], row["sequence_length"])
        if len(set_ups) < MOST_SET_UPS:
            set_ups.setdefault(key, row)
    _, first, place = ranked[0]
    model = first.model
    size = Size(int(value) for value in model.sizes[model.size_of[model.request[first.row[place]]]])
    label, category, phase = name
    return {"name": label, "category": category, "phase": phase, "bytes": size.at(*SETTINGS[first.setting[place]]),
            "formula": formula(size), "share": share, "set_ups": [*set_ups.values()]}  # fmt: skip


def _ranked(name: tuple[str, str, str], found: list[_Found]) -> Iterator[tuple[float, _Found, int]]:
    """Of each model those candidates of a tensor that weigh most."""
    for each in found:
        if name not in each.model.requests:
            continue
        named = np.array([request == name for request in each.model.requests])[each.model.request[each.row]]
        places = np.flatnonzero(named)
        for place in places[np.argsort(-each.weight[places])][: 4 * MOST_SET_UPS].tolist():
            yield float(each.weight[place]), each, place


def _set_up(found: _Found, place: int) -> GuessedSetUp:
    batch, length, rank = SETTINGS[found.setting[place]]
    step = found.model.steps[found.model.step[found.row[place]]]
    set_up = SET_UPS[step.set_up]
    return {"model": found.model.id, "method": set_up.method, "micro_batch_size": batch, "sequence_length": length,
            "rank": rank if set_up.method != "full" else None, "optimizer": [*OPTIMIZERS][found.optimizer[place]],
            "gradient_checkpointing": step.checkpointing, "attention": step.attention,
            "alive_bytes": round(float(found.alive[place]))}  # fmt: skip
