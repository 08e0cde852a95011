"""PPO's value model, run for real: a number for each token, with gradients and an optimizer of its own.

Source: verl 0.7.0 workers/critic/dp_critic.py (`compute_values`, `update_critic`); transformers' `AutoModelForTokenClassification`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from loralens.core.question.model import resolve
from loralens.core.question.recipe import WORD, Recipe
from loralens.lab.measure.materialize import materialize


@dataclass(frozen=True, slots=True)
class Critic:
    """The value model beside a policy, with what updates it."""

    network: Any
    optimizer: Any
    trained: list[Any]
    recipe: Recipe

    @staticmethod
    def made(config: Mapping[str, Any], recipe: Recipe, device: torch.device) -> Critic:
        """With random weights on a device; `config`: the policy's, which it has where no other is named."""
        from loralens.lab.trace import build, optimizers

        asked = recipe.value
        if asked.model is not None:
            config = resolve(WORD["value_model"].kind.shown(asked.model)).config
        settings = build.read_config(config)
        settings.classifier_dropout = 0.0
        words = replace(
            recipe,
            weights_dtype=asked.weights_dtype or recipe.weights_dtype,
            quantization=None,
            trainable_layers=None,
            head="token_classification",
            num_labels=1,
        )
        network = materialize(build.adapt(build.build_on_meta(settings, words), asked.trains, words), device, words)
        network.train()
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        return Critic(network, optimizers.make(recipe.optimizer, trained), trained, recipe)

    def update(
        self, run: Callable[[], Tensor], values: Tensor, phase: Callable[[str], AbstractContextManager[Any]]
    ) -> None:
        """A whole step: `run` is the forward pass, `values` what it judged before. Shapes: both (rows, length, 1)."""
        with phase("critic_forward"):
            loss = (run() - values - 1).square().mean()
        with phase("critic_backward"):
            loss.backward()
        del loss
        with phase("critic_optimizer"):
            if self.recipe.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.trained, self.recipe.max_grad_norm)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
