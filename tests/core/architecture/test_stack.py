"""Cutting a stack into runs of repeating units."""

from loralens.core.architecture.module import Module
from loralens.core.architecture.stack import Placed, runs


def placed(pattern):
    kinds = {}
    return [Placed(kinds.setdefault(letter, Module()), False) for letter in pattern]


def cut(pattern):
    layers = placed(pattern)
    return [(run.start, len(run.unit), run.repeat) for run in runs(layers)]


def test_equal_layers_are_one_run():
    assert cut("a" * 32) == [(0, 1, 32)]


def test_a_pattern_repeats():
    assert cut("aaaaab" * 6) == [(0, 6, 6)]


def test_leading_layers_of_another_kind():
    assert cut("aaa" + "b" * 20)[-1] == (3, 1, 20)
    assert sum(length * repeat for _, length, repeat in cut("aaa" + "b" * 20)) == 23


def test_every_layer_is_in_exactly_one_run():
    for pattern in ("a", "ab", "abab" * 4 + "a", "abcabc" + "d" * 9 + "ab" * 7, "a" * 5 + "b" * 5):
        position = 0
        for start, length, repeat in cut(pattern):
            assert start == position
            position += length * repeat
        assert position == len(pattern)
