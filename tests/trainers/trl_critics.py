"""Proximal policy optimization on fake tensors: verl's own critic beside a policy in TRL's own code. See `trl_objective_traces.py`.

verl's classes are called unbound, on an object with what they read (0.7.0, which asks transformers for a name that 5 has renamed);
the order of the passes is that of its trainer (`trainer/ppo/ray_trainer.py`, `fit`), transcribed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import transformers
from trainers.trl_bare import prepared
from trainers.trl_learners import Grpo

from loralens.core.question.model import resolve
from loralens.core.question.recipe import WORD, Recipe
from loralens.lab.trace import build, optimizers


class Ppo(Grpo):
    """A value model with passes, gradients and an optimizer of its own."""

    def beside(self) -> dict[str, Any]:
        asked = self.recipe.value
        config = build.read_config(self._config(asked.model, "value_model"))
        config.num_labels, config.classifier_dropout = 1, 0.0
        plain = Recipe(weights_dtype=asked.weights_dtype or self.recipe.weights_dtype)
        dtype = build.DTYPES[plain.weights_dtype]
        with torch.device("meta"):
            made = transformers.AutoModelForTokenClassification.from_config(
                config, dtype=dtype, attn_implementation="sdpa"
            )
        if self.recipe.gradient_checkpointing:
            made.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if asked.trains == "lora":
            made = build.adapt(made, "lora", self.recipe)
        found = {**super().beside(), "value": made}
        judge = self.recipe.reward_model
        if judge.model is not None:
            words = Recipe(weights_dtype=judge.weights_dtype, head="reward", num_labels=1)
            found["reward"] = build.build_on_meta(build.read_config(self._config(judge.model, "reward_model")), words)
            found["reward"].requires_grad_(False)
        return found

    def _config(self, model: Any, word: str) -> dict[str, Any]:
        if model is None:
            return self.config
        return dict(resolve(WORD[word].kind.shown(model)).config)

    def setup(self, model: Any, others: dict[str, Any]) -> None:
        transformers.AutoModelForVision2Seq = transformers.AutoModelForImageTextToText
        made = import_module("verl.workers.critic.dp_critic").DataParallelPPOCritic
        super().setup(model, others)
        self.value, self.judge = others["value"].train(), others.get("reward")
        if self.judge is not None:
            prepared(self.judge, self.recipe.autocast)
        self.critic = made.__new__(made)
        vars(self.critic).update(
            critic_module=self.value, use_remove_padding=False, ulysses_sequence_parallel_size=1, device_name="cuda"
        )
        self.trained = [parameter for parameter in self.value.parameters() if parameter.requires_grad]
        self.optimizer = optimizers.make(self.recipe.optimizer, self.trained)
        with self.ledger.naming("optimizer_state", "optimizer of the value model"):
            for parameter in self.trained:
                parameter.grad = torch.empty_like(parameter)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    @staticmethod
    def _joined(batch: dict[str, torch.Tensor], what: str) -> torch.Tensor:
        return torch.cat([batch[f"prompt_{what}"], batch[f"completion_{what}"]], dim=1)

    def loss(self, batch: dict[str, torch.Tensor], begin: Callable[[str], None]) -> torch.Tensor:
        rows, completion = batch["completion_ids"].shape
        if self.judge is not None:
            begin("rewards")
            with torch.no_grad():
                given = {"input_ids": self._joined(batch, "ids"), "attention_mask": self._joined(batch, "mask")}
                self.judge(**given, use_cache=False)
            del given
        self.scored(batch, begin)
        ids = self._joined(batch, "ids")
        seen = {
            "input_ids": ids,
            "attention_mask": self._joined(batch, "mask"),
            "position_ids": torch.ones_like(ids),
            "responses": batch["completion_ids"],
        }
        begin("values")
        with torch.no_grad():
            values = self.critic._forward_micro_batch(seen)
        begin("critic_forward")
        found = self.critic._forward_micro_batch(seen)
        algorithms = import_module("verl.trainer.ppo.core_algos")
        loss, _ = algorithms.compute_value_loss(
            vpreds=found, values=values, returns=torch.ones((rows, completion), device="cuda"),
            response_mask=batch["completion_mask"], cliprange_value=0.5, loss_agg_mode="token-mean",
        )  # fmt: skip
        del found
        begin("critic_backward")
        loss.backward()
        del loss
        begin("critic_optimizer")
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        del seen, ids
        begin("forward")
        learned: torch.Tensor = self.trainer._compute_loss(self.model, batch)
        return learned
