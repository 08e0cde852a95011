"""Traced steps of TRL's own loss functions: the engine against them, phase by phase.

tests/oracles/traced-objectives.jsonl, on fake CUDA tensors: the methods of TRL 1.16.0 that compute a loss, unbound, on an object with
the attributes that they read; transformers 5.23, PEFT 0.21, torch 2.13. The first 34 were traced by others (some of TRL 1.14; the
vectors' losses and generation are transcriptions), the rest by tests/trainers/trl_objective_traces.py
(PPO's value models in verl 0.7.0's code or TRL 1.12.0's, vectors in sentence-transformers 6.2.0's).
"""

import json
from pathlib import Path
from statistics import median

import pytest

from loralens.core.answer.estimate import estimate_model
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe

ROWS = (Path(__file__).parents[2] / "oracles" / "traced-objectives.jsonl").read_text(encoding="utf-8").splitlines()
CASES = {case["name"]: case for case in map(json.loads, ROWS)}
APART = {
    # of the first 34. the engine adds a second gradient to the first in place; with a Python mode active, as in that trace, it makes a third tensor
    # (torch/csrc/autograd/input_buffer.cpp, `can_accumulate_inplace`)
    "dpo_copy_llama1b_full_ckpt_2pairs": {"backward"},
    # the trace's model was not put back to 16 bits as CPOTrainer.__init__ does (`peft_module_casting_to_bf16`)
    "simpo_mistral_qlora_ckpt_2pairs": {"forward", "backward", "optimizer"},
    # TRL 1.14 computes entropies for its log on whole logits: not modelled, and no peak
    "dpo_trl114_copy_qwen3_full_1pair": {"forward"},
    # accelerate's float32 copy of logits that are dropped at once
    "sft_hftrainer_mistral_qlora_nockpt_b1x1024": {"forward"},
}


def estimated(case, **words):
    request = case["request"]
    recipe = {**request["recipe"], **words}
    return estimate_model(resolve(config=request["config"]), request["method"], Recipe.from_mapping(recipe))


