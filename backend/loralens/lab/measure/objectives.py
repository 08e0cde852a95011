"""A learner's step of other objectives than supervised fine-tuning, run for real: TRL's losses on whole logits, written for any device.

Source: TRL 1.16.0 trainer/dpo_trainer.py, kto_trainer.py, reward_trainer.py, grpo_trainer.py, rloo_trainer.py, experimental/{orpo,cpo,gkd}, of which the
tensors are the same; sentence-transformers 6.2.0 (vectors). TRL's Triton kernel for log-probabilities has a stand-in that holds what the kernel holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from loralens.core.errors import InvalidInput
from loralens.core.objectives.policy import scores_before
from loralens.core.question.objectives import GROUPED
from loralens.core.question.recipe import Recipe
from loralens.lab.measure.critic import Critic

Phase = Callable[[str], AbstractContextManager[Any]]
PAIRS: Final = ("dpo", "orpo", "cpo", "simpo", "reward")
MEASURED: Final = (*PAIRS, "kto", *GROUPED, "ppo", "distillation", "contrastive")


def refuse_unmeasured(recipe: Recipe) -> None:
    """Raises `InvalidInput` for what is computed and cannot be run here."""
    kind = recipe.objective.type
    if kind not in ("sft", *MEASURED):
        raise InvalidInput(
            f"the step of {kind} has no implementation to measure here",
            field="objective.type",
            hint=f"measured are sft, {', '.join(MEASURED)}",
        )
    if kind == "ppo" and recipe.value.together:
        raise InvalidInput(
            "one loss for policy and value model is not run here: each learns in passes of its own",
            field="value.together",
            hint="leave value_together out; loralens memory computes it",
        )
    if kind in (*GROUPED, "ppo") and recipe.reward_model.model is not None:
        raise InvalidInput(
            "a reward model is not run here: the learner's step is measured",
            field="reward_model.model",
            hint="leave reward_model out",
        )
    if kind == "contrastive" and recipe.objective.gather_across_devices:
        raise InvalidInput(
            "vectors gathered from other devices are not run here: one device is measured",
            field="objective.gather_across_devices",
            hint="leave gather_across_devices out",
        )
    if kind != "sft" and recipe.rollout.engine == "transformers":
        raise InvalidInput(
            "generation is not run here: the learner's step is measured",
            field="rollout.engine",
            hint="try rollout=none",
        )


class LogProbabilities(torch.autograd.Function):
    """Of the labels, row by row: the logits are kept, and backward makes one gradient of their size."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """Shapes: logits (samples, positions, vocabulary), labels (samples, positions); result like the labels."""
        total = torch.stack([torch.logsumexp(row, -1) for sample in logits for row in sample]).view(labels.shape)
        ctx.save_for_backward(logits, labels, total)
        return torch.gather(logits, -1, labels.unsqueeze(-1)).squeeze(-1).float() - total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient of the logits."""
        logits, labels, total = ctx.saved_tensors
        found = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        for index, sample in enumerate(logits):
            for place, row in enumerate(sample):
                own = found[index, place]
                torch.sub(row, total[index, place], out=own)
                own.exp_().mul_(-gradient[index, place])
                own[labels[index, place]] += gradient[index, place]
        return found, None


