"""Advice: each saving is the one that the estimate gives, and a path makes the step fit with nothing to spare in it."""

import json
from pathlib import Path
from typing import Any

import pytest

from loralens.core.catalogue import gpu
from loralens.planner.advice import advise
from loralens.planner.beside import KEY, WHY
from loralens.planner.changes import CHANGES, COSTS
from loralens.planner.fit import fit_answer
from loralens.planner.mends import FEWER, LENGTH, MACHINE
from loralens.planner.question import Question, read_question
from loralens.planner.quicker import UNCHECKPOINTED

MENDS = (MACHINE, LENGTH, FEWER[0])

CASES = [
    ({"model": "7B", "method": "full"}, "rtx-4090"),
    ({"model": "7B", "method": "lora", "recipe": {"micro_batch_size": 4, "gradient_checkpointing": False}}, "rtx-4090"),
    ({"model": "70B", "method": "lora"}, "a100"),
    (
        {
            "model": "13B",
            "method": "lora",
            "recipe": {"gradient_checkpointing": False, "lora": {"target_modules": "all-linear", "dropout": 0.1}},
        },
        "a6000",
    ),
    ({"model": "7B", "method": "full", "recipe": {"weights_dtype": "float32", "optimizer": "adamw_foreach"}}, "a100"),
    (
        {
            "model": "7B",
            "method": "lora",
            "recipe": {"gradient_checkpointing": False, "attention": "eager", "padded": True},
        },
        "rtx-4090",
    ),
]


def ask(body: dict[str, Any]) -> Question:
    return read_question(body)[0]


@pytest.mark.parametrize(("body", "device"), CASES)
def test_every_saving_is_the_difference_of_two_estimates(body: dict[str, Any], device: str) -> None:
    question = ask(body)
    advice = advise(question, gpu(device))
    assert advice["changes"]
    for row in advice["changes"]:
        changed = question.with_(row["field"], row["to"])
        assert changed.get(row["field"]) == row["to"] != row["from"] == question.get(row["field"])
        saved = question.estimate().allocated_bytes - changed.estimate().allocated_bytes
        assert row["saves_bytes"] == saved > 0
        assert row["fits"] == (changed.estimate().overhead.needed[1] <= gpu(device).memory_bytes)
        assert row["why"]["key"] and row["why"]["en"]
    order = [(not row["fits"], COSTS.index(row["cost"])) for row in advice["changes"]]
    assert order == sorted(order)


@pytest.mark.parametrize(("body", "device"), CASES)
def test_the_path_fits_and_every_step_of_it_is_needed(body: dict[str, Any], device: str) -> None:
    question, memory = ask(body), gpu(device).memory_bytes
    path = advise(question, gpu(device))["path"]
    assert path

    def after(rows: list[dict[str, Any]]) -> int:
        changed = question
        for row in rows:
            changed = changed.with_(row["field"], row["to"])
        return changed.estimate().overhead.needed[1]

    assert after(path) <= memory
    for row in path:
        assert after([other for other in path if other is not row]) > memory
    start = question.estimate().allocated_bytes
    assert start - sum(row["saves_bytes"] for row in path) == path[-1]["peak_allocated_bytes"]


def test_a_milder_change_is_preferred_to_another_method() -> None:
    question = ask(
        {"model": "7B", "method": "lora", "recipe": {"micro_batch_size": 4, "gradient_checkpointing": False}}
    )
    assert [row["field"] for row in advise(question, gpu("4090"))["path"]] == ["gradient_checkpointing"]


def test_there_is_no_path_where_nothing_helps() -> None:
    question = ask({"model": "llama-3.1-405b", "method": "qlora"})
    advice = advise(question, gpu("rtx-3060"))
    assert advice["path"] is None


