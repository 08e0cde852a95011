"""One training step against 16 traced steps of the real Hugging Face models, to the byte.

tests/oracles/reference-steps.json: real model, real PEFT, real optimizer on fake CUDA tensors (torch 2.13, transformers
5.23, peft 0.21, bitsandbytes 0.50), every storage followed from allocation to release.
"""

import json
from pathlib import Path

import pytest

from loralens.core.answer.estimate import estimate, estimate_model
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe

CASES = json.loads((Path(__file__).parents[2] / "oracles" / "reference-steps.json").read_text(encoding="utf-8"))[
    "cases"
]


def estimated(case):
    request = case["request"]
    return estimate_model(resolve(config=request["config"]), request["method"], Recipe.from_mapping(request["recipe"]))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_step_equals_the_trace(case):
    found, expected = estimated(case), case["expected"]
    assert found.total_parameters == expected["total"]
    assert found.trainable_parameters == expected["trainable"]
    assert found.phase == expected["phase"]
    assert found.allocated_bytes == expected["peak_allocated_bytes"]
    assert found.phases["forward"] == expected["phase_peaks"]["forward"]
    assert found.phases["backward"] == expected["phase_peaks"]["backward"]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_categories_equal_the_trace(case):
    found, expected = estimated(case), case["expected"]["categories"]
    parts = found.breakdown
    assert sum(parts.values()) == found.allocated_bytes
    assert parts["optimizer_state_bytes"] == expected["optimizer_state"]
    assert parts["gradients_bytes"] == expected.get("gradients", 0)
    weights = sum(
        expected.get(name, 0) for name in ("parameters_frozen", "parameters_trainable", "quantization_state", "buffers")
    )
    assert parts["weights_bytes"] + parts["adapter_bytes"] == weights
    assert abs(parts["logits_bytes"] - expected.get("logits_and_loss", 0)) <= 4


def test_optimizer_phase_holds_all_four_copies_of_a_full_bf16_model():
    """Weights, gradients and two moments stand together when the step begins (traces count from its first release)."""
    full = next(case for case in CASES if case["name"] == "llama2-7b_full_bf16")
    assert estimated(full).phases["optimizer"] >= 4 * 2 * full["expected"]["total"]


def test_what_functions_hold_as_attributes_goes_with_the_graph_in_every_layer():
    """Each int8 product holds its input until the graph goes; of six layers one is not walked.

    Source: `loralens trace` of this step, torch 2.13, PEFT 0.21.2, bitsandbytes 0.50: forward, backward, optimizer; before
    the first phase it has 9,216 bytes more than we count.
    """
    config = {"model_type": "gpt2", "vocab_size": 50257, "n_embd": 256, "n_layer": 6, "n_head": 4, "n_positions": 1024}
    phases = estimate(config, method="qlora", quantization="int8", sequence_length=512).phases
    traced = {"forward": 366_417_472, "backward": 417_253_944, "optimizer": 58_159_152}
    assert {phase: size + 9_216 for phase, size in phases.items()} == traced
