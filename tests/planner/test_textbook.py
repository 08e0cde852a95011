"""Every figure that the course prints follows from its named rule; the expected values are the printed ones."""

import pytest

from loralens.planner import textbook

PRINTED = {
    "full-98": 98,
    "full-weights-26": 26,
    "full-optimizer-52": 52,
    "full-gradients-26": 26,
    "full-activations-13": 13,
    "full-total-117": 117.35,
    "lora-weights-13": 13.04,
    "lora-own-0.04": 0.04,
    "lora-26": 26,
    "adapter-7b": 2_097_152,
    "adapter-13b": 2_097_152,
    "adapter-70b": 2_097_152,
    "share-0.03": 0.03,
    "fewer-7b": 3333,
    "fewer-13b": 6199,
    "fewer-70b": 33379,
    "memory-3.8x": 3.8,
    "saved-73.5": 73.5,
    "adapter-file-4": 4,
    "storage-3250x": 3250,
    "storage-10-full": 130,
    "storage-10-lora": 13.04,
    "storage-10-saved": 90,
    "storage-6-full": 78,
    "storage-6-lora": 13,
    "storage-6-saved": 83.3,
    "storage-6-saved-gb": 65.0,
    "square-16384": 16_384,
    "square-1.5625": 1.5625,
    "knowledge-47.5": 47.5,
    "hours-17500": 17_500,
    "dollars-1.75m": 1_750_000,
}


@pytest.mark.parametrize(("id_", "printed"), PRINTED.items())
def test_the_rule_gives_the_printed_figure(id_: str, printed: float) -> None:
    figure = textbook.figure(id_)
    assert figure.printed_value == printed
    assert figure.value is not None
    assert textbook.round_half_up(figure.value, figure.decimals) == printed
    assert figure.reproduced


def test_one_figure_has_no_rule_at_all() -> None:
    assert [one.id for one in textbook.figures() if one.id not in PRINTED] == ["faster-100x"]
    assert not textbook.figure("faster-100x").reproduced


def test_the_two_rules_of_the_course_disagree() -> None:
    parameters = textbook.NOMINAL_PARAMETERS["7B"]
    assert textbook.headline_bytes(parameters) != textbook.full_memory(parameters).total_bytes


def test_the_whole_is_the_sum_of_its_parts() -> None:
    full = textbook.full_memory(1000)
    assert full.total_bytes == 18_000
    lora = textbook.lora_memory(1000, 10)
    assert lora.total_bytes == 4_000 + 160


def test_a_figure_that_the_rule_does_not_give_counts_as_not_reproduced() -> None:
    figure = textbook.Figure("x", "27 GB", 27, "textbook", "", "", 26.08, 0, "GiB")
    assert not figure.reproduced
