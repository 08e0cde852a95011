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
    assert vectors(8, 64).allocated_bytes == vectors(8, 8).allocated_bytes


def test_what_is_not_modelled_is_not_answered():
    with pytest.raises(InvalidInput, match="whole weights alone"):
        vectors(64, 8, parallelism={"gpus": 2, "strategy": "fsdp"})
    found = vectors(64, 8)
    with pytest.raises(InvalidInput, match="mini batches"):
        found.simulated()
    assert pace_on(found.model, "lora", found.recipe, gpu("h100-sxm")) is None
