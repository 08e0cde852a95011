"""LoRA Lens: what fine-tuning costs in memory, time and money, explained byte by byte.

Everything here is loaded when it is first used: `import loralens` costs nothing, and no name but Watch needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loralens.core.answer.answers import memory_answer, parameters_answer, plan_answer
    from loralens.core.answer.estimate import Estimate, estimate
    from loralens.samples import sample_lengths

    Watch: type[Any]  # loralens.lab.watch.Watch: named, since what everything imports stands above no layer

__version__ = "0.1.0"

_HOMES = {
    "Estimate": "loralens.core.answer.estimate",
    "Watch": "loralens.lab.watch",
    "estimate": "loralens.core.answer.estimate",
    "memory_answer": "loralens.core.answer.answers",
    "parameters_answer": "loralens.core.answer.answers",
    "plan_answer": "loralens.core.answer.answers",
    "sample_lengths": "loralens.samples",
}
__all__ = [
    "Estimate", "Watch", "__version__", "estimate", "memory_answer", "parameters_answer", "plan_answer", "sample_lengths",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'loralens' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
