"""Lengths of a user's samples: what batches of them take, how much of a padded batch is padding, and what packing saves.

Samples are drawn at random into batches, as a shuffled epoch does, and a batch is as long as its longest sample; samples above
`sequence_length` are cut to it. With F(l) the share of samples of at most l tokens, a batch of b is at most l long with F(l)^b.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from loralens.core.answer.estimate import Estimate, estimate_model
from loralens.core.errors import InvalidInput
from loralens.core.question.shapes import Pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loralens.core.answer.shapes import BatchOfLengths, Epoch, LengthsAnswer
    from loralens.core.catalogue import Gpu

MOST: Final = 100_000  # different lengths
MOST_TOKENS: Final = 16_777_216
PERCENTS: Final = (50.0, 90.0, 99.0, 99.9)
DRAWS: Final = 8
BATCHES: Final = 10
"""Of a simulated run, the longest batch of the epoch among them (assumption: what comes before shapes the cache, not how much)."""
SEED: Final = 20261130


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many samples there are of each length, shortest first; `shares`: F at each of them."""

    tokens: tuple[int, ...]
    samples: tuple[int, ...]
    shares: tuple[float, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        total = self.total
        object.__setattr__(self, "shares", tuple(so_far / total for so_far in accumulate(self.samples)))

    @staticmethod
    def read(given: Any) -> Lengths:
        """From pairs of tokens and samples, or an object that maps the one to the other.

        Raises:
            InvalidInput: no pairs of whole numbers in range.
        """
        pairs = list(given.items()) if isinstance(given, Mapping) else given
        if not isinstance(pairs, (list, tuple)) or not 0 < len(pairs) <= MOST:
            raise _wrong(f"1 to {MOST:,} pairs of tokens and samples", given)
        counts: dict[int, int] = {}
        for pair in pairs:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise _wrong("pairs of tokens and samples", pair)
            tokens, samples = (int(x) if isinstance(x, str) and x.isdecimal() and len(x) < 12 else x for x in pair)
            whole = all(isinstance(x, int) and not isinstance(x, bool) for x in (tokens, samples))
            if not whole or not 1 <= tokens <= MOST_TOKENS or not 1 <= samples <= 10**12:
                raise _wrong("whole numbers of tokens (from 1) and samples (from 1)", pair)
            counts[tokens] = counts.get(tokens, 0) + samples
        ordered = sorted(counts.items())
        return Lengths(tuple(tokens for tokens, _ in ordered), tuple(samples for _, samples in ordered))

    def cut(self, longest: int) -> Lengths:
        """With samples above the longest cut to it."""
        if self.tokens[-1] <= longest:
            return self
        return Lengths.read(
            [(min(tokens, longest), samples) for tokens, samples in zip(self.tokens, self.samples, strict=True)]
        )

    @property
    def total(self) -> int:
        """Samples."""
        return sum(self.samples)

    @property
    def all_tokens(self) -> int:
        """Tokens of all samples."""
        return sum(tokens * samples for tokens, samples in zip(self.tokens, self.samples, strict=True))

    def of_batch(self, share: float, batch: int) -> int:
        """The length that a batch does not pass with this probability."""
        at = bisect_left(self.shares, share ** (1 / batch))
        return self.tokens[min(at, len(self.tokens) - 1)]

    def padded_length(self, batch: int) -> float:
        """The mean length of a batch."""
        below, mean = 0.0, 0.0
        for tokens, share in zip(self.tokens, self.shares, strict=True):
            mean, below = mean + tokens * (share**batch - below), share**batch
        return mean

    def draw(self, batch: int, source: random.Random) -> int:
        """The length of one batch."""
        return self.of_batch(source.random(), batch)


def of_lengths(found: Estimate, lengths: Lengths, cards: Sequence[Gpu], *, simulated: bool) -> LengthsAnswer:
    """What batches of these samples take: by percentile, and the worst of an epoch, which holds the longest sample.

    `simulated`: with one card, run PyTorch's allocator over drawn batches, and say how many runs ended.
    """
    recipe = found.recipe
    longest, batch = recipe.sequence_length, recipe.micro_batch_size
    own = lengths.cut(longest)
    padded, rows = own.padded_length(batch), -(-own.all_tokens // longest)
    batches = -(-own.total // batch)
    chosen = [(percent, own.of_batch(percent / 100, batch)) for percent in PERCENTS] + [(100.0, own.tokens[-1])]
    answer: LengthsAnswer = {
        "samples": lengths.total,
        "tokens": own.all_tokens,
        "mean": own.all_tokens / own.total,
        "longest": lengths.tokens[-1],
        "cut": sum(
            samples for tokens, samples in zip(lengths.tokens, lengths.samples, strict=True) if tokens > longest
        ),
        "batches": [_batch(found, percent, length, cards) for percent, length in chosen],
        "padding": 1 - own.all_tokens / (padded * own.total),
        "packed_rows": rows,
        "packing_gain": padded * own.total / (rows * longest),
        "epoch_batches": batches,
    }
    if simulated and len(cards) == 1:
        answer["epoch"] = _epoch(found, own, batch, cards[0])
    return answer


def _batch(found: Estimate, percent: float, length: int, cards: Sequence[Gpu]) -> BatchOfLengths:
    padded = replace(found.recipe, sequence_length=length, padded=True)
    own = estimate_model(found.model, found.method, padded)
    needed = own.overhead.needed
    return {
        "percent": percent,
        "sequence_length": length,
        "allocated_bytes": own.allocated_bytes,
        "needed_bytes": Pair(list(needed)),
        "fits": [{"gpu": card.id, "verdict": own.on_card(card, needed).verdict} for card in cards],
    }


def _epoch(found: Estimate, lengths: Lengths, batch: int, card: Gpu) -> Epoch:
    """Runs of drawn batches, the epoch's longest at a random place among them, in what the card leaves to the pool."""
    from loralens.core.answer.card import CONTEXT_MEASURED, workspace_of
    from loralens.core.answer.reserved import recording
    from loralens.core.step import simulate
    from loralens.core.step.allocator import LimitReached

    recipe = replace(found.recipe, padded=True)
    program = recording(found.model, found.method, recipe)
    source, ended = random.Random(SEED), 0
    for _ in range(DRAWS):
        drawn = [lengths.draw(batch, source) for _ in range(BATCHES - 1)]
        drawn.insert(source.randrange(BATCHES), lengths.tokens[-1])
        covered = [length for length in drawn if program.validity.covers(batch, length, recipe.lora.rank)]
        try:
            simulate.run(
                program,
                covered or [lengths.tokens[-1]],
                batch=batch,
                rank=recipe.lora.rank,
                workspace_bytes=workspace_of(card.id),
                limit=card.memory_bytes - CONTEXT_MEASURED,
            )
        except LimitReached:
            continue
        ended += 1
    return {"runs": DRAWS, "batches": BATCHES, "ended": ended, "failing_share": 1 - ended / DRAWS}


def _wrong(allowed: str, given: Any) -> InvalidInput:
    return InvalidInput(
        f"lengths must be {allowed}, got {given!r:.60}",
        field="lengths",
        hint='try "lengths": [[512, 900], [2048, 100]]: 900 samples of 512 tokens, 100 of 2048',
    )
