"""One verdict: what is least, typical and safe are one line, and no card is said to fit below a figure above its memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralens.core import catalogue
from loralens.core.answer.answers import memory_answer
from loralens.core.answer.estimate import SHOWN_GPUS, estimate_model, verdict
from loralens.core.answer.overhead import needed_by_rule, overhead, simulated_overhead
from loralens.core.answer.reserved import Reserved
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe

BYTES = st.integers(1, 2**45)


def consistent(bands):
    """Least, typical, safe in this order; every card that holds what is safe holds what is typically shown."""
    least, safe = bands.needed
    assert least <= bands.device[1] <= safe
    assert bands.reserved[1] <= bands.device[1]
    for gpu in catalogue.gpus():
        if verdict(bands.needed, gpu.memory_bytes) == "fits":
            assert bands.device[1] <= gpu.memory_bytes


@given(peak=BYTES, several=st.booleans(), varying=st.booleans(), left_out=st.integers(0, 2**36))
def test_by_rule(peak, several, varying, left_out):
    bands = overhead(peak, several=several, varying=varying)
    consistent(bands)
    consistent(bands.beside(left_out))
    assert bands.needed == needed_by_rule(peak, several=several, varying=varying)


@given(
    peak=BYTES,
    fixed=st.floats(1, 2),
    varying=st.none() | st.floats(1, 3),
    needed=st.floats(1, 3),
    several=st.booleans(),
)
def test_around_a_simulated_process(peak, fixed, varying, needed, several):
    found = Reserved(peak, int(peak * fixed), None if varying is None else int(peak * max(fixed, varying)))
    consistent(simulated_overhead(found, int(peak * needed), several=several))


@pytest.mark.parametrize(
    "recipe", [{}, {"padded": True}, {"trainer": "trl"}, {"parallelism": {"gpus": 4, "strategy": "fsdp"}}]
)
@pytest.mark.parametrize("model", [model.id for model in catalogue.models()[::25]])
def test_catalogue_by_cards(model, recipe):
    try:
        answer = memory_answer({"model": model, "method": "qlora", "recipe": {"sequence_length": 512, **recipe}})
    except UnsupportedArchitecture:  # only counted
        return
    (estimate,) = answer["estimates"]
    peak = estimate["peak"]
    for row in estimate["fits"]:
        if row["verdict"] == "fits":
            assert max(peak["device_bytes"], peak["needed_bytes"][1]) <= row["memory_bytes"]
        assert (row["verdict"] == "does_not_fit") == (row["headroom_bytes"] < 0)


@pytest.mark.parametrize("gpu", ["rtx-4090", "a100-80"])
def test_the_simulated_allocator_is_as_consistent(gpu):
    recipe = {"padded": True, "sequence_length": 512, "micro_batch_size": 4}
    (estimate,) = memory_answer(
        {"model": "0.5B", "method": "lora", "recipe": recipe, "allocator": "simulated", "gpu": gpu}
    )["estimates"]
    (row,) = estimate["fits"]
    assert row["verdict"] == "fits"
    assert estimate["peak"]["device_bytes"] <= row["memory_bytes"]


TEXT = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": 1000}  # fmt: skip


def test_a_part_of_unknown_size_that_is_left_out_keeps_it_from_fitting():
    """The answer names the tower; whether a card holds it nobody has counted."""
    config = {"model_type": "llava", "text_config": TEXT, "audio_config": {"model_type": "unheard_of"}}
    found = estimate_model(resolve(config=config), "lora", Recipe.from_mapping({}))
    assert found.left_out_bytes is None
    assert {row["verdict"] for row in found.fits(SHOWN_GPUS)} == {"tight"}
    assert any("left out" in line for line in found.assumptions())


def test_what_a_trainer_takes_and_nobody_counts_keeps_it_from_fitting():
    recipe = {"trainer": "axolotl", "sequence_length": 128}
    for attention, expected in (("sdpa", "tight"), ("flash", "fits")):
        found = memory_answer(
            {"model": "0.5B", "method": "full", "gpu": "h100", "recipe": {**recipe, "attention": attention}}
        )
        assert found["estimates"][0]["fits"][0]["verdict"] == expected
