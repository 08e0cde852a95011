"""A reward model: one number for each row, learned from which of two rows was preferred.

Source: TRL 1.16.0 trainer/reward_trainer.py, `compute_loss`: chosen rows stacked on rejected ones in one pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.heads import REWARD
from loralens.core.objectives.objective import BaseObjective
from loralens.core.tape.size import TOKENS

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.objectives.passes import Passes
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.validity import Validity


class Reward(BaseObjective):
    """The loss touches one number per row, as the head's own does."""

    rows = 2
    head = REWARD
    reads_head = False

    def inputs(self, root: Root, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """No labels: which row was preferred follows from its place."""
        return [
            (name, TOKENS * 8) for name in ("token ids", *(["attention mask of the batch"] if recipe.padded else []))
        ]

    def loss(self, passes: Passes) -> Tensor:
        """One pass."""
        return passes.learn()
