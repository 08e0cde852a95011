from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralens.core.jsontext import depth, to_json

words = st.text(max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(words, values, max_size=3))
def test_text_and_back(answer):
    assert json.loads(to_json(answer)) == answer


def nested(levels):
    value = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.parametrize("levels", [0, 1, 2, 31, 32])
def test_depth_is_counted(levels):
    assert depth(nested(levels), limit=32) == levels


def test_depth_is_counted_no_further_than_asked():
    assert depth(nested(10_000), limit=32) == 33
