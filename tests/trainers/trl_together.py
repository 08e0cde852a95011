"""TRL's own PPO on fake tensors: one loss for policy and value model. See `trl_objective_traces.py`.

`PPOTrainer.train` of TRL 1.12.0, the last version that has it, runs unbound for two updates, the second of which is in steady state. What
it does not run is generation: `generate` hands over what transformers' would, the scores of every token and the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from trainers.trl_bare import prepared
from trainers.trl_learners import Objective

from loralens.core.question.model import resolve
from loralens.core.question.recipe import WORD, Recipe
from loralens.lab.trace import build, optimizers

FIRST = "first update: "
PLACE = "trl.experimental.ppo.ppo_trainer"


class Unread(TorchFunctionMode):
    """Numbers that are logged, or decide about a failure."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.item:
            return 1.0
        if func is torch.Tensor.__bool__:
            return False
        return func(*args, **(kwargs or {}))


class Together(Objective):
    """`PPOTrainer.train`."""

    learns_first = False

    def beside(self) -> dict[str, Any]:
        asked, judge = self.recipe.value, self.recipe.reward_model
        found = super().beside()
        for name, word, model, dtype in (
            ("value", "value_model", asked.model, asked.weights_dtype or self.recipe.weights_dtype),
            ("reward", "reward_model", judge.model, judge.weights_dtype),
        ):
            subject = self.config if model is None else dict(resolve(WORD[word].kind.shown(model)).config)
            words = Recipe(weights_dtype=dtype, head="reward", num_labels=1)
            found[name] = build.build_on_meta(build.read_config(subject), words)
        found["reward"].requires_grad_(False)
        if self.recipe.gradient_checkpointing:
            found["value"].gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return found

    def setup(self, model: Any, others: dict[str, Any]) -> None:
        self.home = import_module(PLACE)
        self.value = others["value"].train()
        self.trained = [parameter for parameter in self.value.parameters() if parameter.requires_grad]
        self.optimizer = optimizers.make(self.recipe.optimizer, self.trained)
        with self.ledger.naming("optimizer_state", "optimizer of the value model"):
            for parameter in self.trained:
                parameter.grad = torch.empty_like(parameter)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        model.generate = self.generated
        self.policy = model
        self.model = prepared(self.home.PolicyAndValueWrapper(model, self.value), self.recipe.autocast)
        self.others = others

    def batch(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        whole = torch.ones_like(ids[:, : ids.shape[1] - self.counted])
        return {"input_ids": whole.repeat(self.recipe.gradient_accumulation_steps, 1)}

    def generated(self, input_ids: torch.Tensor, **_: Any) -> Any:
        """What transformers' `generate` returns with `output_scores` and `return_dict_in_generate`."""
        rows, prompt = input_ids.shape
        config = self.policy.config
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        tokens = rows * (prompt + self.counted - 1)
        self.begin("rollout_prefill")
        self.policy.eval()
        mask = torch.ones_like(input_ids)
        self.policy(input_ids=input_ids, attention_mask=mask, use_cache=True, logits_to_keep=1).logits.float()
        self.policy.train()
        self.begin("rollout_decode")
        cache = [
            torch.ones((tokens, config.num_key_value_heads, head), device="cuda", dtype=self.policy.dtype)
            for _ in range(2 * config.num_hidden_layers)
        ]
        scores = tuple(torch.ones((rows, config.vocab_size), device="cuda") for _ in range(self.counted))
        sequences = torch.ones((rows, prompt + self.counted), dtype=torch.int64, device="cuda")
        return SimpleNamespace(sequences=sequences, scores=scores, past_key_values=cache)

    @contextmanager
    def _told(self, begin: Callable[[str], None]) -> Iterator[None]:
        """Phases begin where the trainer calls its own functions."""
        home = self.home
        own = {name: getattr(home, name) for name in ("forward", "get_reward")}

        def entering(name: str, phase: Callable[[Any], str]) -> Callable[..., Any]:
            def entered(model: Any, *args: Any, **words: Any) -> Any:
                begin(phase(model))
                return own[name](model, *args, **words)

            return entered

        self.begin = begin
        home.forward = entering("forward", lambda model: "forward" if model is self.model else "ref_logprobs")
        home.get_reward = entering("get_reward", lambda model: "values" if model is self.value else "rewards")
        home.unwrap_model_for_generation = contextmanager(lambda model, *args, **words: (yield model))
        home.empty_cache = home.gc.collect = lambda: None
        try:
            yield
        finally:
            for name, function in own.items():
                setattr(home, name, function)

    def step(self, training: Any, batch: dict[str, torch.Tensor], begin: Callable[[str], None]) -> None:
        """Two updates; the phases of the first have names of their own."""
        updates = steps = 0
        together = self.recipe.gradient_accumulation_steps

        def named(phase: str) -> None:
            nonlocal updates
            updates += phase == "rollout_prefill"
            begin(phase if updates > 1 else f"{FIRST}{phase}")

        def backward(loss: torch.Tensor) -> None:
            named("backward")
            loss.backward()

        def update() -> None:
            nonlocal steps
            steps += 1
            named("optimizer")
            for optimizer in (*training.optimizers, self.optimizer) if steps % together == 0 else ():
                optimizer.step()

        def forget() -> None:
            for optimizer in (*training.optimizers, self.optimizer) if steps % together == 0 else ():
                optimizer.zero_grad(set_to_none=True)

        def nothing(*_: Any, **__: Any) -> Any:
            return SimpleNamespace(should_save=False)

        rows = self.recipe.micro_batch_size * together
        made = self.home.PPOTrainer.__new__(self.home.PPOTrainer)
        accelerator = SimpleNamespace(
            device=torch.device("cuda"), print=nothing, unwrap_model=lambda model: model, backward=backward,
            accumulate=contextmanager(lambda _: (yield)), gather_for_metrics=lambda found: found, is_main_process=False,
        )  # fmt: skip
        args = SimpleNamespace(
            response_length=self.counted, temperature=1.0, num_ppo_epochs=1, num_mini_batches=1, gradient_accumulation_steps=together,
            num_total_batches=2, total_episodes=2 * rows, logging_steps=None, eval_steps=None, save_steps=None, batch_size=rows,
            local_batch_size=rows, local_mini_batch_size=rows, per_device_train_batch_size=self.recipe.micro_batch_size,
            local_rollout_forward_batch_size=64, ds3_gather_for_generation=True, missing_eos_penalty=None, kl_estimator="k1", kl_coef=0.05,
            whiten_rewards=False, gamma=1.0, lam=0.95, cliprange=0.2, cliprange_value=0.2, vf_coef=0.1, num_sample_generations=0,
        )  # fmt: skip
        vars(made).update(
            args=args, accelerator=accelerator, optimizer=SimpleNamespace(step=update, zero_grad=forget), model=self.model,
            ref_model=self.others.get("reference"), reward_model=self.others["reward"],
            processing_class=SimpleNamespace(pad_token_id=0, eos_token_id=2), dataloader=[batch],
            state=SimpleNamespace(episode=0, global_step=0), train_dataset_len=rows, is_deepspeed_enabled=False, stop_token_id=None,
            callback_handler=SimpleNamespace(on_train_begin=nothing, on_step_end=nothing, on_train_end=nothing),
            control=SimpleNamespace(should_save=False), log=nothing, is_peft_model=hasattr(self.policy, "disable_adapter"),
            ref_adapter_name=None, lr_scheduler=SimpleNamespace(step=nothing, get_last_lr=lambda: [0.0]),
        )  # fmt: skip
        with self._told(named), Unread():
            self.home.PPOTrainer.train(made)
