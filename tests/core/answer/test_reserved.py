"""What the answers carry of the simulated allocator, and what the rule takes from it."""

import statistics

import pytest

from loralens.core.answer import card, overhead, reserved
from loralens.core.answer.estimate import estimate, estimate_model
from loralens.core.errors import InvalidInput
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.core.step import events

MODELS = ("llama-3.2-1b", "7B")
METHODS = ("full", "lora", "qlora")
SETTINGS = ({}, {"gradient_checkpointing": True, "micro_batch_size": 4})


@pytest.fixture(scope="module")
def grid():
    """(allocated peak with workspaces, reserved, needed) of simulated settings on one GPU."""
    found = []
    for name in MODELS:
        for method in METHODS:
            for words in SETTINGS:
                model, recipe = resolve(name), Recipe.from_mapping(words)
                one = estimate_model(model, method, recipe)
                needed = reserved.needed(model, method, recipe, one.allocated_bytes)
                found.append((one.allocated_bytes + card.workspace_bytes(), one.simulated().fixed_bytes, needed))
    return found


def test_the_rules_fragmentation_holds_most_of_what_is_simulated(grid):
    """benchmarks/fragmentation.py runs the large grid that the rule's comment speaks of."""
    parts = [100 * needed / allocated - 100 for allocated, _, needed in grid]
    assert sum(part <= overhead.FRAGMENTATION_PERCENT for part in parts) >= 0.8 * len(parts)
    assert statistics.median(parts) <= overhead.FRAGMENTATION_PERCENT / 2


def test_the_rules_reserved_of_one_length_is_what_is_simulated(grid):
    low, typical = overhead.RULE_RESERVED_ONE_LENGTH
    parts = [100 * held / allocated for allocated, held, _ in grid]
    assert sum(part >= low for part in parts) >= 0.9 * len(parts)
    assert abs(statistics.median(parts) - typical) <= 6


def test_needed_lies_between_what_is_allocated_and_what_is_reserved(grid):
    assert all(allocated * 0.99 <= needed <= held for allocated, held, needed in grid)


@pytest.mark.parametrize("words", [{}, {"padded": True}, {"parallelism": {"gpus": 4, "strategy": "fsdp"}}])
@pytest.mark.parametrize("allocator", ["rule", "simulated"])
def test_bands_are_in_order(allocator, words):
    found = estimate("llama-3.2-1b", method="lora", gradient_checkpointing=True, **words)
    bands = found.bands(allocator)
    for low, typical, high in (bands.reserved, bands.device):
        assert found.allocated_bytes <= low <= typical <= high
    assert all(pool <= shown for pool, shown in zip(bands.reserved, bands.device, strict=True))
    least, safe = bands.needed
    assert found.allocated_bytes < least <= safe


def test_the_answer_says_what_it_stands_on():
    found = estimate("llama-3.2-1b", method="lora", gradient_checkpointing=False)
    by_rule, simulated = found.to_dict(), found.to_dict(allocator="simulated")
    assert by_rule["peak"]["allocator"] == "rule"
    assert simulated["peak"]["allocator"] == "simulated"
    assert simulated["peak"]["allocated_bytes"] == by_rule["peak"]["allocated_bytes"]
    width = [e["peak"]["device_band_bytes"][1] - e["peak"]["device_band_bytes"][0] for e in (by_rule, simulated)]
    assert width[1] < width[0]
    assert by_rule["assumptions"] != simulated["assumptions"]
    assert estimate("llama-3.2-1b", padded=True).assumptions("simulated")[-1] == overhead.VARYING_ASSUMPTION


def test_one_recording_serves_other_numbers():
    model = resolve("llama-3.2-1b")
    first = reserved.recording(model, "lora", Recipe.from_mapping({"sequence_length": 512}))
    assert reserved.recording(model, "lora", Recipe.from_mapping({"lora": {"rank": 64}})) is first
    assert reserved.recording(model, "lora", Recipe.from_mapping({"gradient_checkpointing": False})) is not first


def test_a_named_card_bounds_what_is_reserved():
    free = estimate("qwen2.5-0.5b", method="lora", padded=True)
    memory = free.allocated_bytes + 2 * 2**30
    assert free.simulated().largest_bytes > memory
    assert free.simulated("a card", memory).largest_bytes <= memory


def test_too_large_a_step_is_refused_with_a_way_out(monkeypatch):
    monkeypatch.setattr(events, "MOST_STORAGES", 1000)
    with pytest.raises(InvalidInput) as caught:
        events.record(resolve("7B"), "lora", Recipe())
    assert caught.value.field == "allocator"
