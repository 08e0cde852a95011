"""Names of endpoints and the functions that compute their answers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


COMPUTED: Final = {
    "memory": "loralens.core.answer.answers:memory_answer",
    "parameters": "loralens.core.answer.answers:parameters_answer",
    "plan": "loralens.core.answer.answers:plan_answer",
    "lifetimes": "loralens.core.answer.lifetimes:lifetimes_answer",
    "serving": "loralens.core.answer.serving:serving_answer",
    "fit": "loralens.planner.fit:fit_answer",
    "plans": "loralens.planner.plans:plans_answer",
    "ranks": "loralens.planner.ranks:ranks_answer",
    "sweep": "loralens.planner.sweep:sweep_answer",
    "check": "loralens.trainers.check:check_answer",
    "export": "loralens.trainers.export:export_answer",
    "explain": "loralens.trainers.explain:explain_answer",
}
"""POST /api/NAME: the body's answer. Imported when asked for."""
BY_QUERY: Final = ("memory", "parameters", "plan")
"""Those that a query string can ask too."""
BOUNDED: Final = frozenset({"memory", "lifetimes", "explain"})
"""Those that may walk every layer: they are told how many layer passes a request may cost (`core.answer.cost`)."""
MOST_PASSES: Final = 16_000  # about ten seconds


def compute(name: str, body: Any) -> Mapping[str, object]:
    """The answer of one endpoint to a body; raises `LoraLensError` where the question is at fault."""
    module, function = COMPUTED[name].split(":")
    limits = {"most_passes": MOST_PASSES} if name in BOUNDED else {}
    answer: Mapping[str, object] = getattr(import_module(module), function)(body, **limits)
    return answer


def compute_snapshot(path: Path, body: Any) -> Mapping[str, object]:
    """What is alive in a memory snapshot; `path` is of whoever calls, never of a client. Raises as `compute`."""
    from loralens.trainers.snapshot import snapshot_answer

    return snapshot_answer(path, body, most_passes=MOST_PASSES)


def import_all() -> None:
    """Import what the endpoints need, so that the first question does not wait for it."""
    for target in COMPUTED.values():
        import_module(target.partition(":")[0])
