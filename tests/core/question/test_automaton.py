"""Patterns as automata: the same texts match as under `re`, in a time that no pattern stretches."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.core.question import automaton, patterns
from loralens.core.question.automaton import Automaton, Unreadable

UNSLOTH = (
    r"(?:.*?(?:vision|image|visual|patch|vlm|language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
    r"(?:k_proj|v_proj|q_proj|out_proj|fc1|fc2|o_proj|gate_proj|up_proj|down_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\.(?:(?:q_proj|k_proj|v_proj)))"
)
"""The form of unsloth_zoo.peft_utils.get_peft_regex (unslothai/unsloth-zoo)."""

ATOMS = st.sampled_from(
    ["a", "b", "_", r"\.", ".", r"\d", "[ab]", "[^a]", r"\w", "7", r"\b", "-", r"[\d_]", " ", "^", "$"]
)
SIGNS = st.sampled_from(["*", "+", "?", "{1,2}", "{2}", "{1,}", "{0,1}", "*?", "+?"])


def _wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
    )


PATTERNS = st.recursive(
    st.one_of(ATOMS, st.builds(lambda atom, sign: f"(?:{atom}){sign}", ATOMS, SIGNS)), _wider, max_leaves=8
)


@settings(max_examples=300, deadline=None)
@given(PATTERNS, st.lists(st.text("ab_.7 -", max_size=7), min_size=8, max_size=8))
def test_the_same_texts_match_as_under_re(pattern: str, texts: list[str]) -> None:
    run = Automaton(pattern)
    assert [run.matches(text) for text in texts] == [re.fullmatch(pattern, text) is not None for text in texts]


def test_the_pattern_of_a_library_finds_what_re_finds() -> None:
    names = [f"model.language_model.layers.{layer}.self_attn.{role}_proj" for layer in range(12) for role in "qkvo"]
    names += [
        f"model.layers.{layer}.{part}" for layer in range(12) for part in ("self_attn.q_proj", "mlp.gate", "norm")
    ]
    names += [f"model.visual.blocks.{layer}.attn.qkv" for layer in range(12)] + [
        "lm_head",
        "model.visual.patch_embed.proj",
    ]
    matches = patterns.whole(UNSLOTH, "lora.target_modules")
    assert [matches(name) for name in names] == [re.fullmatch(UNSLOTH, name) is not None for name in names]


@pytest.mark.parametrize(
    "pattern", ["(a*)*(a*)*b", "(?:a|a)*b", "(?:.*.*.*)*b", "a?{0}".replace("?{0}", "{0,500}") + "b"]
)
def test_a_pattern_that_never_ends_under_re_ends(pattern: str) -> None:
    assert not Automaton(pattern).matches("a" * 2000)


@pytest.mark.parametrize(
    "pattern", ["(?=a)b", "(?<!a)b", r"(a)\1", "(?P<x>a)", "(?i)a", "a**", "(a", "a)", "[z-a]", "a" * 2000]
)
def test_what_is_no_plain_pattern_is_refused_with_the_reason(pattern: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be read") as caught:
        patterns.whole(pattern, "lora.target_modules")
    assert caught.value.field == "lora.target_modules" and caught.value.hint


def test_states_and_work_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreadable):
        Automaton("((a{50}){50}){50}")
    monkeypatch.setattr(automaton, "MAX_WORK", 100)
    matches = patterns.whole("(?:x|y)*.*z", "lora.exclude_modules")
    with pytest.raises(InputTooLarge, match="too long to match"):
        matches("xyxyyxx.model.layers.11.self_attn.q_proj" * 3)
