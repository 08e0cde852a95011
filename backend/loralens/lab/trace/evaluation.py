"""An evaluation on the fake GPU: the Trainer's own container keeps what real forward passes give, batch after batch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch

from loralens.core.question.recipe import Recipe
from loralens.lab.trace import build, peaks, step
from loralens.lab.trace.quantize import hush_bitsandbytes


def traced_evaluation(config: Mapping[str, Any], method: str, given: Mapping[str, Any]) -> int:
    """Peak bytes of an evaluation as the recipe's words have it, beside all that training holds.

    Source: transformers 5.23 trainer.py, `prediction_step` and `evaluation_loop`, with one process.
    """
    hush_bitsandbytes()
    import peft  # noqa: F401  # it registers bitsandbytes' operators

    recipe = Recipe.from_mapping(given)
    own = replace(recipe, micro_batch_size=recipe.evaluation.batch_size, gradient_accumulation_steps=1)
    ledger, _ = step.run(build.read_config(config), method, own, act=_evaluate)
    return peaks.phase_peaks(ledger.recorded())["forward"].live_bytes


def _evaluate(training: Any) -> None:
    from accelerate.utils.operations import convert_to_fp32
    from transformers.trainer_pt_utils import EvalLoopContainer, nested_detach

    asked, recipe = training.recipe.evaluation, training.recipe
    predictions, labels = (EvalLoopContainer(do_nested_concat=True, padding_index=-100) for _ in range(2))
    training.model.eval()
    training.ledger.begin("forward")
    for number in range(-(-asked.samples // asked.batch_size)):
        with torch.no_grad(), ExitStack() as stack:
            if recipe.autocast is not None:
                stack.enter_context(torch.autocast("cuda", dtype=build.DTYPES[recipe.autocast]))
            outputs = training.model(**training.batch)
        if recipe.autocast is not None:
            outputs = convert_to_fp32(outputs)
        logits = nested_detach(outputs["logits"])
        del outputs
        if asked.metrics == "best":
            logits = logits.argmax(dim=-1)
        if asked.metrics != "loss":
            predictions.add(logits)
            labels.add(training.batch["labels"].clone())
        del logits
        if asked.accumulation_steps and (number + 1) % asked.accumulation_steps == 0:
            predictions.tensors = labels.tensors = None  # what is on the host by then
