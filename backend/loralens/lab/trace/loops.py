"""The training loops that people run, up to the loss: what of the model's output each of them keeps alive.

A hand-written loop binds the output to a name (`out = model(**batch)`), which holds logits, cache and graph until the next
forward pass has returned. transformers' Trainer runs as it is, its own method on an object with what that method reads.
"""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch


class PlainLoop:
    """`out = model(**batch); out.loss.backward()`; `keeps`: is `out` still named in backward and step?"""

    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps
        self._output: Any = None

    def __call__(self, model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The loss of one micro batch."""
        output = model(**batch)
        if self._keeps:
            self._output = output
        loss: torch.Tensor = output["loss"] if "loss" in output else _of_vectors(output)
        return loss


def _of_vectors(output: Any) -> torch.Tensor:
    """Some loss of an embedding: of the pooler's vectors, or of the first tokens'."""
    vectors = output["pooler_output"] if "pooler_output" in output else output["last_hidden_state"][:, 0]
    total: torch.Tensor = vectors.sum()
    return total


class TrainerLoop:
    """`Trainer.compute_loss` of transformers, as `training_step` calls it."""

    def __init__(self) -> None:
        self._bare = SimpleNamespace(
            accelerator=SimpleNamespace(parallelism_config=None),
            label_smoother=None,
            compute_loss_func=None,
            model_accepts_loss_kwargs=False,
            args=SimpleNamespace(average_tokens_across_devices=False),
        )

    def __call__(self, model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The loss of one micro batch."""
        from transformers import Trainer as Real

        loss: torch.Tensor = Real.compute_loss(self._bare, model, batch)
        return loss


class Sft:
    """TRL's `SFTTrainer.compute_loss`, up to 1.6 on whole logits: entropy and accuracy are read off them too.

    Its batches hold an attention mask (`padded`); sums that it would fetch from the card are ones.
    """

    def __init__(self) -> None:
        SFTTrainer = import_module("trl").SFTTrainer
        self._trainer = SFTTrainer.__new__(SFTTrainer)
        vars(self._trainer).update(
            accelerator=SimpleNamespace(
                parallelism_config=None, gather_for_metrics=lambda _: torch.ones((), device="cpu")
            ),
            args=SimpleNamespace(use_liger_kernel=False, loss_type="nll", average_tokens_across_devices=False),
            label_smoother=None,
            compute_loss_func=None,
            model_accepts_loss_kwargs=False,
            aux_loss_enabled=False,
            num_virtual_tokens=0,
            _metrics={"train": {name: [] for name in ("entropy", "mean_token_accuracy", "num_tokens")}},
            _total_train_tokens=0,
        )

    def __call__(self, model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The loss of one micro batch."""
        self._trainer.model = model
        loss: torch.Tensor = self._trainer.compute_loss(model, dict(batch))
        return loss
