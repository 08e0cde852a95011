"""Does a card hold a step, and the engine that generates beside it? Which share of the card lets both fit?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from loralens.core.answer.shapes import IterationCard
    from loralens.core.catalogue import Gpu
    from loralens.planner.question import Question
    from loralens.planner.shapes import AdvisedChange

SHARES: Final = {"vllm": "gpu_memory_utilization", "sglang": "mem_fraction_static"}
KEY: Final = "engine_share"
WHY: Final = (
    "With this share the engine has room for its weights and one sequence, and the model that learns for its peak."
)


def fits_card(question: Question, device: Gpu) -> bool:
    """Memory covers the step to be safe, and what stands beside it: an engine, an evaluation, what a machine says it has."""
    found = question.estimate()
    if found.overhead.needed[1] > device.memory_bytes or not found.holds_media:
        return False
    if any(one.verdict != "fits" for one in found.moments.beside(device)):
        return False
    card = _card(question, device)
    return card is None or card["verdict"] == "fits"


def share_change(question: Question, device: Gpu) -> AdvisedChange | None:
    """The nearest share with which step and engine fit; None where the asked one does, or none does."""
    card = _card(question, device)
    if card is None or card["verdict"] == "fits" or card["utilization"] is None:
        return None
    field, found = SHARES[question.recipe.rollout.engine], question.estimate()
    asked, band = question.get(field), card["utilization"]
    return {
        "field": field,
        "from": asked,
        "to": min(max(asked, band["least"]), band["most"]),
        "cost": "none",
        "why": {"key": KEY, "en": WHY},
        "saves_bytes": 0,
        "peak_allocated_bytes": found.allocated_bytes,
        "needed_bytes": found.overhead.needed[1],
        "fits": True,
        "time_ratio": None,
    }


def _card(question: Question, device: Gpu) -> IterationCard | None:
    """What is said of engine and learner on this card; None where no engine stands on it."""
    if question.recipe.rollout.engine not in SHARES:
        return None
    found = question.estimate().iteration([device.id])
    return found["cards"][0] if found and found["cards"] else None