OWN = {name: estimated(case) for name, case in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_counts_phases_and_peaks_are_the_traced_ones(name):
    own, expected = OWN[name], CASES[name]["expected"]
    assert (own.total_parameters, own.trainable_parameters) == (expected["total"], expected["trainable"])
    assert own.phase == expected["phase"]
    assert sum(own.breakdown.values()) == own.allocated_bytes
    assert set(own.phases) - set(expected["phase_peaks"]) <= {
        "precompute"
    }  # before training: of the first 34 none has it
    assert [name for name in own.phases if name in expected["phase_peaks"]] == list(expected["phase_peaks"])
    apart = APART.get(name, set())
    if expected["phase"] not in apart:
        assert own.allocated_bytes == pytest.approx(expected["peak_allocated_bytes"], rel=1e-3)
    for phase in expected["phase_peaks"].keys() - apart:
        assert own.phases[phase] == pytest.approx(expected["phase_peaks"][phase], rel=5e-3), phase


OF_OURS = [name for name in CASES if "/" in name]


def test_our_own_traces_are_met_closely():
    """Every method and every objective, with and without checkpointing, of five families."""
    errors = [abs(OWN[name].allocated_bytes / CASES[name]["expected"]["peak_allocated_bytes"] - 1) for name in OF_OURS]
    assert len(errors) >= 130
    assert max(errors) < 5e-4


def test_half_of_them_are_closer_than_a_thousandth_of_a_percent():
    errors = [
        abs(OWN[name].allocated_bytes / case["expected"]["peak_allocated_bytes"] - 1) for name, case in CASES.items()
    ]
    assert median(errors) < 1e-5


def test_the_trainer_that_does_not_put_back_is_the_traced_one():
    """Without TRL's cast back, the rest of the base stays in float32 as k-bit preparation leaves it."""
    case = CASES["simpo_mistral_qlora_ckpt_2pairs"]
    own = estimated(case, stack={})
    assert own.allocated_bytes == pytest.approx(case["expected"]["peak_allocated_bytes"], rel=1e-4)


def test_a_gradient_is_added_in_place():
    """The tied head's gradient is there when the embedding's comes: less than one of them between the trace and the engine."""
    own, case = OWN["dpo_copy_llama1b_full_ckpt_2pairs"], CASES["dpo_copy_llama1b_full_ckpt_2pairs"]
    head = 128_256 * 2048 * 2
    assert 0 < case["expected"]["phase_peaks"]["backward"] - own.phases["backward"] < head


def test_pairs_are_two_rows():
    """DPO of two pairs peaks as TRL's SFT of four rows does, and a plan in pairs is good for other numbers of pairs."""
    dpo, sft = OWN["dpo_adapter_llama1b_lora_ckpt_2pairs"], OWN["sft_trl_llama1b_lora_ckpt_b4x1024"]
    assert dpo.allocated_bytes == pytest.approx(sft.allocated_bytes, rel=1e-6)
    case = CASES["dpo_adapter_llama1b_lora_ckpt_2pairs"]
    one, three = (estimated(case, micro_batch_size=pairs) for pairs in (1, 3))
    assert dpo.plan.validity.covers(1, 1024, 16)
    assert dpo.plan.peaks(1, 1024, 16)[2] == one.allocated_bytes
    assert one.allocated_bytes < dpo.allocated_bytes < three.allocated_bytes


def test_a_copy_is_held_and_precomputed_scores_are_not_made():
    case = CASES["dpo_adapter_mistral_qlora_ckpt_1pair"]
    words = {**case["request"]["recipe"]["objective"]}
    held = {
        where: estimated(case, objective={**words, "reference": where}) for where in ("adapter", "copy", "precomputed")
    }
    base = held["adapter"].breakdown["weights_bytes"]
    assert held["copy"].breakdown["weights_bytes"] == pytest.approx(2 * base, rel=1e-3)
    assert held["precomputed"].phases["forward"] == held["adapter"].phases["forward"]
    assert held["precomputed"].recipe.objective.reference == "precomputed"


def test_scores_made_before_training_are_a_phase_of_their_own():
    """Without states and gradients; with a batch of its own it can be the peak, and does not move with the learner's."""
    case = CASES["dpo_adapter_llama1b_lora_ckpt_2pairs"]
    words = {"type": "dpo", "reference": "precomputed"}
    as_learner, many = (
        estimated(case, objective=words), estimated(case, objective={**words, "precompute_batch_size": 32})
    )  # fmt: skip
    assert next(iter(as_learner.phases)) == "precompute"
    assert as_learner.phase == "backward" and many.phase == "precompute"
    held = sum(as_learner.breakdown[name] for name in ("weights_bytes", "adapter_bytes"))
    # without gradients a batch grows by what one layer holds
    ratio = (many.phases["precompute"] - held) / (as_learner.phases["precompute"] - held)
    assert 12 < ratio <= 16
    assert many.breakdown["optimizer_state_bytes"] == 0
    pairs = [found.plan.peaks(3, 1024, 16)[0]["precompute"] for found in (as_learner, many)]
    assert pairs[0] > as_learner.phases["precompute"]
    assert pairs[1] == many.phases["precompute"]


def test_divided_weights_have_no_such_phase():
    case = CASES["dpo_adapter_llama1b_lora_ckpt_2pairs"]
    found = estimated(
        case, objective={"type": "dpo", "reference": "precomputed"}, parallelism={"gpus": 2, "strategy": "fsdp"}
    )
    assert "precompute" not in found.phases
    assert any(line.startswith("precompute: not counted") for line in found.assumptions())


def test_the_simulated_allocator_walks_the_same_passes():
    own = OWN["dpo_adapter_llama1b_lora_ckpt_2pairs"]
    sft = OWN["sft_trl_llama1b_lora_ckpt_b4x1024"]
    assert (
        own.simulated().allocated_bytes - own.allocated_bytes == sft.simulated().allocated_bytes - sft.allocated_bytes
    )


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"objective": {"type": "dpo", "reference": "adapter"}}, "objective.reference"),
        ({"objective": "distillation"}, "teacher.model"),
        ({"objective": "dpo", "loss": "fused"}, "loss"),
        ({"objective": "dpo", "parallelism": {"tp": 2}}, "parallelism"),
        ({"objective": {"type": "grpo", "rollout": {"prompt_length": 9, "completion_length": 9}}, "sequence_length": 9},
         "objective.rollout.prompt_length"),
    ],
)  # fmt: skip
def test_words_that_do_not_go_together(words, field):
    with pytest.raises(InvalidInput) as refused:
        estimate_model(resolve("qwen2.5-0.5b"), "full", Recipe.from_mapping(words))
    assert refused.value.field == field
    assert refused.value.hint


