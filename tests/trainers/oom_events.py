"""Trainings that run out of memory, made up: `python tests/trainers/oom_events.py 200` prints how often the tensor is named.

A model, a recipe and a card are drawn; the step's requests go through PyTorch's allocator, simulated, until the card is full;
the message is worded as PyTorch words it. The message of a segment that serves many small tensors says nothing, and is drawn again.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from typing import Any

from loralens.core.answer.estimate import estimate_model
from loralens.core.answer.named_requests import NamedRequest, named_requests
from loralens.core.answer.reserved import recording
from loralens.core.question.model import named
from loralens.core.question.recipe import Recipe
from loralens.core.step.allocator import (
    LARGE_SEGMENT,
    CachingAllocator,
    LimitReached,
    round_size,
    segment_size,
)
from loralens.trainers.explain import explain_answer

MODELS = ("qwen2.5-0.5b", "qwen3-0.6b", "llama-3.2-1b", "tinyllama-1.1b", "qwen3-1.7b", "gemma-2-2b", "llama-3.2-3b")
OTHERS = ("smollm2-1.7b", "olmo-2-1b", "stablelm-2-1.6b", "pythia-1.4b", "gpt2-xl", "granite-3.0-2b")
"""None of the models that a message alone is compared with."""


def shown(size: int) -> str:
    """A size as PyTorch prints it."""
    for unit, bytes_ in (("GiB", 2**30), ("MiB", 2**20)):
        if size >= bytes_:
            return f"{size / bytes_:.2f} {unit}"
    return f"{size / 1024:.2f} KiB"


def message(request: int, allocator: CachingAllocator, capacity: int) -> str:
    """PyTorch's sentence."""
    cached = allocator.reserved - allocator.allocated
    return (
        f"CUDA out of memory. Tried to allocate {shown(segment_size(round_size(request)))}. GPU 0 has a total capacity of "
        f"{shown(capacity)} of which {shown(capacity - allocator.reserved)} is free. Of the allocated memory "
        f"{shown(allocator.allocated)} is allocated by PyTorch, and {shown(cached)} is reserved by PyTorch but unallocated."
    )


def drawn(chance: random.Random) -> tuple[str, dict[str, Any]]:
    """A method and a recipe."""
    method = chance.choice(["full", "lora", "qlora"])
    words: dict[str, Any] = {
        "micro_batch_size": chance.choice([1, 2, 4, 8]), "sequence_length": chance.choice([512, 1024, 2048]),
        "gradient_checkpointing": chance.random() < 0.5, "attention": "eager" if chance.random() < 0.2 else "sdpa",
        "optimizer": chance.choice(["adamw_fused", "adamw_fused", "adamw_8bit"]),
    }  # fmt: skip
    if method != "full":
        words["lora"] = {"rank": chance.choice([8, 16, 32])} | chance.choice([{}, {"target_modules": "all-linear"}])
    return method, words


def events(count: int, models: tuple[str, ...], seed: int = 1) -> Iterator[tuple[dict[str, Any], NamedRequest, str]]:
    """The set-up, the request that failed, and the message."""
    chance = random.Random(seed)
    while count:
        model, (method, words) = chance.choice(models), drawn(chance)
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
            except LimitReached:
                if segment_size(round_size(sizes[event - 1])) > LARGE_SEGMENT:
                    body = {"model": model, "method": method, "recipe": words}
                    yield body, requests[event - 1], message(sizes[event - 1], allocator, capacity)
                    count -= 1
                break


def place(rows: list[dict[str, Any]], died: NamedRequest) -> int:
    """Where the tensor stands, from 0; 99: nowhere."""
    names = [(row["name"], row["phase"]) for row in rows]
    return names.index((died.label, died.phase)) if (died.label, died.phase) in names else 99


def main(count: int) -> None:
    """The shares, for models that are looked for and for others."""
    print("| messages | with the set-up: first | among three | without: first | among three | and its model |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for title, models in (("models looked for", MODELS), ("others", OTHERS)):
        told, guessed, model_too = [], [], 0
        for body, died, text in events(count, models):
            told.append(place(explain_answer({"text": text, **body})["tensors"], died))
            rows = explain_answer({"text": text})["guesses"]
            guessed.append(place(rows, died))
            if guessed[-1] < 3:
                model_too += rows[guessed[-1]]["set_ups"][0]["model"] == body["model"]
        shares = [sum(one <= most for one in found) / count for found in (told, guessed) for most in (0, 2)]
        print(
            f"| {count} of {title} | " + " | ".join(f"{share:.1%}" for share in (*shares, model_too / count)) + " |",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
