"""The words of an evaluation between steps: what a trainer keeps of the samples that it does not learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from loralens.core.question.kinds import Choice, Maybe, Whole
from loralens.core.question.needs import Need
from loralens.core.question.words import read_group, word

LOSS, LOGITS, BEST = "loss", "logits", "best"
EVALUATED: Final = Need("nothing is evaluated: eval_samples is 0", lambda _, r: r.evaluation.samples > 0)
KEPT: Final = Need("only the loss is kept", lambda _, r: r.evaluation.metrics != LOSS)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation as transformers' Trainer runs it."""

    samples: int = word(
        0,
        Whole(0, 100_000_000),
        "Samples that are evaluated between steps; 0: none.",
        name="eval_samples",
    )
    batch_size: int = word(
        8,
        Whole(1, 65_536),
        "Samples per GPU and forward pass of the evaluation.",
        name="eval_batch_size",
        aliases=("per_device_eval_batch_size",),
        needs=(EVALUATED,),
    )
    metrics: str = word(
        LOSS,
        Choice((LOSS, LOGITS, BEST)),
        "What is kept of every batch: the loss, all logits (compute_metrics), or each token's best (preprocess_logits_for_metrics).",
        name="eval_metrics",
        needs=(EVALUATED,),
    )
    accumulation_steps: int | None = word(
        None,
        Maybe(Whole(1, 1_000_000)),
        "Batches after which what is kept moves to the host; none: at the end of the evaluation.",
        name="eval_accumulation_steps",
        needs=(EVALUATED, KEPT),
    )

    @staticmethod
    def from_mapping(given: Any) -> Evaluation:
        """Read the `evaluation` object; raises `InvalidInput`."""
        return Evaluation(**read_group(Evaluation, "evaluation", given))