@dataclass(frozen=True, slots=True)
class LearnersStep:
    """A step's models. `beside`: the reference's copy, or the teacher; `critic`: PPO's value model."""

    network: Any
    beside: Any
    recipe: Recipe
    device: torch.device
    critic: Critic | None = None

    def loss(self, batch: dict[str, Tensor], phase: Phase) -> Tensor:
        """Every forward pass, in the objective's own order."""
        kind = self.recipe.objective.type
        if kind == "reward":
            with phase("forward"):
                return -F.logsigmoid(_difference(self._run(self.network, batch).squeeze(-1))).mean()
        if kind == "distillation":
            return self._distilled(batch, phase)
        if kind in (*GROUPED, "ppo"):
            return self._of_completions(batch, phase)
        if kind == "contrastive":
            return self._compared(batch, phase)
        if kind in ("dpo", "kto"):
            return self._referred(batch, phase, judged=kind == "kto")
        with phase("forward"):
            logits = self._run(self.network, batch)
            likely = None if kind == "simpo" else _likelihood(logits[: len(logits) // 2], batch["input_ids"])
            scores = self._scores(logits, batch["input_ids"]).mean(-1)
            loss = -F.logsigmoid(_difference(scores)).mean()
            return loss if likely is None else loss + likely

    def _run(self, network: Any, batch: dict[str, Tensor], keep: int = 0) -> Tensor:
        """Logits as accelerate's wrapper returns them."""
        with ExitStack() as stack:
            if self.recipe.autocast is not None:
                stack.enter_context(torch.autocast(self.device.type, dtype=getattr(torch, self.recipe.autocast)))
            words: dict[str, Any] = {"input_ids": batch["input_ids"], "attention_mask": batch.get("attention_mask")}
            if keep:
                words["logits_to_keep"] = keep
                # a processor's batched product would copy the head's weight for each sample
                head = network.get_output_embeddings()
                joined = head.register_forward_pre_hook(lambda _, given: (given[0].contiguous(),))
                stack.callback(joined.remove)
            logits: Tensor = network(**words, use_cache=False)["logits"]
        return logits if self.recipe.autocast is None else logits.float()

    @staticmethod
    def _scores(logits: Tensor, ids: Tensor) -> Tensor:
        found: Tensor = LogProbabilities.apply(logits[:, :-1], ids[:, -logits.shape[1] + 1 :])
        return found

    @contextmanager
    def _reference(self) -> Iterator[Any]:
        if self.recipe.objective.reference == "copy":
            yield self.beside
            return
        with self.network.disable_adapter():
            yield self.network

    def _scored(self, network: Any, batch: dict[str, Tensor], keep: int = 0) -> Tensor:
        with torch.no_grad():
            return self._scores(self._run(network, batch, keep), batch["input_ids"])

    def _referred(self, batch: dict[str, Tensor], phase: Phase, *, judged: bool) -> Tensor:
        with phase("forward"):
            far = self._scored(self.network, batch).sum(-1) if judged else torch.zeros(())
            scores = self._scores(self._run(self.network, batch), batch["input_ids"]).sum(-1)
        with phase("reference"):
            if self.recipe.objective.reference == "precomputed":
                before = far = torch.zeros(len(scores))
            else:
                with self._reference() as network:
                    far = far - self._scored(network, batch).sum(-1) if judged else far
                    before = self._scored(network, batch).sum(-1)
            moved = scores - before.to(scores.device)
            if judged:
                return (1 - torch.sigmoid(moved - far.to(scores.device).mean())).mean()
            return -F.logsigmoid(_difference(moved)).mean()

    def _of_completions(self, batch: dict[str, Tensor], phase: Phase) -> Tensor:
        recipe, keep = self.recipe, (self.recipe.labelled_tokens or self.recipe.sequence_length - 1) + 1
        old = None
        if scores_before(recipe) or (self.critic is not None and recipe.objective.old_logprobs is not False):
            with phase("old_logprobs"):
                old = self._scored(self.network, batch, keep)
        if recipe.objective.reference in ("adapter", "copy"):
            with phase("ref_logprobs"), self._reference() as network:
                self._scored(network, batch, keep)
        if self.critic is not None:
            self._judged(self.critic, batch, phase)
        with phase("forward"):
            scores = self._scores(self._run(self.network, batch, keep), batch["input_ids"])
            return -torch.exp(scores - (scores.detach() if old is None else old)).mean()

    def _judged(self, critic: Critic, batch: dict[str, Tensor], phase: Phase) -> None:
        """The value model's own update is over before the policy's begins."""
        with phase("values"), torch.no_grad():
            values = self._run(critic.network, batch)
        critic.update(lambda: self._run(critic.network, batch), values, phase)

    def _compared(self, batch: dict[str, Tensor], phase: Phase) -> Tensor:
        """`MultipleNegativesRankingLoss` of anchors and positives; their tokens' states stay until the loss is there."""
        if self.recipe.objective.mini_batch_size is not None:
            return self._cached(batch, phase, self.recipe.objective.mini_batch_size)
        with phase("forward"):
            columns = [self._states(batch) for _ in range(2)]
            return _ranked(*(_mean(states, batch) for states in columns))

    def _cached(self, batch: dict[str, Tensor], phase: Phase, together: int) -> Tensor:
        """Its cached form: every mini batch runs without gradients, and once more where backward needs its graph."""
        pieces = [
            {name: rows[at : at + together] for name, rows in batch.items()}
            for at in range(0, len(batch["input_ids"]), together)
        ] * 2
        with phase("forward"):
            with torch.no_grad():
                vectors = [_mean(self._states(piece), piece) for piece in pieces]
            for vector in vectors:
                vector.requires_grad_()
            loss = _ranked(*torch.cat(vectors).chunk(2))
            cached = torch.autograd.grad(loss, vectors)

        def again(gradient: Tensor) -> None:
            with torch.enable_grad():
                for piece, own in zip(pieces, cached, strict=True):
                    (torch.dot(_mean(self._states(piece), piece).flatten(), own.flatten()) * gradient).backward()

        loss = loss.detach().requires_grad_()
        loss.register_hook(again)
        return loss

    def _states(self, batch: dict[str, Tensor]) -> Tensor:
        with ExitStack() as stack:
            if self.recipe.autocast is not None:
                stack.enter_context(torch.autocast(self.device.type, dtype=getattr(torch, self.recipe.autocast)))
            words = {"input_ids": batch["input_ids"], "attention_mask": batch.get("attention_mask")}
            states: Tensor = self.network(**words, use_cache=False)["last_hidden_state"]
        return states

    def _distilled(self, batch: dict[str, Tensor], phase: Phase) -> Tensor:
        with phase("forward"):
            student = self._run(self.network, batch)
        with phase("teacher"), torch.no_grad():
            teacher = self._run(self.beside, batch)
        with phase("forward"):
            return _divergence(student[:, :-1], teacher[:, :-1], self.recipe.objective.divergence)


def _divergence(student: Tensor, teacher: Tensor, kind: str) -> Tensor:
    """`generalized_jsd_loss`; what it names lives until it returns. Shapes: (samples, positions, vocabulary), float32."""
    student, teacher = student / 1.0, teacher / 1.0
    own, taught = F.log_softmax(student, -1), F.log_softmax(teacher, -1)
    if kind == "forward_kl":
        found = F.kl_div(own, taught, reduction="none", log_target=True)
    elif kind == "reverse_kl":
        found = F.kl_div(taught, own, reduction="none", log_target=True)
    else:
        share = torch.tensor(0.5, device=own.device)
        both = [own + torch.log1p(-share), taught + torch.log(share)]
        mixture = torch.logsumexp(torch.stack(both), 0)
        del both
        to_teacher = F.kl_div(mixture, taught, reduction="none", log_target=True)
        to_student = F.kl_div(mixture, own, reduction="none", log_target=True)
        found = share * to_teacher + (1 - share) * to_student
    found = found[torch.ones(found.shape[:2], dtype=torch.bool, device=found.device)]
    return found.sum()


def _likelihood(logits: Tensor, ids: Tensor) -> Tensor:
    chosen = logits[:, :-1].contiguous()
    return F.cross_entropy(chosen.flatten(0, 1), ids[: len(chosen), 1:].flatten())


def _ranked(anchors: Tensor, positives: Tensor) -> Tensor:
    """Each anchor's own positive among all of them. Shapes: both (rows, width), float32."""
    scores = 20.0 * (F.normalize(anchors) @ F.normalize(positives).T)
    return F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


def _mean(states: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Of a row's tokens that are no padding. Shapes: states (rows, length, width); result (rows, width), float32."""
    given = batch.get("attention_mask")
    mask = torch.ones_like(batch["input_ids"]) if given is None else given
    mask = mask.unsqueeze(-1).to(states.dtype)
    total = (states * mask).sum(1, dtype=torch.float32)
    return total / mask.sum(1, dtype=torch.float32)


def _difference(rows: Tensor) -> Tensor:
    chosen, rejected = rows.chunk(2)
    return chosen - rejected
