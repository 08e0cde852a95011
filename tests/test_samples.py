"""Lengths of samples in a file: counted as the tokenizers package counts, and guessed from bytes with the error said."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from loralens.core.errors import InvalidInput
from loralens.samples import BYTES_ERROR, sample_lengths

SAMPLES = [
    {"messages": [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}]},
    {"conversations": [{"from": "human", "value": "one two three four"}]},
    {"prompt": "one", "completion": "two"},
    {"instruction": "one two", "input": "", "output": "three four five"},
    {"text": "one"},
    {"images": ["a.png"]},
]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "train.jsonl"
    lines = [*map(json.dumps, SAMPLES), "", "not json", "[1]"]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def tokenizer(tmp_path):
    words = ["[UNK]", "one", "two", "three", "four", "five"]
    own = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    own.pre_tokenizer = Whitespace()
    path = tmp_path / "tokenizer.json"
    own.save(str(path))
    return path


def test_a_tokenizer_counts(data, tokenizer):
    found = sample_lengths(data, tokenizer)
    assert found.pairs == [[1, 1], [2, 1], [3, 1], [4, 1], [5, 1]]
    assert found.left_out == 3
    assert any("3 lines are left out" in note for note in found.notes)


def test_bytes_are_a_guess_and_say_so(data):
    found = sample_lengths(data)
    assert sum(found.counts.values()) == 5
    assert found.counts[4] == 1  # "one two\nthree": 13 bytes
    assert BYTES_ERROR in found.notes


def test_the_page_counts_the_same(tmp_path):
    """The page's unit test reads the same rows."""
    rows = json.loads((Path(__file__).parent / "oracles" / "sample-lengths.json").read_text("utf-8"))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(rows["lines"]), encoding="utf-8")
    found = sample_lengths(path)
    assert (found.pairs, found.left_out) == (rows["lengths"], rows["left_out"])


def test_text_beyond_english_is_counted_in_bytes(tmp_path):
    path = tmp_path / "zh.jsonl"
    path.write_text(json.dumps({"text": "微调大语言模型" * 4}, ensure_ascii=False), encoding="utf-8")
    assert sample_lengths(path).pairs == [[21, 1]]


@pytest.mark.parametrize(
    ("content", "tokenizer", "field"),
    [
        ("", "bytes", "data"),
        ('{"image": 1}', "bytes", "data"),
        (None, "bytes", "data"),
        ('{"text": "a"}', "none.json", "tokenizer"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, content, tokenizer, field):
    path = tmp_path / "train.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInput) as refused:
        sample_lengths(path, tokenizer if tokenizer == "bytes" else tmp_path / tokenizer)
    assert refused.value.field == field
    assert refused.value.hint
