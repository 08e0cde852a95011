"""Which objective a recipe names: another one is a file and its row here, beside its name in `question.objectives`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.objectives.critics import PPO
from loralens.core.objectives.distillation import Distillation
from loralens.core.objectives.embeddings import Contrastive
from loralens.core.objectives.objective import BaseObjective, Supervised
from loralens.core.objectives.odds import ORPO, SimPO
from loralens.core.objectives.policy import GRPO, RLOO
from loralens.core.objectives.preferences import DPO, KTO
from loralens.core.objectives.rewards import Reward

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe

_OBJECTIVES: Final[dict[str, BaseObjective]] = {
    "sft": Supervised(),
    "dpo": DPO(),
    "kto": KTO(),
    "orpo": ORPO(),
    "cpo": ORPO(),
    "simpo": SimPO(),
    "reward": Reward(),
    "distillation": Distillation(),
    "contrastive": Contrastive(),
    "grpo": GRPO(),
    "rloo": RLOO(),
    "ppo": PPO(),
}


def objective_of(recipe: Recipe) -> BaseObjective:
    """The recipe's objective."""
    return _OBJECTIVES[recipe.objective.type]
