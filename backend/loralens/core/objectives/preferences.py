"""Learning from preferences against a reference: DPO on pairs, KTO on single judged samples.

Source: TRL 1.16.0 trainer/dpo_trainer.py and kto_trainer.py, `_compute_loss`, `_compute_kl_logps`; how the loss weighs the
rows (sigmoid, hinge, IPO, APO …) touches one number per row.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from loralens.core.objectives.logprobs import log_probabilities, of_rows, preference_inputs
from loralens.core.objectives.objective import BaseObjective
from loralens.core.objectives.precompute import NOT_COUNTED, precomputed
from loralens.core.question.objectives import DIVIDED

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.objectives.passes import Passes
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.validity import Validity

REFERENCES: Final = ("adapter", "copy", "precomputed")


def referred(passes: Passes) -> None:
    """The reference's log-probabilities, made while what the policy kept for backward is alive."""
    where = passes.recipe.objective.reference
    if where == "precomputed":
        return
    passes.tape.end(log_probabilities(passes, partial(passes.reference, where)))


def before_training(passes: Passes, rows: int) -> None:
    """The reference's pass over the whole data set, where it is precomputed."""
    if passes.recipe.objective.reference == "precomputed":
        precomputed(passes, rows)


class Referred(BaseObjective):
    """What learns against a reference."""

    references = REFERENCES

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What is not counted."""
        divided = recipe.objective.reference == "precomputed" and recipe.parallelism.strategy in DIVIDED
        return [NOT_COUNTED] if divided else []


class DPO(Referred):
    """Pairs of a chosen and a rejected row, stacked in one pass of the policy; then the reference."""

    rows = 2

    def inputs(self, root: Root, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """As the collator makes them."""
        return preference_inputs(recipe.padded)

    def loss(self, passes: Passes) -> Tensor:
        """The policy's pass comes first; where the reference is precomputed, its pass was before training."""
        before_training(passes, self.rows)
        scores = log_probabilities(passes, passes.learn)
        passes.phase("reference")
        referred(passes)
        return of_rows(passes.tape, scores)


class KTO(Referred):
    """Rows judged one by one, and as many mismatched ones whose mean says how far the policy has moved."""

    def inputs(self, root: Root, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """Those of the mismatched rows too."""
        return [*preference_inputs(recipe.padded), *preference_inputs(recipe.padded)]

    def loss(self, passes: Passes) -> Tensor:
        """Mismatched rows first, without gradients; the reference scores both kinds."""
        before_training(passes, self.rows)
        t = passes.tape
        mismatched = log_probabilities(passes, passes.score)
        scores = log_probabilities(passes, passes.learn)
        passes.phase("reference")
        referred(passes)
        referred(passes)
        t.end(mismatched)
        return of_rows(t, scores)
