"""Cached gradients: a batch of vectors whose activations are a mini batch's."""

import pytest

from loralens.core.answer.estimate import estimate_model
from loralens.core.answer.pace import pace_on
from loralens.core.catalogue import gpu
from loralens.core.errors import InvalidInput
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe


def vectors(batch, together=None, **words):
    objective = {"type": "contrastive", "mini_batch_size": together}
    recipe = Recipe.from_mapping({"micro_batch_size": batch, "sequence_length": 128, "objective": objective, **words})
    return estimate_model(resolve("qwen2.5-0.5b"), "lora", recipe)


def test_a_larger_batch_adds_its_vectors_and_ids_alone():
    one, two = vectors(256, 16), vectors(512, 16)
    kept = 2 * 4 * 896 + 2 * 8 * 128  # of a pair: gradients of two vectors in float32, two rows of token ids
    assert two.phases["backward"] - one.phases["backward"] == 256 * kept
    assert one.allocated_bytes < vectors(256).allocated_bytes


def test_a_plan_holds_for_other_batches_of_this_length():
    plan = vectors(256, 16).plan
    assert plan.validity.covers(512, 128, 8)
    assert not plan.validity.covers(8, 128, 8)
    assert not plan.validity.covers(256, 129, 8)
    assert plan.peaks(512, 128, 8)[2] == vectors(512, 16).allocated_bytes


def test_a_mini_batch_above_the_batch_is_the_batch():
    found = vectors(8, 64)
    assert found.allocated_bytes == vectors(8, 8).allocated_bytes < vectors(8).allocated_bytes
    assert any(line.startswith("mini_batch_size 64 is not below the batch of 8") for line in found.assumptions())
    assert not any(line.startswith("mini_batch_size") for line in vectors(8, 4).assumptions())


TRACED = {
    # ranks, mini batch: peaks of forward and backward, traced by tests/trainers/trl_objective_traces.py (sentence-transformers 6.2.0, PyTorch's
    # fake process group): a Qwen2.5-0.5B of two layers, rows of four tokens
    (1, None): (650_934_992, 627_841_720),
    (4, None): (650_934_992, 632_448_696),
    (1, 256): (399_415_952, 525_097_660),
    (4, 256): (484_160_132, 525_097_660),
}


@pytest.mark.parametrize(("ranks", "together"), TRACED)
def test_every_rank_holds_the_vectors_of_all(ranks, together):
    """The trace has no buckets of DistributedDataParallel."""
    config = {**resolve("qwen2.5-0.5b").config, "num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}

    def phases(gather, gpus):
        recipe = {
            "objective": {"type": "contrastive", "mini_batch_size": together, "gather_across_devices": gather},
            "micro_batch_size": 1024 if together else 256, "sequence_length": 4, "padded": True, "gradient_checkpointing": False,
            "stack": {"accelerate": "1.15"}, "lora": {"rank": 16, "target_modules": "all-linear"}, "loss": "full",
            "parallelism": {"gpus": gpus, "strategy": "ddp" if gpus > 1 else "none"},
        }  # fmt: skip
        return estimate_model(resolve(config=config), "lora", Recipe.from_mapping(recipe)).phases

    alone, apart = phases(False, 1), phases(False, 4)
    buckets = apart["optimizer"] - alone["optimizer"]
    found = phases(ranks > 1, 4)
    assert (found["forward"] - buckets, found["backward"] - buckets) == pytest.approx(TRACED[ranks, together], rel=4e-3)


def test_what_is_not_modelled_is_not_answered():
    with pytest.raises(InvalidInput, match="whole weights alone"):
        vectors(64, 8, parallelism={"gpus": 2, "strategy": "fsdp"})
    found = vectors(64, 8)
    with pytest.raises(InvalidInput, match="mini batches"):
        found.simulated()
    assert pace_on(found.model, "lora", found.recipe, gpu("h100-sxm")) is None
