"""A sweep is many estimates at once: equal to the byte, also across the ranges of several plans."""

from itertools import product
from typing import Any

import pytest

from loralens.core.answer.answers import memory_answer
from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.planner.points import peaks_one_by_one
from loralens.planner.question import read_question
from loralens.planner.sweep import MAX_POINTS, MOST_JUDGED, peaks, sweep_answer


@pytest.mark.parametrize("model", ["7B", "mistral-7b-v0.1", "qwen2.5-0.5b"])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_every_point_is_what_a_single_estimate_says(model: str, method: str) -> None:
    # 4095..5000 crosses Mistral's sliding window, ranks 1..64 the smallest 8-bit optimizer tensors
    axes = {"sequence_length": [1, 100, 4095, 4096, 4097, 5000], "rank": [1, 2, 64], "micro_batch_size": [1, 2, 7]}
    recipe = {"optimizer": "adamw_8bit"}
    answer = sweep_answer({"model": model, "method": method, "recipe": recipe, "sweep": axes, "gpu": "a100"})
    assert answer["shape"] == [6, 3, 3]
    (sweep,) = answer["sweeps"]
    for index, (length, rank, batch) in enumerate(product(*axes.values())):
        body = {
            "model": model,
            "method": method,
            "recipe": {**recipe, "sequence_length": length, "micro_batch_size": batch, "lora": {"rank": rank}},
        }
        found = read_question(body)[0].estimate()
        assert sweep["peak_allocated_bytes"][index] == found.allocated_bytes
        assert sweep["needed_bytes"][index] == found.overhead.needed[1]
        assert answer["phase_names"][sweep["phases"][index]] == found.phase
        verdict = found.fits(["a100"])[0]["verdict"]
        assert sweep["verdicts"][index] == verdict
        assert sweep["fits"][index] == (verdict == "fits")


def test_a_card_without_bfloat16_is_swept_as_it_is_estimated() -> None:
    lengths = [512, 2048]
    body = {"model": "qwen2.5-0.5b", "method": "lora", "gpu": "t4"}
    (sweep,) = sweep_answer({**body, "sweep": {"sequence_length": lengths}})["sweeps"]
    single = [read_question({**body, "recipe": {"sequence_length": length}}, ("gpu",))[0] for length in lengths]
    assert sweep["peak_allocated_bytes"] == [question.estimate().allocated_bytes for question in single]


def test_a_trainer_fills_what_the_sweep_leaves_open() -> None:
    body = {"model": "qwen2.5-0.5b", "method": "qlora", "recipe": {"trainer": "trl"}}
    answer = sweep_answer({**body, "sweep": {"sequence_length": [2048]}})
    assert answer["sweeps"][0]["peak_allocated_bytes"] == [read_question(body)[0].estimate().allocated_bytes]
    assert answer["recipe"]["gradient_checkpointing"] is True


BESIDE: dict[str, tuple[str, dict[str, Any]]] = {
    "an engine": ("rtx-4090", {"objective": {"type": "grpo"}, "rollout": {"engine": "vllm"}}),
    "an evaluation": ("t4", {"evaluation": {"samples": 64, "batch_size": 8, "metrics": "logits"}}),
    "a machine": (
        "rtx-4090",
        {"parallelism": {"gpus": 8, "strategy": "zero3", "offload": "optimizer", "host_memory": 60.0}},
    ),
    "one pool": ("custom:24GiB", {"parallelism": {"host_memory": 1.0}}),
}
"""What has to fit beside the step."""


@pytest.mark.parametrize("what", BESIDE)
def test_what_stands_beside_the_step_is_judged_at_every_point(what: str) -> None:
    gpu, recipe = BESIDE[what]
    lengths, batches = [256, 2048, 16384], [1, 16]
    body = {"model": "qwen2.5-1.5b", "method": "lora", "gpu": gpu, "recipe": recipe}
    axes = {"sequence_length": lengths, "micro_batch_size": batches}
    (sweep,) = sweep_answer({**body, "sweep": axes})["sweeps"]
    single = []
    for length, batch in product(lengths, batches):
        here = {**recipe, "sequence_length": length, "micro_batch_size": batch}
        (found,) = memory_answer({**body, "recipe": here})["estimates"]
        single.append(found["fits"][0]["verdict"])
    assert sweep["verdicts"] == single
    assert sweep["fits"] == [verdict == "fits" for verdict in single]


