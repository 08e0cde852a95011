"""What the catalogue's list says of every model's size is what every answer about the model says."""

from loralens.core import catalogue
from loralens.core.answer import recount


def test_the_counts_are_the_engines() -> None:
    assert recount.build() == catalogue.counts(), "run: python -m loralens.core.answer.recount"
    assert list(catalogue.counts()) == [entry.id for entry in catalogue.models()]


def test_a_row_says_its_count() -> None:
    assert catalogue.model("qwen3-vl-8b").to_dict()["parameters"] == 8_767_123_696
