"""LoRA Lens: what fine-tuning costs in memory, time and money, explained byte by byte.

Everything here is loaded when it is first used: `import loralens` costs nothing, and no name here needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loralens.core.answers import Estimate, estimate, memory_answer, parameters_answer, plan_answer

__version__ = "0.1.0"
__all__ = ["Estimate", "__version__", "estimate", "memory_answer", "parameters_answer", "plan_answer"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'loralens' has no attribute {name!r}")
    from loralens.core import answers

    return getattr(answers, name)
