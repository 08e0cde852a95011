"""An out-of-memory message names the tensor: events made by the simulated allocator, from recipes and cards at random."""

from __future__ import annotations

import random

import pytest

from loralens.core.answer.estimate import estimate_model
from loralens.core.answer.named_requests import named_requests
from loralens.core.answer.reserved import recording
from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.core.question.model import named
from loralens.core.question.recipe import Recipe
from loralens.core.step.allocator import LARGE_SEGMENT, CachingAllocator, OutOfMemory, round_size, segment_size
from loralens.trainers.explain import explain_answer
from loralens.trainers.oom import MAX_TEXT, read_message

NEW = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.32 GiB. GPU 0 has a total capacity of 23.69 GiB of which "
    "1.55 GiB is free. Including non-PyTorch memory, this process has 22.13 GiB memory in use. Of the allocated memory "
    "20.50 GiB is allocated by PyTorch, and 1.20 GiB is reserved by PyTorch but unallocated. If reserved but"
)
OLD = (
    "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 10.92 GiB total capacity; 9.70 GiB already "
    "allocated; 11.62 MiB free; 10.11 GiB reserved in total by PyTorch)"
)


def shown(size):
    for unit, bytes_ in (("GiB", 2**30), ("MiB", 2**20)):
        if size >= bytes_:
            return f"{size / bytes_:.2f} {unit}"
    return f"{size / 1024:.2f} KiB"


def message(request, allocator, capacity):
    cached = allocator.reserved - allocator.allocated
    return (
        f"CUDA out of memory. Tried to allocate {shown(segment_size(round_size(request)))}. GPU 0 has a total capacity of "
        f"{shown(capacity)} of which {shown(capacity - allocator.reserved)} is free. Of the allocated memory "
        f"{shown(allocator.allocated)} is allocated by PyTorch, and {shown(cached)} is reserved by PyTorch but unallocated."
    )


def test_figures_of_both_forms():
    new, old = read_message(f"step 3\n{OLD}\nstep 4\n{NEW}"), read_message(OLD)
    assert (new.tried.bytes, new.capacity_bytes, new.free_bytes) == (
        round(2.32 * 2**30),
        round(23.69 * 2**30),
        round(1.55 * 2**30),
    )
    assert (new.allocated_bytes, new.cached_bytes) == (round(20.5 * 2**30), round(1.2 * 2**30))
    assert (old.tried.bytes, old.capacity_bytes) == (20 * 2**20, round(10.92 * 2**30))
    assert old.cached_bytes == round(10.11 * 2**30) - round(9.7 * 2**30)


@pytest.mark.parametrize("text", [None, 3, "", "no such thing", "Tried to allocate many GiB"])
def test_texts_without_a_message_are_refused(text):
    with pytest.raises(InvalidInput):
        explain_answer({"text": text})


def test_a_text_without_end_is_refused():
    with pytest.raises(InputTooLarge):
        explain_answer({"text": "x" * (MAX_TEXT + 1)})


def test_without_a_set_up_the_figures_speak():
    answer = explain_answer({"text": NEW})
    assert (answer["reason"], answer["tensors"]) == ("fragmentation", [])
    assert "set-up" in answer["notes"][0]
    assert explain_answer({"text": NEW.replace("1.20 GiB is reserved", "0.10 GiB is reserved")})["reason"] == "need"


def test_a_file_is_the_set_up():
    config = "base_model: Qwen/Qwen2.5-0.5B\nadapter: lora\nlora_r: 8\nlora_target_linear: true\nmicro_batch_size: 4\nsequence_len: 2048\ndatasets: x\n"
    text = "CUDA out of memory. Tried to allocate 4.64 GiB. GPU 0 has a total capacity of 12.00 GiB"
    answer = explain_answer({"text": text, "files": {"train.yaml": config}})
    assert answer["tensors"][0]["bytes"] == 4 * 2048 * 151936 * 4
    assert answer["tensors"][0]["category"] == "logits"
    assert answer["changes"]


def test_requests_add_up_to_the_peak():
    for method in ("full", "lora", "qlora"):
        found = estimate_model(named("qwen2.5-0.5b"), method, Recipe.from_mapping({"sequence_length": 512}))
        requests = named_requests(found.model, method, found.recipe)
        highest = max(one.alive_bytes + one.bytes for one in requests)
        assert highest <= found.allocated_bytes
        assert highest == found.allocated_bytes or found.phase == "optimizer"


def events(count):
    """Recipes and cards at random; a card dies at the first request that the simulated allocator cannot serve."""
    chance = random.Random(1)
    while count:
        model, method = (
            chance.choice(["qwen2.5-0.5b", "llama-3.2-1b", "gpt2"]),
            chance.choice(["full", "lora", "qlora"]),
        )
        words = {"micro_batch_size": chance.choice([1, 2, 4]), "sequence_length": chance.choice([512, 1024]),
                 "gradient_checkpointing": chance.random() < 0.5, "attention": chance.choice(["sdpa", "eager"])}  # fmt: skip
        found = estimate_model(named(model), method, Recipe.from_mapping(words))
        requests = named_requests(found.model, method, found.recipe)
        batch = recording(found.model, method, found.recipe).first  # another walk of the same step
        resting = requests[0].alive_bytes
        capacity = int(resting + (found.allocated_bytes - resting) * chance.uniform(0.4, 0.95))
        allocator = CachingAllocator(limit=capacity + 2**21)
        blocks = {0: allocator.allocate(resting)}
        sizes = batch.requests(words["micro_batch_size"], words["sequence_length"], found.recipe.lora.rank)
        for event in batch.events:
            try:
                if event > 0:
                    blocks[event] = allocator.allocate(sizes[event - 1])
                else:
                    allocator.free(blocks.pop(-event))
            except OutOfMemory:
                if segment_size(round_size(sizes[event - 1])) > LARGE_SEGMENT:
                    yield (
                        {"model": model, "method": method, "recipe": words},
                        requests[event - 1],
                        message(sizes[event - 1], allocator, capacity),
                    )
                    count -= 1
                break


def test_the_right_tensor_comes_first():
    first = total = 0
    for body, died, text in events(12):
        tensors = explain_answer({"text": text, **body})["tensors"]
        names = [(row["name"], row["phase"]) for row in tensors]
        assert (died.label, died.phase) in names[:3]
        first += names[0] == (died.label, died.phase)
        total += 1
    assert total == 12
    assert first >= 0.9 * total
