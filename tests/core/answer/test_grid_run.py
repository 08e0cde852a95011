"""Traced steps of the run as people run it: the engine against the second method, to a hundredth of a percent.

tests/oracles/traced-run.jsonl is written by `python -m loralens.lab.trace.grid FILE --grid run`.
"""

import json
from pathlib import Path

import pytest

from loralens.core.answer.estimate import estimate_model
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe

ORACLES = Path(__file__).parents[2] / "oracles"


def read(name):
    return [json.loads(line) for line in (ORACLES / name).read_text(encoding="utf-8").splitlines()]


CASES = read("traced-run.jsonl")
STEPS = read("traced-steps.jsonl")
"""Traced by others on fake CUDA tensors: transformers 5.23, PEFT 0.21, bitsandbytes 0.50, torch 2.13. Six or four layers of
published models; heads, saved embeddings, segments, optimizers, precisions."""


def estimated(case, **words):
    request = case["request"]
    recipe = Recipe.from_mapping({**request["recipe"], **words})
    return estimate_model(resolve(config=request["config"]), request["method"], recipe)


def test_enough_cases():
    assert len(CASES) >= 22
    assert all("expected" in case for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_counts_phases_and_peaks_are_the_traced_ones(case):
    own, expected = estimated(case), case["expected"]
    assert (own.total_parameters, own.trainable_parameters) == (expected["total"], expected["trainable"])
    assert own.phase == expected["phase"]
    assert own.phases == pytest.approx(expected["phase_peaks"], rel=1e-4)
    assert sum(own.breakdown.values()) == own.allocated_bytes


@pytest.mark.parametrize("case", STEPS, ids=[case["name"] for case in STEPS])
def test_steps_traced_by_others_agree(case):
    own, expected = estimated(case), case["expected"]
    assert (own.total_parameters, own.trainable_parameters) == (expected["total"], expected["trainable"])
    assert own.phase == expected["phase"]
    assert own.allocated_bytes == pytest.approx(expected["peak_allocated_bytes"], rel=1e-4)


def test_a_kept_output_is_held_in_every_phase():
    """16-bit logits of 2 x 512 tokens: in backward beside the loss's own tensors, in the step, and in the next forward pass."""
    case = next(case for case in CASES if case["name"] == "llama-3.2-1b/kept-full")
    kept, dropped = estimated(case).phases, estimated(case, keep_outputs=False).phases
    logits = 2 * 512 * 128_256 * 2
    assert kept["backward"] - dropped["backward"] == logits
    assert {kept[phase] - dropped[phase] for phase in ("forward", "optimizer")} == {logits + 4}  # and the loss


def test_accelerate_returns_float32_logits():
    case = next(case for case in CASES if case["name"] == "llama-3.2-1b/kept-lora")
    logits = 2 * 512 * 128_256 * 2
    wrapped = estimated(case, stack={"accelerate": "1.15"})
    assert wrapped.allocated_bytes - estimated(case).allocated_bytes == logits


def test_the_simulated_allocator_keeps_it_too():
    case = next(case for case in CASES if case["name"] == "qwen2.5-0.5b/kept-lora-cached")
    kept, dropped = estimated(case), estimated(case, keep_outputs=False)
    assert kept.simulated().allocated_bytes - dropped.simulated().allocated_bytes == pytest.approx(
        kept.allocated_bytes - dropped.allocated_bytes, rel=1e-3
    )
