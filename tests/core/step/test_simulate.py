"""The order of a step's requests against the plan's peak, and the simulated process as a whole."""

import pytest

from loralens.core.answer.estimate import estimate_model
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.core.step import events, simulate
from loralens.core.step.allocator import LimitReached

MIB = 2**20


class Counter:
    """A memory that only adds up what was asked for."""

    def __init__(self):
        self.now = self.peak = 0

    def allocate(self, size, stream=0):
        self.now += size
        self.peak = max(self.peak, self.now)
        return size

    def free(self, size):
        self.now -= size


def program(name, method, words):
    model, recipe = resolve(name), Recipe.from_mapping(words)
    return model, recipe, events.record(model, method, recipe)


CASES = [
    ("7B", "full", {}),
    ("7B", "lora", {"lora": {"rank": 16, "dropout": 0.1, "target_modules": "all-linear"}}),
    ("7B", "qlora", {"gradient_checkpointing": True, "optimizer": "paged_adamw_8bit"}),
    ("70B", "qlora", {"gradient_checkpointing": True, "sequence_length": 512}),
    ("qwen2.5-7b", "dora", {"micro_batch_size": 3, "sequence_length": 777}),
    ("llama-3.2-1b", "full", {"optimizer": "adamw_foreach", "autocast": None}),
    ("llama-3.2-1b", "full", {"optimizer": "adamw_8bit", "loss": "fused", "weights_dtype": "float32"}),
    ("llama-3.2-1b", "full", {"optimizer": "adafactor", "gradient_accumulation_steps": 4}),
    ("llama-3.2-1b", "full", {"optimizer": "sgd", "optimizer_in_backward": True}),
    ("gemma-2-9b", "lora", {"padded": True, "gradient_checkpointing": True}),
    ("gpt2", "full", {"optimizer": "muon", "sequence_length": 512, "attention": "eager"}),
    ("mixtral-8x7b-v0.1", "lora", {"sequence_length": 256}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "method", "words"), CASES)
def test_the_running_maximum_is_the_plans_peak(name, method, words):
    """Two ways to one number: layers multiplied as polynomials, and every block of every layer added and taken away."""
    model, recipe, recorded = program(name, method, words)
    found = estimate_model(model, method, recipe)
    memory = Counter()
    process = simulate.Process(recorded, memory, rank=recipe.lora.rank)
    process.load()
    batch, length, _ = found.point
    process.step(batch, length)
    after_first, memory.peak = memory.now, 0
    process.step(batch, length)
    assert memory.peak == found.allocated_bytes
    assert memory.now == after_first  # a step leaves nothing behind


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3", "fsdp"])
def test_sharded_peaks_differ_by_rounding_only(strategy):
    words = {"parallelism": {"gpus": 8, "strategy": strategy}, "gradient_checkpointing": True}
    model, recipe, recorded = program("llama-3.2-1b", "full", words)
    found = estimate_model(model, "full", recipe)
    memory = Counter()
    process = simulate.Process(recorded, memory, rank=recipe.lora.rank)
    process.load()
    process.step(1, 2048)
    memory.peak = 0
    process.step(1, 2048)
    # every share is rounded up to a whole byte: once for a group of tensors in the plan, once for each tensor here
    assert abs(memory.peak - found.allocated_bytes) <= 6 * len(recorded.weights)


@pytest.mark.parametrize("cut", [{"tp": 2, "sequence_parallel": True, "loss_parallel": True}, {"cp": 2}])
def test_a_rank_of_a_cut_model_asks_for_what_its_plan_holds(cut):
    words = {"parallelism": {"gpus": 4, "strategy": "fsdp2", **cut}, "autocast": None}
    model, recipe, recorded = program("llama-3.1-8b", "full", words)
    memory = Counter()
    process = simulate.Process(recorded, memory, rank=8)
    process.load()
    process.step(1, 2048)
    memory.peak = 0
    process.step(1, 2048)
    found = estimate_model(model, "full", recipe)
    # every share is rounded up to a whole byte, once for each tensor here
    assert abs(memory.peak - found.allocated_bytes) <= 6 * len(recorded.weights)


def test_every_storage_is_released_once():
    _, _, recorded = program("7B", "lora", {"gradient_checkpointing": True})
    micro = recorded.first
    born = [event for event in micro.events if event > 0]
    released = [-event for event in micro.events if event < 0]
    assert sorted(born) == list(range(1, len(micro.kind_of) + 1))
    assert sorted(released + micro.batch + micro.gradients) == sorted(born)


def test_one_walk_serves_every_length_it_is_valid_for():
    model, _, recorded = program("7B", "lora", {})
    for length in (64, 1000, 4096):
        again = events.record(model, "lora", Recipe.from_mapping({"sequence_length": length}))
        assert again.first.events == recorded.first.events
        assert again.first.requests(1, length, 8) == recorded.first.requests(1, length, 8)


def test_what_the_blocks_add():
    """Allocated in blocks is the exact peak plus rounding, the workspaces, and rests of up to 1 MiB that are not split off."""
    model, recipe, recorded = program("7B", "lora", {})
    exact = estimate_model(model, "lora", recipe).allocated_bytes
    found = simulate.run(recorded, [2048] * 3, batch=1, rank=8, workspace_bytes=8 * MIB)
    assert exact + 16 * MIB <= found.allocated_bytes <= exact * 1.01 + 16 * MIB
    assert found.allocated_bytes < found.reserved_bytes < 1.1 * exact


def test_varying_lengths_reserve_more_and_expandable_segments_less():
    _, _, recorded = program("qwen2.5-0.5b", "lora", {"padded": True, "gradient_checkpointing": True})
    settings = {"batch": 1, "rank": 8}
    fixed = simulate.run(recorded, [2048] * 3, **settings)
    lengths = simulate.varying_lengths(2048)
    assert max(lengths) == 2048 and min(lengths) >= 256
    varying = simulate.run(recorded, lengths, **settings)
    expandable = simulate.run(recorded, lengths, expandable_segments=True, **settings)
    assert fixed.reserved_bytes < varying.reserved_bytes
    assert expandable.reserved_bytes < varying.reserved_bytes


def test_the_least_limit_is_enough_and_little_less_is_not():
    _, _, recorded = program("qwen2.5-0.5b", "full", {"gradient_checkpointing": True})
    settings = {"batch": 1, "rank": 8}
    found = simulate.run(recorded, [2048] * 3, **settings)
    limit = simulate.least_limit(recorded, [2048] * 3, found.allocated_bytes, **settings)
    assert found.allocated_bytes <= limit
    assert simulate.run(recorded, [2048] * 3, limit=limit, **settings).reserved_bytes <= limit
    with pytest.raises(LimitReached):
        simulate.run(recorded, [2048] * 3, limit=found.allocated_bytes - MIB, **settings)


def test_a_third_step_of_one_length_reserves_nothing_more():
    for method, words in (("full", {}), ("lora", {"gradient_checkpointing": True})):
        _, _, recorded = program("llama-3.2-1b", method, words)
        two, four = (simulate.run(recorded, [1024] * steps, batch=2, rank=8) for steps in (simulate.STEPS, 4))
        assert two == four
