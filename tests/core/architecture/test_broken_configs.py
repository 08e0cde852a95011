"""Any config.json, however broken: an answer with sane figures, or an error of our own. `make fuzz` tries 20,000."""

from __future__ import annotations

import os
from typing import Any

import pytest
from core.architecture.test_more_families import HYBRIDS, MIXTURES, SWITCHED
from core.architecture.test_multimodal import CASES, config_of
from hypothesis import event, given, settings
from hypothesis import strategies as st

from loralens.core import catalogue
from loralens.core.answer.answers import parameters_answer
from loralens.core.answer.estimate import estimate_model
from loralens.core.architecture.registry import FAMILIES, build, count_parameters
from loralens.core.errors import LoraLensError
from loralens.core.question.model import given as given_model
from loralens.core.question.recipe import Recipe

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "1000"))
THOROUGH = EXAMPLES > 1_000  # then every config that can be counted is also walked
CONFIGS = [
    *(dict(entry.config) for entry in catalogue.models()),
    *({"model_type": family, **found} for family, several in (HYBRIDS | SWITCHED).items() for found in several),
    *({"model_type": family, **found} for family, found in MIXTURES.items()),
    *(config_of(name) for name in CASES),
]
NESTED = ("text_config", "vision_config")
KEYS = sorted(
    {key for config in CONFIGS for key in config}
    | {key for config in CONFIGS for name in NESTED if name in config for key in config[name]}
    | {
        "sliding_window",
        "rope_parameters",
        "rope_scaling",
        "moe_layers",
        "n_inner",
        "quantization_config",
        "layer_types",
    }
    | {"layers_block_type", "head_dim", "text_config", "vision_config", "audio_config", "torch_dtype", "architectures"}
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "auto", "silu", "gelu_new", "none", "２", "模型", "\x00", "\ud7ff", "full_attention", "NaN", "1e9"]
    ),
)
NUMBERS = st.one_of(
    st.integers(-3, 70),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0, 1, 2**31, 2**63, 10**400, 1e308, float("nan"), float("-inf"), 4096.0, 0.5]),
)
KINDS = st.lists(
    st.sampled_from(["full_attention", "sliding_attention", "linear_attention", "mamba", "conv", "x"]), max_size=40
)
DEEP = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=30,
)
QUANTIZED = st.fixed_dictionaries(
    {},
    optional={
        "quant_method": st.one_of(st.sampled_from(["bitsandbytes", "gptq", "awq", "mxfp4", "fp8"]), DEEP),
        "bits": NUMBERS,
        "load_in_4bit": st.one_of(st.booleans(), TEXTS),
        "modules_to_not_convert": DEEP,
    },
)
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    TEXTS,
    KINDS,
    QUANTIZED,
    DEEP,
    st.lists(st.one_of(NUMBERS, st.text(max_size=10), st.none()), max_size=5),
    st.dictionaries(st.text(max_size=8), NUMBERS, max_size=3),
)


def _mutated(draw: st.DrawFn, config: dict[str, Any]) -> dict[str, Any]:
    """A few entries dropped, replaced or added."""
    config = dict(config)
    for key in draw(st.lists(st.sampled_from(sorted(config)), max_size=3)) if config else ():
        config.pop(key, None)
    config.update(draw(st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=10)), VALUES, max_size=4)))
    return config


@st.composite
def broken(draw: st.DrawFn) -> dict[str, Any]:
    """A real config with a few entries replaced, dropped or added, at the top or in its nested parts."""
    config = dict(draw(st.sampled_from(CONFIGS)))
    if isinstance(config.get("text_config"), dict) and draw(st.booleans()):
        config = dict(config["text_config"])
    elif draw(st.integers(0, 7)) == 0:
        config = {"model_type": draw(st.one_of(st.just("wrapper"), TEXTS)), "text_config": config}
    for name in NESTED:
        if isinstance(config.get(name), dict) and draw(st.booleans()):
            config[name] = _mutated(draw, config[name])
    config = _mutated(draw, config)
    if draw(st.integers(0, 9)) == 0:
        config["model_type"] = draw(st.sampled_from(sorted(FAMILIES)))
    if draw(st.integers(0, 30)) == 0:
        deep: Any = 1
        for _ in range(draw(st.sampled_from([50, 500, 3_000]))):
            deep = {"x": deep}
        config["deep"] = deep
    return config


def walked(config: dict[str, Any], method: str, total: int) -> None:
    """The peak of a config that can be counted is sane, or refused by name."""
    try:
        found = estimate_model(given_model(config), method, Recipe())
    except LoraLensError as error:
        assert error.message
        event("peak refused")
        return
    event("peak walked")
    assert found.total_parameters >= total
    assert min(found.breakdown.values()) >= 0
    assert sum(found.breakdown.values()) == found.allocated_bytes
    assert 2 * total <= found.allocated_bytes < 2**90
    assert 0 < found.trainable_parameters <= found.total_parameters


@settings(max_examples=EXAMPLES)
@given(broken(), st.sampled_from(["full", "lora"]), st.integers(0, 0 if THOROUGH else 14))
def test_a_broken_config_is_counted_or_refused(config: dict[str, Any], method: str, luck: int) -> None:
    try:
        counted = count_parameters(config)
    except LoraLensError as error:
        assert error.message
        assert len(error.message) < 1_000
        assert error.hint is None or len(error.hint) < 1_000
        event("refused")
        return
    event("counted")
    assert isinstance(counted.total, int)
    assert 0 < counted.total < 2**80
    assert counted.exact or counted.note
    if luck == 0 and counted.exact:
        walked(config, method, counted.total)
        try:
            answer = parameters_answer({"config": config, "method": method})
        except LoraLensError:
            return
        assert answer["parameters"]["total"] >= counted.total
        assert len(answer["note"]) < 2_000


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_an_empty_config_of_every_family_names_the_missing_field(family: str) -> None:
    with pytest.raises(LoraLensError) as caught:
        build({"model_type": family})
    assert caught.value.field is not None
    assert caught.value.field.startswith("config.")
