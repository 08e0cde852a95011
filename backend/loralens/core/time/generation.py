"""Seconds of generating completions: prompts by arithmetic, every further token by what is read of weights and cache.

A token of all sequences takes the card's time for one pass over them with a length of one, and the reading of their keys and
values. An engine that replays graphs waits at least a kernel's least time for each; transformers' own loop waits for the
processor where that takes longer. Checked against published speeds: docs/accuracy-generation.md.

Leaves out: sampling beyond the logits, scheduling, completions that end earlier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralens.core.tape.size import monomial_values
from loralens.core.time.floats import added
from loralens.core.time.rates import Constants, GenerationRates, Speed
from loralens.core.time.step_time import larger, launches

if TYPE_CHECKING:
    from loralens.core.tape.work import WorkLog


@dataclass(frozen=True, slots=True)
class Completions:
    """What is generated: `rows` completions, so many `at_once`, and bytes of keys and values of all that are at it, half-way through."""

    rows: int
    at_once: int
    prompt: int
    completion: int
    rank: int
    cache_bytes: float
    queries_per_key: float
    replays: bool  # an engine that replays graphs, not transformers' own loop


def prompt_seconds(work: WorkLog, batch: Completions, speed: Speed, constants: Constants, host: float = 1.0) -> float:
    """The pass over all prompts."""
    card = card_seconds(work, (batch.rows, batch.prompt, batch.rank), speed)
    if batch.replays:
        return card
    waited: float = larger(card, host * launches(work) * constants.kernel_seconds)
    return waited


def token_seconds(
    work: WorkLog, batch: Completions, speed: Speed, constants: Constants, rates: GenerationRates, host: float = 1.0
) -> float:
    """One token of each of the sequences that are generated at once, half-way through their completions."""
    card = card_seconds(work, (batch.at_once, 1, batch.rank), speed)
    if batch.replays:
        return card + batch.cache_bytes / speed.bytes_per_second + launches(work) * rates.engine_kernel_seconds
    passes = rates.cache_passes + rates.cache_passes_per_query * batch.queries_per_key
    card += batch.cache_bytes * passes / speed.bytes_per_second
    waited: float = larger(card, host * launches(work) * constants.kernel_seconds)
    return waited


def card_seconds(work: WorkLog, at: tuple[int, int, int], speed: Speed) -> float:
    """The card's own time for a pass of so many rows and tokens."""
    values = monomial_values(*at)
    spent = []
    for _, _, rate, row in work.rows():
        flops = added([c * v for c, v in zip(row.flops, values, strict=True) if c])
        moved = added([c * v for c, v in zip(row.bytes, values, strict=True) if c])
        spent.append(speed.seconds(rate, flops, moved))
    total: float = added(spent)
    return total
