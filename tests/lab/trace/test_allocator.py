"""The simulated allocator over the order of requests that the real libraries make, against the order that the engine records."""

import warnings

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.core.step import events, simulate
from loralens.core.step.allocator import CachingAllocator


def traced(model, method, recipe):
    """Peak allocated and reserved of the traced step, its model's loading included."""
    with warnings.catch_warnings():  # as `case.trace` imports them
        warnings.simplefilter("ignore")
        import bitsandbytes  # noqa: F401
        import peft  # noqa: F401
        import transformers  # noqa: F401

        from loralens.lab.trace import build, step

        ledger, _ = step.run(build.read_config(model.config), method, recipe)
    memory, blocks = CachingAllocator(), {}
    for event in ledger.events:
        if event < 0:
            if -event in blocks:
                memory.free(blocks.pop(-event))
        elif ledger.storages[event - 1].size_bytes:
            blocks[event] = memory.allocate(ledger.storages[event - 1].size_bytes)
    return memory.peak_allocated, memory.peak_reserved


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("qwen2.5-0.5b", {"sequence_length": 1024}),
        ("llama-3.2-1b", {"sequence_length": 512, "micro_batch_size": 2, "gradient_checkpointing": True}),
    ],
)
def test_both_orders_come_to_the_same_pool(name, words):
    model, recipe = resolve(name), Recipe.from_mapping(words)
    allocated, reserved = traced(model, "lora", recipe)
    found = simulate.run(
        events.record(model, "lora", recipe),
        [recipe.sequence_length] * simulate.STEPS,
        batch=recipe.micro_batch_size,
        rank=recipe.lora.rank,
    )
    assert found.allocated_bytes == pytest.approx(allocated, rel=0.002)
    assert found.reserved_bytes == pytest.approx(reserved, rel=0.02)
