"""Proximal policy optimization: a policy, and a value model that learns how good its completions will be.

Source: verl 0.8.0.dev @b178a3cd56f5 trainer/ppo/ray_trainer.py (`fit`: old and reference log-probabilities, values, then the critic's update
and the actor's), workers/critic/dp_critic.py (`compute_values`, `update_critic`); TRL 1.12.0 experimental/ppo/ppo_trainer.py (`train`,
`PolicyAndValueWrapper`), which has one loss for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.objectives.logprobs import log_probabilities, of_rows
from loralens.core.objectives.policy import GRPO, before_learning, left_out
from loralens.core.objectives.rollouts import scores
from loralens.core.objectives.together import learned_together

if TYPE_CHECKING:
    from loralens.core.objectives.passes import Passes
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor

_TOGETHER = (
    "value_together: as TRL 1.12's loop, in which loss has no effect (logits are whole) and the scores of every generated token stay in "
    "float32 until the next rollout is over"
)


class PPO(GRPO):
    """As GRPO; beside it the value model judges every token and learns, before the policy does or in one loss with it."""

    references = ("adapter", "copy", "absent")
    needs_reference = True
    values = True

    def loss(self, passes: Passes) -> Tensor:
        """The value model's own update is over before the policy's begins, unless they learn together."""
        t, value = passes.tape, passes.value
        assert value is not None  # assembled with the policy
        if passes.recipe.value.together:
            return learned_together(passes)
        before_learning(passes, passes.recipe.objective.old_logprobs is not False)
        passes.phase("values")
        t.end(passes.judge(scores))
        passes.updates(value, lambda: of_rows(t, passes.learn(scores, other=value)))
        passes.learns()
        return of_rows(t, log_probabilities(passes, passes.learn))

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What the counts and the phases leave out."""
        together = [_TOGETHER] if recipe.value.together else []
        return [
            *together,
            "the value model is no part of the parameters and files counted here: its weights, gradients and states are in the bytes",
            *left_out(recipe),
        ]
