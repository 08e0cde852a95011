"""Reinforcement learning with groups of completions: GRPO (DAPO and TRL's other `loss_type`s hold the same tensors), and RLOO.

Source: TRL 1.16.0 trainer/grpo_trainer.py, `_generate_and_score_completions`, `_compute_loss`, `_prepare_inputs`: a generation
serves several micro batches and stays, some bytes per token, until the last of them; advantages are a number per completion.
trainer/rloo_trainer.py, rloo_config.py: completions are always scored, by the reference too (`beta` is 0.05 where nothing is said).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from loralens.core.objectives.logprobs import log_probabilities, of_rows
from loralens.core.objectives.objective import BaseObjective
from loralens.core.objectives.rollouts import generated, judged, rows_of
from loralens.core.question.objectives import ON_THIS_CARD
from loralens.core.tape.size import SEQUENCE

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.objectives.passes import Passes
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.validity import Validity

_NO_ROLLOUT = (
    "rollout: not counted, since nothing is named that generates the completions; "
    "rollout=transformers, vllm, sglang or server names it"
)

_NO_REWARD_MODEL = (
    "reward: computed by functions, which take no memory on this card; reward_model names a model that does"
)


class GRPO(BaseObjective):
    """Rollout, log-probabilities before learning, the learner's pass. Without a reference unless one is named (beta 0)."""

    references: tuple[str, ...] = ("adapter", "copy")
    needs_reference = False
    generates = True

    def inputs(self, root: Root, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """Ids and mask of every completion that was generated with its prompt."""
        kept = SEQUENCE * (rows_of(recipe) * 8)
        return [("token ids", kept), ("attention mask of the batch", kept)]

    def loss(self, passes: Passes) -> Tensor:
        """Every phase before the learner's begins and ends with weights, states and the generation's ids alone."""
        before_learning(passes, scores_before(passes.recipe))
        passes.learns()
        return of_rows(passes.tape, log_probabilities(passes, passes.learn))

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What the phases leave out."""
        return left_out(recipe)


class RLOO(GRPO):
    """As GRPO; the completions are scored before learning, and a reference is there unless it is said to be absent (beta 0)."""

    references = ("adapter", "copy", "absent")
    needs_reference = True


def before_learning(passes: Passes, scoring: bool) -> None:
    """What a policy's iteration does with its completions before it learns from them."""
    recipe, t = passes.recipe, passes.tape
    if recipe.rollout.engine == "transformers":
        generated(passes)
    if "reward" in passes.beside:
        judged(passes)
    if scoring:
        passes.phase("old_logprobs")
        t.end(log_probabilities(passes, passes.score))
    where = recipe.objective.reference
    if where in ("adapter", "copy"):
        passes.phase("ref_logprobs")
        t.end(log_probabilities(passes, partial(passes.reference, where)))


def left_out(recipe: Recipe) -> list[str]:
    """What is said of every iteration with a rollout."""
    generating = [] if recipe.rollout.engine != "none" else [_NO_ROLLOUT]
    judging = [] if recipe.reward_model.model is not None else [_NO_REWARD_MODEL]
    return [*generating, *judging]


def scores_before(recipe: Recipe) -> bool:
    """Are the completions scored before the learner runs? TRL's GRPO does where another engine made them."""
    asked = recipe.objective.old_logprobs
    if recipe.objective.type == "rloo":
        return True
    return recipe.rollout.engine in (*ON_THIS_CARD, "server") if asked is None else asked
