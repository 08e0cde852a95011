"""Frameworks with model code of their own: what is built, what is refused, and what an answer says about it."""

from __future__ import annotations

import pytest

from loralens.core.answer.estimate import estimate
from loralens.core.errors import InvalidInput
from loralens.lab.trace.limits import check

LITGPT, TORCHTUNE = {"stack": {"framework": "litgpt"}}, {"stack": {"torchtune": "0.4"}}
QV = {"target_modules": ("q_proj", "v_proj")}


@pytest.mark.parametrize("words", [LITGPT, TORCHTUNE])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj"), "all-linear"])
def test_adapters_have_as_many_parameters_as_pefts(words, targets):
    own = estimate("7B", "lora", target_modules=targets, **words)
    theirs = estimate("7B", "lora", target_modules=targets)
    assert (own.total_parameters, own.trainable_parameters) == (theirs.total_parameters, theirs.trainable_parameters)


@pytest.mark.parametrize("model", ["7B", "phi-1.5", "pythia-410m", "mistral-7b-v0.1"])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_litgpt_walks_its_families(model, method):
    found = estimate(model, method, **LITGPT)
    assert sum(found.breakdown.values()) == found.allocated_bytes
    assert not any("not modelled" in text for text in found.plan.assumptions)


@pytest.mark.parametrize(("model", "words"), [("gemma-2b", LITGPT), ("gpt2", TORCHTUNE)])
def test_other_families_say_that_transformers_stands_in(model, words):
    found = estimate(model, "lora", **words)
    assert any("model code of its own, which is not modelled" in text for text in found.plan.assumptions)


@pytest.mark.parametrize(("field", "words"), [("use_dora", {"use_dora": True}), ("rank_pattern", None)])
def test_litgpt_refuses_what_it_does_not_have(field, words):
    lora = {"target_modules": ["q_proj"], **(words or {"rank_pattern": {"q_proj": 4}})}
    with pytest.raises(InvalidInput) as caught:
        estimate("7B", "lora", lora=lora, **LITGPT)
    assert caught.value.field == f"lora.{field}"


def test_torchtune_with_dora_says_whose_it_is():
    found = estimate("7B", "dora", **QV, **TORCHTUNE)
    assert "DoRA as PEFT computes it, not torchtune" in found.plan.assumptions


@pytest.mark.parametrize("words", [LITGPT, TORCHTUNE])
def test_frameworks_are_not_traced(words):
    recipe = estimate("7B", "lora", **words).recipe
    with pytest.raises(InvalidInput, match="cannot be traced"):
        check("lora", recipe)


def test_compiling_is_simulated_for_torchtune_alone():
    spoken = "torch.compile is not simulated"
    assert not any(spoken in text for text in estimate("7B", "lora", compile=True, **TORCHTUNE).plan.assumptions)
    assert any(spoken in text for text in estimate("7B", "lora", compile=True).plan.assumptions)
    eager, compiled = (
        estimate("7B", "full", compile=flag, gradient_checkpointing=False, **TORCHTUNE).phases["forward"]
        for flag in (False, True)
    )
    assert compiled < eager


def test_fused_lora_keeps_its_input_twice_and_no_mask():
    """Two adapters on one input, 7B: `A`'s inputs stay as they were, masks go, the input itself comes; no 16-bit copies."""
    words = {"dropout": 0.05, "sequence_length": 512, "rank": 8, "gradient_checkpointing": False, **QV}
    plain, fused = (estimate("7B", "lora", fused_kernels=kernels, **words) for kernels in (True, "+lora"))
    tokens, layers, hidden, rank = 512, 32, 4096, 8
    masks = 2 * hidden * (layers - 1)  # the first layer's input needs no gradient, so none there
    low = 2 * 2 * rank * layers  # A x, in 16 bits
    inputs = 2 * hidden * layers
    copies = (
        2 * plain.trainable_parameters - 2 * 2 * rank * hidden
    )  # the first layer passes no gradient on through its two A
    assert plain.allocated_bytes - fused.allocated_bytes == tokens * (masks + low - inputs) + copies


def test_fused_lora_under_fsdp_has_whole_adapters():
    words = {"gpus": 2, "strategy": "fsdp", "fused_kernels": "+lora", **QV}
    found = estimate("7B", "lora", **words)
    assert found.breakdown["adapter_bytes"] == 4 * found.trainable_parameters
    assert found.breakdown["optimizer_state_bytes"] >= 8 * found.trainable_parameters
