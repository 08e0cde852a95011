"""What is said of an engine that stands beside the learner on one card: its share, and what that holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from loralens.core.answer.shapes import IterationCard, MemoryEstimate

SHARES: Final = {"card": "vLLM's share of the card", "free": "SGLang's share of what is free"}
ASKED: Final = {"card": "utilization", "free": "mem_fraction_static"}


def band(card: IterationCard) -> str:
    """The shares with which both fit."""
    found = card["utilization"]
    return f"{found['least']} to {found['most']}" if found else "none fits"


def rows_held(card: IterationCard) -> str:
    """Whole rows whose keys and values the asked share holds, low and high."""
    return " to ".join(map(str, dict.fromkeys(card["sequences"])))


def engine_sentence(estimate: MemoryEstimate) -> str | None:
    """The asked share, those that fit and the rows that it holds; None where no engine stands on a single card."""
    found = estimate.get("iteration")
    if found is None or found["engine"] is None or len(found["cards"]) != 1:
        return None
    (card,), kind = found["cards"], found["engine"]["share_of"]
    asked = estimate["recipe"]["rollout"][ASKED[kind]]
    fits = f"{band(card)} fits beside the model that learns" if card["utilization"] else "none fits"
    return f"{SHARES[kind]}: {asked:g} asked, {fits}; rows that it holds: {rows_held(card)}{'' if card['sequences'][1] else ': it cannot start'}."