def test_the_smallest_gpu_is_of_the_same_vendor_and_fits() -> None:
    question = ask({"model": "7B", "method": "full"})
    for device, vendor in (("rtx-4090", "NVIDIA"), ("rx-7900-xtx", "AMD")):
        found = advise(question, gpu(device))["smallest_gpu"]
        assert gpu(found["id"]).vendor == vendor
        assert found["memory_bytes"] >= question.estimate().overhead.needed[1]


def test_several_gpus_are_the_least_power_of_two_that_fits() -> None:
    question, device = ask({"model": "70B", "method": "full"}), gpu("h200")
    found = advise(question, device)["several_gpus"]

    def needed(count: int) -> int:
        return question.with_("gpus", count).with_("strategy", "fsdp2").estimate().overhead.needed[1]

    assert found["needed_bytes"] == needed(found["gpus"]) <= device.memory_bytes
    assert found["gpus"] == 2 or needed(found["gpus"] // 2) > device.memory_bytes
    assert advise(ask({"model": "llama-3.1-405b", "method": "full"}), gpu("rtx-3060"))["several_gpus"] is None


def test_each_change_has_its_sentence_in_every_language_of_the_page() -> None:
    assert all(change.cost in COSTS for change in CHANGES)
    said = {change.key: change.en for change in (*CHANGES, UNCHECKPOINTED, *MENDS)} | {KEY: WHY}
    assert len(said) == len(CHANGES) + 2 + len(MENDS)
    locales = {path.stem: json.loads(path.read_text("utf-8")) for path in Path("frontend/src/locales").glob("*.json")}
    assert locales["en"]["advice"] == said
    for texts in locales.values():
        assert texts["advice"].keys() == said.keys()


def test_a_path_can_leave_out_kbit_preparation_and_offload_checkpoints() -> None:
    question, device = ask({"model": "qwen3-32b", "method": "qlora"}), gpu("rtx-4090")
    path = advise(question, device)["path"]
    assert {"prepare_kbit", "checkpoint_offload"} <= {row["field"] for row in path}
    assert question.get("prepare_kbit") is True
    assert question.with_("prepare_kbit", False).recipe.quantization.prepare_kbit is False  # type: ignore[union-attr]
    assert ask({"model": "7B", "method": "lora"}).get("prepare_kbit") is None


def test_paged_states_are_advised_where_they_are_what_is_missing() -> None:
    path = advise(ask({"model": "7B", "method": "full"}), gpu("24GB"))["path"]
    assert {"field": "optimizer", "to": "paged_adamw_8bit"}.items() <= next(
        row for row in path if row["field"] == "optimizer"
    ).items()


@pytest.mark.parametrize(
    ("engine", "word", "share"),
    [("vllm", "gpu_memory_utilization", 0.05), ("vllm", "gpu_memory_utilization", 0.95), ("sglang", "mem_fraction_static", 1)],
)  # fmt: skip
def test_an_engine_that_leaves_no_room_is_what_has_to_change(engine: str, word: str, share: float) -> None:
    """The step alone fits the card many times; nothing about it helps."""
    field = "utilization" if engine == "vllm" else word
    recipe: dict[str, Any] = {"objective": "grpo", "rollout": {"engine": engine, field: share}}
    body = {"model": "8B", "method": "lora", "gpu": "h100", "recipe": recipe}
    found = fit_answer(body)
    assert found["verdict"] == "does_not_fit" and found["headroom_bytes"] > 0
    assert {row["value"] for row in found["largest"].values()} == {None}
    assert found["advice"] is not None and found["advice"]["path"] == found["advice"]["changes"]
    (change,) = found["advice"]["changes"]
    assert change["field"] == word
    recipe["rollout"][field] = change["to"]
    after = fit_answer(body)
    assert after["verdict"] == "fits" and after["advice"] is None


def test_words_that_change_nothing_are_said_beside_the_verdict() -> None:
    body = {"model": "8B", "method": "lora", "gpu": "h100", "recipe": {"rollout": {"mem_fraction_static": 0.9}}}
    assert [row["words"] for row in fit_answer(body)["without_effect"]] == [["mem_fraction_static"]]
