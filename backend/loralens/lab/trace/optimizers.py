"""The real optimizer of each of the recipe's words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from loralens.core.errors import InvalidInput

_RATE = 1e-4


def make(name: str, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimizer over these parameters."""
    chosen: list[Any] = list(parameters)
    if name in ("adamw_fused", "adamw_foreach", "adamw_loop"):
        how = name.removeprefix("adamw_")
        return torch.optim.AdamW(chosen, lr=_RATE, fused=how == "fused" or None, foreach=how == "foreach" if how != "fused" else None)
    if name in ("sgd", "sgd_momentum"):
        return torch.optim.SGD(chosen, lr=_RATE, momentum=0.9 if name == "sgd_momentum" else 0.0)
    raise InvalidInput(f"optimizer {name} cannot be traced", field="recipe.optimizer")
