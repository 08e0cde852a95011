"""Stages of a pipeline, and one step of torch's own schedule over them.

Each stage is the real model with its layers alone: the first one keeps the embedding, the last one norm and head. Shapes are
given, so that stages do not ask each other for them.

Source: torch 2.13 distributed/pipelining (schedules.py, stage.py, `_backward.py`); the way torchtitan cuts a model.
"""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any, Final

import torch
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleZBVZeroBubble,
)
from torch.distributed.pipelining._utils import InferenceMode

from loralens.core.partition.pipeline import pieces_of, stages
from loralens.core.question.parallelism import Parallelism
from loralens.lab.trace.build import DTYPES
from loralens.lab.trace.ranks.loop import RankStep

SCHEDULES: Final[dict[str, Any]] = {
    "gpipe": ScheduleGPipe,
    "1f1b": Schedule1F1B,
    "interleaved": ScheduleInterleaved1F1B,
    "zero_bubble": ScheduleInterleavedZeroBubble,
    "zero_bubble_v": ScheduleZBVZeroBubble,
}

_SINGLE: Final = ("gpipe", "1f1b")  # take one stage


class Piece(torch.nn.Module):
    """One stage's layers with what they need of the model around them."""

    def __init__(self, whole: Any, layers: list[int], *, first: bool, last: bool) -> None:
        super().__init__()
        self.inner = copy(whole.model)  # another module over the same parts
        self.inner._modules = dict(whole.model._modules)
        self.inner.layers = torch.nn.ModuleList([whole.model.layers[number] for number in layers])
        self.first, self.last = first, last
        if last:
            self.head = whole.lm_head
        else:
            self.inner.norm = torch.nn.Identity()
        if not first:
            self.inner.embed_tokens = None

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Shapes: token ids (batch, length) or hidden states (batch, length, hidden) to hidden states or logits."""
        name = "input_ids" if self.first else "inputs_embeds"
        hidden: torch.Tensor = self.inner(**{name: given}, use_cache=False).last_hidden_state
        return self.head(hidden) if self.last else hidden


def cut_into_stages(model: Any, p: Parallelism, rank: int) -> torch.nn.Module:
    """The rank's own pieces; what other ranks have ends with the model."""
    last = stages(p) - 1
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return torch.nn.ModuleDict(
        {
            str(number): Piece(base, layers, first=number == 0, last=number == last)
            for number, layers in pieces_of(len(base.model.layers), p, rank).items()
        }
    )


def _known(micro_batches: int, stages: list[PipelineStage], *_: object, **__: object) -> tuple[bool, bool]:
    """Stages would ask each other whether all shapes are given; they are, and buffers are made once."""
    for stage in (each for each in stages if each._inference_mode is None):
        stage._inference_mode = InferenceMode.STATIC
        stage._prepare_forward_infra(micro_batches, None, has_backward=True)
        stage._prepare_backward_infra(micro_batches)
    return True, True


class PipelineStep(RankStep):
    """A step is all micro batches of the schedule, then the update."""

    rank = 0

    def run(self) -> None:
        """The step that counts is the second."""
        self._schedule = self._scheduled()
        super().run()

    def _scheduled(self) -> Any:
        from transformers.loss.loss_utils import ForCausalLMLoss

        p, recipe = self.recipe.parallelism, self.recipe
        config = next(iter(self.model.values())).inner.config
        ids = self.batch["input_ids"]
        hidden = torch.empty(*ids.shape, config.hidden_size, dtype=DTYPES[recipe.weights_dtype], device="meta")
        logits = torch.empty(*ids.shape, config.vocab_size, dtype=hidden.dtype, device="meta")
        made = []
        for number, piece in self.model.items():
            given = ids.to("meta") if piece.first else hidden.requires_grad_()
            result = logits if piece.last else hidden
            made.append(PipelineStage(piece, int(number), stages(p), ids.device, given, result.requires_grad_()))

        def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = ForCausalLMLoss(logits, labels, config.vocab_size)
            return found

        words = {"n_microbatches": recipe.gradient_accumulation_steps, "loss_fn": loss}
        schedule = SCHEDULES[p.schedule](made if p.schedule not in _SINGLE else made[0], **words)
        schedule._initialize_pp_stages = partial(_known, recipe.gradient_accumulation_steps)
        return schedule

    def _once(self) -> None:
        many = self.recipe.gradient_accumulation_steps
        batch = {name: value.repeat(many, 1) for name, value in self.batch.items()}
        self.ledger.begin("pipeline")
        pieces = list(self.model.values())
        given = (batch["input_ids"],) if any(piece.first for piece in pieces) else ()
        target = batch["labels"] if any(piece.last for piece in pieces) else None
        self._schedule.step(*given, target=target, return_outputs=False)  # as torchtitan calls it
        for parameter in self.trained:
            self._mark_gradient(parameter)
        self.ledger.begin("optimizer")
        self._update()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
