"""What a worker keeps of questions: bounded in bytes, and nothing of what no answer rests on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from loralens.core.answer import peaks, plan
from loralens.core.catalogue import model
from loralens.core.question.accelerator import BEFORE_8
from loralens.core.question.model import given
from loralens.core.question.recipe import Recipe
from loralens.endpoints.table import compute

SMALL = {**model("llama-2-7b").config, "num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 512}
STORES = (plan._plans, peaks._peaks)


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    for store in STORES:
        store.clear()
    yield
    for store in STORES:
        store.clear()


def ask(config: dict[str, Any], **recipe: Any) -> None:
    """With the older cards once more by themselves, as they are walked where one walk cannot tell for both."""
    compute("memory", {"config": {**SMALL, **config}, "method": "lora", "recipe": recipe})
    peaks.peak_bytes(given({**SMALL, **config}), "lora", Recipe.from_mapping({**recipe, "accelerator": BEFORE_8}))


def kept() -> list[int]:
    return [store.bytes for store in STORES]


def test_names_that_nothing_reads_leave_nothing_behind() -> None:
    ask({})
    before = kept()
    assert all(before)
    for number in range(5):
        ask({"x": [number, *[1] * 100_000]})
        ask({f"name {number}": "x" * 100_000})
    assert kept() == before


def test_configs_without_end_take_the_room_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    room = 1_000_000
    monkeypatch.setattr(plan._plans._kept, "most_bytes", room)
    for number in range(12):
        ask({"vocab_size": 32_000 + number})
    assert room / 2 < plan._plans.bytes <= room


def test_a_plan_for_every_batch_size_is_not_kept_for_good() -> None:
    for batch in range(1, 21):
        ask({}, loss="fused", micro_batch_size=batch, sequence_length=512)
    assert all(len(values) <= 8 for values, _ in plan._plans._kept._values.values())