def test_families_without_a_language_models_head_are_refused():
    with pytest.raises(UnsupportedArchitecture, match="dpo is modelled for causal language models"):
        estimate_model(resolve("bert-base-uncased"), "full", Recipe.from_mapping({"objective": "dpo"}))


@pytest.mark.parametrize(("method", "where"), [("lora", "adapter"), ("full", "copy")])
def test_rloo_scores_with_a_reference_unless_it_is_absent(method, where):
    def found(**objective):
        recipe = {"objective": {"type": "rloo", **objective}, "sequence_length": 256, "loss": "fused_head"}
        return estimate_model(resolve("qwen2.5-0.5b"), method, Recipe.from_mapping(recipe))

    plain, without = found(), found(reference="absent")
    assert plain.recipe.objective.reference == where
    assert list(plain.phases) == ["old_logprobs", "ref_logprobs", "forward", "backward", "optimizer"]
    assert "ref_logprobs" not in without.phases
    assert (plain.allocated_bytes - without.allocated_bytes > 494_032_768) == (where == "copy")


def test_other_names_are_read_as_what_they_hold():
    assert Recipe.from_mapping({"objective": "dapo"}) == Recipe.from_mapping({"objective": {"type": "grpo"}})
    assert Recipe.from_mapping({"loss": "tiled", "objective": {"completion_length": 9}}) == Recipe.from_mapping(
        {"loss": "fused_head", "labelled_tokens": 9}
    )
    assert Recipe.from_mapping({"objective": {"type": "classification", "labels": 4}}) == Recipe.from_mapping(
        {"head": "sequence_classification", "num_labels": 4}
    )


@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp"])
@pytest.mark.parametrize("objective", ["dpo", "grpo", "ppo", "distillation"])
def test_several_gpus_divide_what_they_divide_of_training(objective, strategy):
    """A model beside the one that learns is divided as that is."""
    beside = {"type": objective, **({"reference": "copy"} if objective in ("dpo", "kto", "grpo", "ppo") else {})}
    recipe = {
        "objective": beside,
        "sequence_length": 128,
        "teacher": {"model": "qwen2.5-0.5b"} if objective == "distillation" else None,
    }
    one, four = (
        estimate_model(
            resolve("qwen2.5-0.5b"), "full",
            Recipe.from_mapping({**{k: v for k, v in recipe.items() if v}, "parallelism": {"gpus": gpus, "strategy": strategy}}),
        )
        for gpus in (1, 4)
    )  # fmt: skip
    assert list(one.phases) == list(four.phases)
    divided = {"zero3", "fsdp", "fsdp2"}
    held = [
        sum(size.at(1, 128, 8) for (kind, _), size in found.plan.points[0].first.entries.items() if kind == "weights")
        for found in (one, four)
    ]
    assert held[1] == pytest.approx(held[0] / 4 if strategy in divided else held[0], rel=1e-3)
