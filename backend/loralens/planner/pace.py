"""How long a number of tokens takes, on a GPU whose rate is known or on known ones with as much memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core import catalogue
from loralens.core.catalogue import ON_DEMAND, Gpu
from loralens.planner.network import compute_dtype
from loralens.planner.question import Question
from loralens.planner.time import training_time, withheld

if TYPE_CHECKING:
    from loralens.planner.shapes import AlikeTime


SHOWN: Final = 4
GIB: Final = 2**30


def pace(question: Question, device: Gpu, tokens: int, market: str = ON_DEMAND) -> list[AlikeTime]:
    """GPU hours for that many tokens, with their band: of the device, or of the cards with as much memory, the slowest first.

    A card that is described by its memory alone has no rate, and none is invented for it. Empty where the time is `withheld`.

    Raises:
        UnsupportedArchitecture: the model's operations per token are not known.
    """
    if withheld(question, device):
        return []
    dtype = compute_dtype(question.recipe)
    cards = [device] if device.dense_flops_per_second.get(dtype) else _alike(device, dtype)
    rows: list[AlikeTime] = []
    for card in _spread(cards):
        found = training_time(question, card, tokens, market=market)
        price = next(iter(found["cost"]), None)
        cost = None if price is None else price["expected_usd"]
        rows.append({"gpu": card.id, "name": card.name, **found["gpu_hours"], "expected_usd": cost})
    return sorted(rows, key=lambda row: -(row["expected"] or 0))


def _spread(cards: list[Gpu]) -> list[Gpu]:
    """At most `SHOWN` of them, from the slowest to the fastest."""
    if len(cards) <= SHOWN:
        return cards
    return [cards[round(step * (len(cards) - 1) / (SHOWN - 1))] for step in range(SHOWN)]


def _alike(device: Gpu, dtype: str) -> list[Gpu]:
    """The known NVIDIA cards of this size, the slowest first."""
    size = round(device.memory_bytes / GIB)
    cards = [
        card
        for card in catalogue.gpus()
        if card.vendor == "NVIDIA" and card.marketing_memory_gb == size and card.dense_flops_per_second.get(dtype)
    ]
    return sorted(cards, key=lambda card: card.dense_flops_per_second[dtype] or 0)
