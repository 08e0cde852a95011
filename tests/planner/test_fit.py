"""Largest values: they fit, the next one does not, and they agree with single estimates."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loralens.core.answer.answers import memory_answer
from loralens.core.catalogue import gpu
from loralens.core.errors import InvalidInput, UnknownGpu, UnknownModel
from loralens.planner.fit import LARGEST, fit_answer


def fits(model: str, method: str, device: str, recipe: dict[str, Any]) -> bool:
    answer = memory_answer({"model": model, "method": method, "recipe": recipe, "gpu": device})
    return bool(answer["estimates"][0]["fits"][0]["verdict"] == "fits")


def nested(variable: str, value: int) -> dict[str, Any]:
    return {"lora": {"rank": value}} if variable == "rank" else {variable: value}


@pytest.mark.parametrize(
    ("model", "method", "device"),
    [
        ("7B", "qlora", "rtx-4090"),
        ("qwen2.5-0.5b", "full", "rtx-3060"),
        ("mistral-7b-v0.1", "lora", "a100"),
        ("13B", "lora", "h200"),
    ],
)
def test_the_largest_value_fits_and_the_next_does_not(model: str, method: str, device: str) -> None:
    base = {"gradient_checkpointing": True}
    answer = fit_answer({"model": model, "method": method, "gpu": device, "recipe": base})
    assert set(answer["largest"]) == {"micro_batch_size", "sequence_length"} | ({"rank"} if method != "full" else set())
    for variable, row in answer["largest"].items():
        assert row["value"] is not None
        assert fits(model, method, device, {**base, **nested(variable, row["value"])})
        if row["bounded_by"] == "memory":
            assert not fits(model, method, device, {**base, **nested(variable, row["value"] + 1)})
        else:
            assert row["value"] <= LARGEST[variable]
        assert row["needed_bytes"] <= gpu(device).memory_bytes


def test_nothing_fits_a_gpu_that_cannot_hold_the_weights() -> None:
    answer = fit_answer({"model": "70B", "method": "lora", "gpu": "rtx-4090"})
    assert answer["verdict"] == "does_not_fit"
    assert answer["headroom_bytes"] < 0
    assert all(row["value"] is None and row["bounded_by"] == "memory" for row in answer["largest"].values())


def test_what_fits_gets_no_advice() -> None:
    answer = fit_answer({"model": "qwen2.5-0.5b", "method": "lora", "gpu": "h200"})
    assert answer["verdict"] == "fits"
    assert answer["advice"] is None
    assert answer["time"] is None


@settings(max_examples=8, deadline=None)
@given(batch=st.integers(1, 64), length=st.integers(1, 4096))
def test_the_verdict_and_the_largest_batch_agree(batch: int, length: int) -> None:
    recipe = {"micro_batch_size": batch, "sequence_length": length}
    answer = fit_answer({"model": "qwen2.5-1.5b", "method": "lora", "gpu": "l4", "recipe": recipe})
    largest = answer["largest"]["micro_batch_size"]["value"] or 0
    assert (answer["verdict"] == "fits") == (batch <= largest)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "7B"}, "gpu"),
        ({"model": "7B", "gpu": "a100", "methods": ["full", "lora"]}, "method"),
        ({"model": "7B", "gpu": "a100", "colour": 1}, "colour"),
        ({"model": "7B", "gpu": "a100", "tokens": 0}, "tokens"),
        ({"model": "7B", "gpu": "a100", "tokens": True}, "tokens"),
        ({"model": "7B", "gpu": "a100", "tokens": 1.5}, "tokens"),
        ({"model": "7B", "gpu": "a100", "tokens": 1, "utilization": 0}, "utilization"),
        ({"model": "7B", "gpu": "a100", "tokens": 1, "utilization": float("nan")}, "utilization"),
        ({"model": "7B", "gpu": "a100", "recipe": {"lora": {"rank": 0}}}, "lora.rank"),
        ([], "body"),
    ],
)
def test_what_is_malformed_names_its_field(body: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        fit_answer(body)
    assert caught.value.field == field


def test_unknown_names_are_not_found() -> None:
    with pytest.raises(UnknownGpu):
        fit_answer({"model": "7B", "gpu": "voodoo"})
    with pytest.raises(UnknownModel):
        fit_answer({"model": "8Z", "gpu": "a100"})
