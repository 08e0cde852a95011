"""A sequence that is shorter than a sample's pictures: training stops, and no answer offers one."""

import pytest

from loralens.core.answer.answers import memory_answer
from loralens.planner.fit import batch_by_length, fit_answer
from loralens.planner.sweep import sweep_answer

TOKENS = 4 * (2048 // 28) ** 2  # Qwen2.5-VL: one token for 28 × 28 pixels
RECIPE = {"sequence_length": 1024, "images": 4, "image_size": 2048}
QUESTION = {"model": "qwen2.5-vl-7b", "method": "lora", "gpu": "h100-sxm", "recipe": RECIPE}


@pytest.fixture(scope="module")
def found():
    return fit_answer(QUESTION | {"tokens": 10_000_000})


def test_it_does_not_fit_and_has_no_time(found):
    assert (found["verdict"], found["decided_by"]) == ("does_not_fit", "length")
    assert found["time"]["withheld"]["key"] == "length"
    assert found["time"]["step_seconds"] is found["time"]["tokens_per_second"] is found["time"]["iteration"] is None
    [row] = memory_answer(QUESTION)["estimates"][0]["fits"]
    assert (row["verdict"], row["decided_by"]) == ("does_not_fit", "length")


def test_a_longer_sequence_is_advised_first_then_smaller_pictures(found):
    longer, smaller = found["advice"]["changes"]
    assert (longer["field"], smaller["field"]) == ("sequence_length", "image_size")
    assert TOKENS < longer["to"] <= TOKENS + 256
    assert (longer["fits"], smaller["fits"]) == (True, True)
    assert longer["time_ratio"] is smaller["time_ratio"] is None
    for change in (longer, smaller):
        mended = fit_answer(QUESTION | {"recipe": RECIPE | {change["field"]: change["to"]}})
        assert (mended["verdict"], mended["advice"]) == ("fits", None)


def test_it_names_the_media_that_the_sample_has(found):
    said = found["advice"]["changes"][0]["why"]["en"]
    assert said.startswith("The sequence is too short for the pictures of a sample,")
    with_video = fit_answer(QUESTION | {"recipe": RECIPE | {"video_frames": 8}})["advice"]["changes"][0]["why"]["en"]
    assert "the pictures and video of a sample" in with_video


def test_fewer_pictures_are_offered_where_that_is_enough():
    recipe = RECIPE | {"image_size": 448, "sequence_length": 600}  # 256 tokens each
    changes = fit_answer(QUESTION | {"recipe": recipe})["advice"]["changes"]
    assert [(row["field"], row["to"]) for row in changes] == [
        ("sequence_length", 1280), ("images", 2), ("image_size", [224, 224]),
    ]  # fmt: skip


def test_no_length_below_the_pictures_is_offered(found):
    assert found["largest"]["sequence_length"]["value"] >= TOKENS
    assert found["largest"]["micro_batch_size"]["value"] is None
    small = fit_answer(QUESTION | {"gpu": "rtx-4090"})
    assert small["largest"]["sequence_length"]["value"] is None
    assert [row["field"] for row in small["advice"]["path"]] == ["image_size"]  # the longer sequence would not fit
    long = fit_answer(QUESTION | {"gpu": "rtx-4090", "recipe": RECIPE | {"sequence_length": 24576}})
    lengths = [row["to"] for row in long["advice"]["changes"] if row["field"] == "sequence_length"]
    assert lengths == [TOKENS]
    body = QUESTION | {"recipe": RECIPE}
    assert [length for length, _ in batch_by_length(body, (1024, 16_384, 24_576))] == [24_576]


def test_a_sweep_judges_them_so_too():
    axes = {"sequence_length": [1024, TOKENS - 1, TOKENS]}
    sweep = sweep_answer(QUESTION | {"sweep": axes})["sweeps"][0]
    assert sweep["verdicts"] == ["does_not_fit", "does_not_fit", "fits"]
    assert sweep["fits"] == [False, False, True]


def test_text_alone_is_as_it_was():
    found = fit_answer(QUESTION | {"recipe": {"sequence_length": 1}})
    assert (found["verdict"], found["decided_by"]) == ("fits", "step")
