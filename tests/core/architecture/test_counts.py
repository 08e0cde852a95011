"""Parameter counts: equal to transformers' for every model of the catalogue, and to the published figure or explained."""

from __future__ import annotations

import re

import pytest
from core.architecture.transformers_models import NO_MODEL, meta_model, total, whole_model

from loralens.core import catalogue
from loralens.core.architecture.registry import Count, build, count_parameters
from loralens.core.architecture.remote import NO_LOSS, ON_THE_HUB, reason
from loralens.core.errors import UnsupportedArchitecture

# Where a published total is another number than transformers 5.23 counts, and by how much exactly.
EXPLAINED = {
    "bert-base-uncased": (109_514_298 - 109_482_240, "with the masked-language-model head, without the pooler"),
    "bert-large-uncased": (335_174_458 - 335_141_888, "with the masked-language-model head, without the pooler"),
    "deepseek-v3": (
        -58 * 256,
        "the routers' correction biases are buffers in transformers 5, of 256 values in 58 layers",
    ),
    "deepseek-r1": (-58 * 256, "as DeepSeek-V3"),
    "flan-t5-xl": (-32_128 * 2_048, "transformers 5 ties T5's head to its embedding; the published file holds both"),
    "vit-large-patch16-224": (1_024 * 2 + 2, "with a classifier for two labels, transformers' default"),
    "whisper-large-v3": (0, ""),
}
MODELS = [entry.id for entry in catalogue.models()]


@pytest.mark.parametrize("name", MODELS)
def test_the_count_is_the_one_of_transformers(name: str) -> None:
    config = catalogue.model(name).config
    counted = count_parameters(config)
    assert counted.exact
    if config["model_type"] in NO_MODEL:  # then the published figure below is the only oracle
        return
    assert counted.total == total(meta_model(config))


@pytest.mark.parametrize("name", [entry.id for entry in catalogue.models() if entry.published_parameters is not None])
def test_the_count_is_the_published_one_or_the_difference_is_explained(name: str) -> None:
    entry = catalogue.model(name)
    difference, reason = EXPLAINED.get(name, (0, ""))
    assert bool(difference) == bool(reason)
    if not reason and "vision_config" in entry.config:  # the published total holds the tower, the count does not
        assert entry.published_parameters == total(whole_model(entry.config))
        return
    assert count_parameters(entry.config).total - entry.published_parameters == difference, reason


LLAMA_SHAPED = {
    "model_type": "somebodys_llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 100,
}


def test_an_unknown_family_of_llamas_shape_is_a_guess_that_says_so() -> None:
    counted = count_parameters(LLAMA_SHAPED)
    exact = total(meta_model({**LLAMA_SHAPED, "model_type": "llama"}))
    assert counted.total == pytest.approx(exact, rel=0.005)
    assert counted.total % 10 ** (len(str(counted.total)) - 3) == 0  # no digit that is not known
    assert not counted.exact
    assert counted.note == "about: model_type 'somebodys_llama' is not modelled; counted as if it were Llama"
    with pytest.raises(UnsupportedArchitecture, match="somebodys_llama"):
        build(LLAMA_SHAPED)


@pytest.mark.parametrize("model_type", [*ON_THE_HUB, *NO_LOSS])
def test_what_transformers_has_no_class_for_is_about_or_refused_with_the_reason(model_type: str) -> None:
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    assert model_type not in CONFIG_MAPPING or model_type not in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    config = {**LLAMA_SHAPED, "model_type": model_type}
    with pytest.raises(UnsupportedArchitecture, match=re.escape(reason(model_type))):
        build(config)
    if model_type in NO_LOSS:
        return
    counted = count_parameters(config)
    assert not counted.exact
    assert reason(model_type) in counted.note


def test_another_name_for_the_same_code_is_counted_and_built() -> None:
    shape = {**LLAMA_SHAPED, "model_type": "kimi_k2", "n_routed_experts": 4, "n_group": 1, "topk_group": 1}
    assert count_parameters(shape) == count_parameters({**shape, "model_type": "deepseek_v3"})
    assert build(shape).model_type == "kimi_k2"


@pytest.mark.parametrize("extra", [{"num_experts": 8}, {"state_size": 16}, {"vocab_size": None}])
def test_what_is_not_of_llamas_shape_is_not_guessed(extra: dict[str, object]) -> None:
    with pytest.raises(UnsupportedArchitecture, match="somebodys_llama"):
        count_parameters({**LLAMA_SHAPED, **extra})


def test_a_nested_text_config_is_the_model() -> None:
    inner = {**LLAMA_SHAPED, "model_type": "llama"}
    nested = {"model_type": "somebodys_vision_model", "text_config": inner, "vision_config": {"hidden_size": 5}}
    assert count_parameters(nested) == count_parameters(inner)


@pytest.mark.parametrize("family", ["mamba", "falcon_mamba"])
@pytest.mark.parametrize(
    "extra", [{}, {"tie_word_embeddings": False, "use_bias": True}, {"time_step_rank": 7, "expand": 3}]
)
def test_state_space_models_are_counted(family: str, extra: dict[str, object]) -> None:
    config = {
        "model_type": family,
        "hidden_size": 96,
        "num_hidden_layers": 3,
        "vocab_size": 200,
        "state_size": 8,
        **extra,
    }
    assert count_parameters(config) == Count(total(meta_model(config)), True, "")
