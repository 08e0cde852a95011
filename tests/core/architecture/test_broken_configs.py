"""Any config.json, however broken: an answer with sane figures, or an error of our own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loralens.core import catalogue
from loralens.core.architecture.registry import FAMILIES, build, count_parameters
from loralens.core.errors import LoraLensError

CONFIGS = [dict(entry.config) for entry in catalogue.models()]
KEYS = sorted(
    {key for config in CONFIGS for key in config} | {"sliding_window", "rope_parameters", "moe_layers", "n_inner"}
)
NUMBERS = st.one_of(
    st.integers(-3, 70),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0, 1, 2**31, 1e308]),
)
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.text(max_size=20),
    st.lists(st.one_of(NUMBERS, st.text(max_size=10), st.none()), max_size=5),
    st.dictionaries(st.text(max_size=8), NUMBERS, max_size=3),
)


@st.composite
def broken(draw: st.DrawFn) -> dict[str, Any]:
    """A real config with a few entries replaced, dropped, or added."""
    config = dict(draw(st.sampled_from(CONFIGS)))
    if isinstance(config.get("text_config"), dict) and draw(st.booleans()):
        config = dict(config["text_config"])
    for key in draw(st.lists(st.sampled_from(sorted(config)), max_size=3)):
        config.pop(key, None)
    config.update(draw(st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=10)), VALUES, max_size=4)))
    if draw(st.integers(0, 9)) == 0:
        config["model_type"] = draw(st.sampled_from(sorted(FAMILIES)))
    return config


@settings(max_examples=2_000)
@given(broken())
def test_a_broken_config_is_counted_or_refused(config: dict[str, Any]) -> None:
    try:
        counted = count_parameters(config)
    except LoraLensError as error:
        assert error.message
        return
    assert isinstance(counted.total, int)
    assert 0 < counted.total < 2**80
    assert counted.exact or counted.note


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_an_empty_config_of_every_family_names_the_missing_field(family: str) -> None:
    with pytest.raises(LoraLensError) as caught:
        build({"model_type": family})
    assert caught.value.field is not None
    assert caught.value.field.startswith("config.")