def test_beside_an_engine_many_points_have_no_verdict() -> None:
    recipe = {"objective": {"type": "grpo"}, "rollout": {"engine": "vllm"}}
    body = {"model": "qwen2.5-0.5b", "method": "lora", "gpu": "a100", "recipe": recipe}
    (sweep,) = sweep_answer({**body, "sweep": {"sequence_length": [512] * (MOST_JUDGED + 1)}})["sweeps"]
    assert sweep["verdicts"] is None
    assert sweep["fits"] is None


def test_without_numpy_the_same_points() -> None:
    """As in a browser: across a window, the ends of 8-bit tensors and sizes that leave 64 bits."""
    axes = {"sequence_length": [1, 4095, 4096, 4097], "rank": [1, 64], "micro_batch_size": [1, 7]}
    question, _ = read_question({"model": "mistral-7b-v0.1", "method": "lora", "recipe": {"optimizer": "adamw_8bit"}})
    sizes, phases = peaks(question, axes)
    assert peaks_one_by_one(question, axes) == (list(sizes), list(phases))
    with pytest.raises(InputTooLarge):
        peaks_one_by_one(question, {"rank": [1] * 5_001})


@pytest.mark.parametrize("model", ["t5-base", "whisper-large-v3", "vit-large-patch16-224"])
def test_points_of_models_with_an_encoder(model: str) -> None:
    """Lengths of several remainders, below and above what the decoder takes, for one sample and more."""
    axes = {"sequence_length": [1, 16, 447, 448, 449, 500, 516], "micro_batch_size": [1, 3]}
    (sweep,) = sweep_answer({"model": model, "method": "lora", "sweep": axes})["sweeps"]
    for index, (length, batch) in enumerate(product(*axes.values())):
        recipe = {"sequence_length": length, "micro_batch_size": batch}
        found = read_question({"model": model, "method": "lora", "recipe": recipe})[0].estimate()
        assert sweep["peak_allocated_bytes"][index] == found.allocated_bytes


def test_sizes_beyond_64_bits_are_still_exact() -> None:
    recipe = {"attention": "eager"}
    axes = {"sequence_length": [1, 16_777_216], "micro_batch_size": [65_536]}
    (sweep,) = sweep_answer({"model": "7B", "method": "full", "recipe": recipe, "sweep": axes})["sweeps"]
    body = {"model": "7B", "method": "full", "recipe": {**recipe, "sequence_length": 2**24, "micro_batch_size": 65_536}}
    assert sweep["peak_allocated_bytes"][1] == read_question(body)[0].estimate().allocated_bytes > 2**63


def test_without_a_method_the_three_are_compared() -> None:
    answer = sweep_answer({"model": "7B", "sweep": {"rank": [8]}})
    assert [row["method"] for row in answer["sweeps"]] == ["full", "lora", "qlora"]
    assert "fits" not in answer["sweeps"][0]


@pytest.mark.parametrize(
    ("sweep", "field"),
    [
        (None, "sweep"),
        ({}, "sweep"),
        ({"alpha": [1]}, "sweep"),
        ({"rank": []}, "sweep.rank"),
        ({"rank": 8}, "sweep.rank"),
        ({"rank": ["8"]}, "sweep.rank"),
        ({"rank": [True]}, "sweep.rank"),
        ({"rank": [8, 0]}, "lora.rank"),
        ({"micro_batch_size": [10**9]}, "micro_batch_size"),
        ({"rank": list(range(1, 1001)), "sequence_length": list(range(1, MAX_POINTS // 1000 + 2))}, "sweep"),
    ],
)
def test_what_is_malformed_names_its_field(sweep: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        sweep_answer({"model": "7B", "sweep": sweep})
    assert caught.value.field == field
