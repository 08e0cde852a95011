"""The objectives of TRL, each in its trainer's own code on fake tensors. See `trl_objective_traces.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from trainers.trl_bare import bare, headed, phases_at, prepared

from loralens.core.question.model import resolve
from loralens.core.question.quantization import Quantization
from loralens.core.question.recipe import WORD, Recipe
from loralens.lab.trace import build, kernels, quantize
from loralens.lab.trace.ledger import TraceLedger


class WantedRows(TorchFunctionMode):
    """Half of KTO's rows are wanted ones, and half are not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nonzero:
            return torch.zeros((args[0].numel() // 2, 1), dtype=torch.int64, device=args[0].device)
        return func(*args, **(kwargs or {}))


class Objective:
    """One way to learn, in a trainer's own code. `rows`: of a micro batch for each of micro_batch_size."""

    rows = 1
    head: str | None = None
    learns_first = True  # is the first pass the policy's?
    ledger: TraceLedger

    def __init__(self, recipe: Recipe, config: dict[str, Any]) -> None:
        self.recipe = recipe
        self.counted = recipe.labelled_tokens or recipe.sequence_length
        self.config = config

    def beside(self) -> dict[str, Any]:
        """Models that do not learn, on the meta device."""
        if self.recipe.objective.reference != "copy":
            return {}
        plain = replace(self.recipe, objective=type(self.recipe.objective)(), gradient_checkpointing=False)
        model = build.build_on_meta(build.read_config(self.config), plain)
        if self.recipe.quantization is not None:
            quantize.quantize(model, self.recipe.quantization)
        return {"reference": model.requires_grad_(False)}

    def setup(self, model: Any, others: dict[str, Any]) -> None:
        """The trainer's `__init__`, as far as the loss needs it."""
        raise NotImplementedError

    def batch(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the collator makes."""
        raise NotImplementedError

    def loss(self, batch: dict[str, torch.Tensor], begin: Callable[[str], None]) -> torch.Tensor:
        """The loss; `begin` names a phase."""
        raise NotImplementedError

    def step(self, training: Any, batch: dict[str, torch.Tensor], begin: Callable[[str], None]) -> None:
        """Forward, backward and update."""
        if self.learns_first:
            begin("forward")
        loss = self.loss(batch, begin)
        begin("backward")
        loss.backward()
        del loss
        begin("optimizer")
        training._update()
        for optimizer in training.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def marks(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Which tokens belong to the completion."""
        rows, length = ids.shape
        # a next token is counted where it belongs to the completion; a row of completion alone has no first one
        kernels.CHOSEN[rows, length - 1] = rows * min(self.counted, length - 1)
        kernels.CHOSEN[rows // 2, length - 1] = rows // 2 * min(self.counted, length - 1)
        made = {"input_ids": ids, "completion_mask": torch.ones_like(ids)}
        return made | ({"attention_mask": torch.ones_like(ids)} if self.recipe.padded else {})


class Dpo(Objective):
    """`DPOTrainer._compute_loss`."""

    rows = 2

    def setup(self, model: Any, others: dict[str, Any]) -> None:
        headed(model, "entropy", "mean_logits", "is_top1")
        reference = others.get("reference")
        if reference is not None:
            headed(reference)
            prepared(reference, self.recipe.autocast)
        self.before = vars(model).get("forward")
        self.model = prepared(model, self.recipe.autocast)
        self.trainer = bare(
            "trl.trainer.dpo_trainer.DPOTrainer", model=self.model, ref_model=reference, ld_alpha=None,
            precompute_ref_logps=self.recipe.objective.reference == "precomputed", f_divergence_type="reverse_kl",
            loss_types=["sigmoid"], loss_weights=[1.0], use_weighting=False,
        )  # fmt: skip

    def batch(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        made = self.marks(ids)
        if self.recipe.objective.reference == "precomputed":
            made |= {f"ref_{which}_logps": torch.ones(len(ids) // 2, device="cuda") for which in ("chosen", "rejected")}
        return made

    def step(self, training: Any, batch: dict[str, torch.Tensor], begin: Callable[[str], None]) -> None:
        if self.recipe.objective.reference == "precomputed":
            self._precompute(training, batch, begin)
        super().step(training, batch, begin)

    def _precompute(self, training: Any, batch: dict[str, torch.Tensor], begin: Callable[[str], None]) -> None:
        """Before the optimizer is made, and before accelerate wraps the model."""
        for optimizer in training.optimizers:
            optimizer.state.clear()
        asked, wrapped = self.recipe.objective.precompute_batch_size, vars(self.model).pop("forward", None)
        if self.before is not None:
            self.model.forward = self.before
        if asked is not None:
            batch = self.batch(torch.ones_like(batch["input_ids"][:1]).repeat(asked * self.rows, 1))
        begin("precompute")
        self.trainer.compute_ref_log_probs(self.model, batch)
        begin("then: the optimizer is made")
        if wrapped is not None:
            self.model.forward = wrapped
        training._warm_up(training.trained)

    def loss(self, batch: dict[str, torch.Tensor], begin: Callable[[str], None]) -> torch.Tensor:
        place = type(self.trainer).__module__
        with phases_at(place, "disable_gradient_checkpointing", lambda: begin("reference")), WantedRows():
            found: torch.Tensor = self.trainer._compute_loss(self.model, batch, False)
        if self.recipe.objective.reference == "precomputed":
            begin("reference")
        return found


class Kto(Dpo):
    """`KTOTrainer._compute_loss`; half of the rows are wanted ones."""

    rows = 1

    def setup(self, model: Any, others: dict[str, Any]) -> None:
        headed(model, "entropy", "mean_logits")
        reference = others.get("reference")
        if reference is not None:
            headed(reference)
            prepared(reference, self.recipe.autocast)
        self.model = prepared(model, self.recipe.autocast)
        self.trainer = bare(
            "trl.trainer.kto_trainer.KTOTrainer", model=self.model, ref_model=reference, loss_type="kto", calculate_KL=True,
            precompute_ref_logps=self.recipe.objective.reference == "precomputed", desirable_weight=1.0, undesirable_weight=1.0,
        )  # fmt: skip

    def batch(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        made = self.marks(ids)
        made |= {f"KL_{name}": tensor.clone() for name, tensor in made.items()}
        if not self.recipe.padded:
            made |= {"attention_mask": None, "KL_attention_mask": None}  # type: ignore[dict-item]
        made["label"] = torch.ones(len(ids), dtype=torch.bool, device="cpu")
        if self.recipe.objective.reference == "precomputed":
            made |= {name: torch.ones(len(ids), device="cuda") for name in ("ref_logps", "ref_KL_logps")}
        return made


class Reward(Objective):
    """`RewardTrainer.compute_loss`."""

    rows = 2
    head = "reward"

    def setup(self, model: Any, others: dict[str, Any]) -> None:
        self.model = prepared(model, self.recipe.autocast)
        self.trainer = bare("trl.trainer.reward_trainer.RewardTrainer", model=self.model)

    def batch(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"input_ids": ids, **({"attention_mask": torch.ones_like(ids)} if self.recipe.padded else {})}

    def loss(self, batch: dict[str, torch.Tensor], begin: Callable[[str], None]) -> torch.Tensor:
        found: torch.Tensor = self.trainer.compute_loss(self.model, batch)
        return found


class Odds(Objective):
    """`get_batch_loss_metrics` of ORPO, CPO and SimPO."""

    rows = 2

    def setup(self, model: Any, others: dict[str, Any]) -> None:
        self.model = prepared(model, self.recipe.autocast)
        kind = self.recipe.objective.type
        words = {"model": self.model, "cpo_alpha": float(kind == "cpo"), "alpha": 0.0, "simpo_gamma": 0.5}
        words["loss_type"] = "simpo" if kind == "simpo" else "sigmoid"
        place = "orpo.orpo_trainer.ORPOTrainer" if kind == "orpo" else "cpo.cpo_trainer.CPOTrainer"
        self.trainer = bare(f"trl.experimental.{place}", **words)

    def batch(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        made = {}
        for which in ("chosen", "rejected"):
            for name in ("input_ids", "attention_mask", "labels"):
                made[f"{which}_{name}"] = torch.ones_like(ids[: len(ids) // 2])
        return made

    def loss(self, batch: dict[str, torch.Tensor], begin: Callable[[str], None]) -> torch.Tensor:
        found: torch.Tensor = self.trainer.compute_loss(self.model, batch)
        return found


class Grpo(Objective):
    """`GRPOTrainer._compute_loss`, after the scores that `_generate_and_score_completions` asks for (its order is transcribed)."""

    learns_first = False
    variant = "dapo"  # GRPOTrainer's `loss_type`

    def setup(self, model: Any, others: dict[str, Any]) -> None:
        headed(model, "entropy")
        self.reference = others.get("reference")
        if self.reference is not None:
            headed(self.reference)
        self.model = prepared(model, self.recipe.autocast)
        self.trainer = bare(
            "trl.trainer.grpo_trainer.GRPOTrainer", model=self.model, ref_model=self.reference, top_entropy_quantile=1.0,
            off_policy_mask_threshold=None, importance_sampling_level="token", loss_type=self.variant, epsilon_low=0.2,
            epsilon_high=0.2, use_vllm=False, _entropy_bonus_enabled=False, beta=0.04 if self.recipe.objective.reference in ("adapter", "copy") else 0.0,
            tools=None, max_completion_length=self.counted,
            current_gradient_accumulation_steps=1, temperature=1.0,
        )  # fmt: skip

    def batch(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        rows, length = ids.shape
        prompt, completion = torch.ones_like(ids[:, : length - self.counted]), torch.ones_like(ids[:, : self.counted])
        kernels.CHOSEN[rows, length - 1] = rows * self.counted
        return {
            "prompt_ids": prompt, "prompt_mask": prompt.clone(), "completion_ids": completion,
            "completion_mask": completion.clone(), "advantages": torch.ones(rows, device="cuda"),
            "num_items_in_batch": torch.ones((), device="cuda"),
        }  # fmt: skip

    def scored(self, batch: dict[str, torch.Tensor], begin: Callable[[str], None]) -> None:
        """What comes before learning."""
        from trl.models.utils import disable_gradient_checkpointing
        from trl.trainer.utils import use_adapter

        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        asked = {"logits_to_keep": batch["completion_ids"].size(1), "batch_size": len(ids)}
        score = self.trainer._get_per_token_logps_and_entropies
        with torch.no_grad(), disable_gradient_checkpointing(self.model, None):
            if self.recipe.objective.old_logprobs or self.recipe.objective.type == "rloo":
                begin("old_logprobs")
                batch["old_per_token_logps"], _, _ = score(self.model, ids, mask, **asked)
            if self.recipe.objective.reference in ("adapter", "copy"):
                begin("ref_logprobs")
                if self.reference is not None:
                    batch["ref_per_token_logps"], _, _ = score(self.reference, ids, mask, **asked)
                else:
                    with use_adapter(self.model, adapter_name=None):
                        batch["ref_per_token_logps"], _, _ = score(self.model, ids, mask, **asked)

    def loss(self, batch: dict[str, torch.Tensor], begin: Callable[[str], None]) -> torch.Tensor:
        self.scored(batch, begin)
        begin("forward")
        found: torch.Tensor = self.trainer._compute_loss(self.model, batch)
        return found


class Rloo(Grpo):
    """`RLOOTrainer._compute_loss`; its `_generate_and_score_completions` always asks for scores (their order is transcribed)."""

    def setup(self, model: Any, others: dict[str, Any]) -> None:
        super().setup(model, others)
        self.trainer = bare(
            "trl.trainer.rloo_trainer.RLOOTrainer", model=self.model, ref_model=self.reference, epsilon_low=0.2, epsilon_high=0.2,
            use_vllm=False, beta=0.05, tools=None, temperature=1.0,
        )  # fmt: skip

    def scored(self, batch: dict[str, torch.Tensor], begin: Callable[[str], None]) -> None:
        super().scored(batch, begin)
        batch["old_logps"] = (batch.pop("old_per_token_logps") * batch["completion_mask"]).sum(1)
        batch.pop("ref_per_token_logps", None)  # goes into the rewards


class Taught(Objective):
    """A student beside its teacher."""

    def beside(self) -> dict[str, Any]:
        teacher = self.recipe.teacher
        asked = resolve(config=json.loads(json.dumps(self.teacher)))
        plain = Recipe(weights_dtype=teacher.weights_dtype)
        model = build.build_on_meta(build.read_config(asked.config), plain)
        if teacher.quantization is not None:
            quantize.quantize(model, Quantization(type=teacher.quantization))
        return {"teacher": model.requires_grad_(False)}

    @property
    def teacher(self) -> Any:
        """The teacher's config."""
        return resolve(WORD["teacher"].kind.shown(self.recipe.teacher.model)).config


class Distillation(Taught):
    """`DistillationTrainer.compute_loss`, whose redirection goes past accelerate's autocast."""

    def setup(self, model: Any, others: dict[str, Any]) -> None:
        self.model, self.teacher_model = (prepared(each, "bfloat16") for each in (model, others["teacher"]))
        beta = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": 0.5}[self.recipe.objective.divergence]
        self.trainer = bare(
            "trl.trainer.distillation_trainer.DistillationTrainer", model=model, teacher_model=self.teacher_model, beta=beta,
            temperature=1.0, _is_vlm=False, model_kwarg_keys=["logits_to_keep"],
        )  # fmt: skip

    def batch(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        _rows, length = ids.shape
        prompt, completion = torch.ones_like(ids[:, : length - self.counted]), torch.ones_like(ids[:, : self.counted])
        return {
            "prompt_ids": prompt, "prompt_mask": prompt.clone(), "completion_ids": completion,
            "completion_mask": completion.clone(),
        }  # fmt: skip

    def loss(self, batch: dict[str, torch.Tensor], begin: Callable[[str], None]) -> torch.Tensor:
        redirect = import_module("trl.models.utils")._ForwardRedirection()

        def redirected(wrapper: Any, *rest: Any, **words: Any) -> Any:
            if wrapper is not self.teacher_model:
                return redirect(wrapper, *rest, **words)
            begin("teacher")
            found = redirect(wrapper, *rest, **words)
            begin("forward")
            return found

        self.trainer._forward_redirection = redirected
        found: torch.Tensor = self.trainer.compute_loss(self.model, batch)
        return found


class Gkd(Taught):
    """`GKDTrainer.compute_loss` on batches that are there already."""

    def setup(self, model: Any, others: dict[str, Any]) -> None:
        self.model = prepared(model, self.recipe.autocast)
        teacher = prepared(others["teacher"], self.recipe.autocast)
        beta = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": 0.5}[self.recipe.objective.divergence]
        self.trainer = bare(
            "trl.experimental.gkd.gkd_trainer.GKDTrainer", model=self.model, teacher_model=teacher, beta=beta
        )
        own = teacher.forward

        def forward(*args: Any, **words: Any) -> Any:
            self.begin("teacher")
            found = own(*args, **words)
            self.begin("forward")
            return found

        teacher.forward = forward

    def batch(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        rows, length = ids.shape
        kernels.CHOSEN[rows, length - 1] = rows * min(self.counted, length - 1)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.ones_like(ids)}

    def loss(self, batch: dict[str, torch.Tensor], begin: Callable[[str], None]) -> torch.Tensor:
        self.begin = begin
        found: torch.Tensor = self.trainer.compute_loss(self.model, batch)
        return found
