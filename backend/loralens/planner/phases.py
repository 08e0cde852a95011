"""What is in memory at the fullest moment of each phase of a step, by category."""

from __future__ import annotations

from loralens.core.answer.estimate import BREAKDOWN, Estimate
from loralens.core.tape.ledger import CATEGORIES


def phase_breakdowns(found: Estimate) -> dict[str, dict[str, int]]:
    """Bytes by category for each phase; they add up to that phase's `peak_bytes`.

    The answer's own breakdown is that of the whole step's peak. This one shows what a phase holds that is not the
    fullest: the activations at the end of forward, the gradients at the end of backward.
    """
    fullest: dict[str, tuple[int, dict[str, int]]] = {}
    for moment in found.plan.moments:
        size = moment.total.at(*found.point)
        if size > fullest.get(moment.phase, (-1, {}))[0]:
            sizes = (part.at(*found.point) for part in moment.by_category())
            parts = dict(zip((BREAKDOWN[name] for name in CATEGORIES), sizes, strict=True))
            fullest[moment.phase] = (size, parts)
    return {phase: parts for phase, (_, parts) in fullest.items()}
