from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loralens.core.errors import InvalidInput
from loralens.lab.tiny.tokenizer import EOS_ID, VOCAB_SIZE, Tokenizer, learn_merges, load_tokenizer


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_comes_back_unchanged(text: str) -> None:
    tokenizer = load_tokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < VOCAB_SIZE and i != EOS_ID for i in ids)


def test_words_of_the_corpora_take_fewer_tokens_than_bytes() -> None:
    tokenizer = load_tokenizer()
    text = "def __init__(self, name):\n        return self.name\n"
    assert len(tokenizer.encode(text)) < len(text) / 2
    assert tokenizer.vocab_size == VOCAB_SIZE


def test_merges_are_learned_by_frequency_with_ties_to_the_lower_ids() -> None:
    a, b, c = b"abc"
    assert learn_merges(["abab abab cc cc"], vocab_size=259)[0] == (a, b)
    assert learn_merges(["ab", "ab", "bc", "bc"], vocab_size=258) == [(a, b)]
    assert learn_merges(["ab c"]) == []
    assert (c, c) not in learn_merges(["abc"])


def test_merging_takes_the_earliest_learned_pair_first() -> None:
    a, b, c = b"abc"
    tokenizer = Tokenizer([(b, c), (a, b), (a, 257)])
    assert tokenizer.encode("abc") == [259]
    assert tokenizer.encode("ab") == [258]


def test_hash_names_the_merges() -> None:
    assert Tokenizer([(1, 2)]).content_hash != Tokenizer([(2, 1)]).content_hash


def test_unknown_id_is_refused() -> None:
    with pytest.raises(InvalidInput):
        load_tokenizer().decode([VOCAB_SIZE])
