"""Trainings that run out of memory, made up: `python tests/trainers/oom_events.py 200 SEED` prints how often the tensor is named.

A model, a recipe and a card are drawn; the step's requests go through PyTorch's allocator, simulated, until the card is full;
the message is worded as PyTorch words it. The message of a segment that serves many small tensors says nothing, and is drawn again.
`python tests/trainers/oom_events.py 200 SEED FILE` writes the events of any model as lines of JSON in place of that.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loralens.core import catalogue
from loralens.core.answer.estimate import estimate_model
from loralens.core.answer.named_requests import NamedRequest, named_requests
from loralens.core.answer.reserved import recording
from loralens.core.errors import LoraLensError
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
TOO_LONG = ("jamba-v0.1",)
"""More tensors in a step than are simulated."""


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


def drawn_freely(chance: random.Random) -> tuple[str, dict[str, Any]]:
    """Batches, lengths, ranks and optimizers that are not usual, too."""
    method, words = drawn(chance)
    words["micro_batch_size"] = chance.choice([1, 1, 2, 3, 4, 6, 8, 12])
    words["sequence_length"] = chance.choice([chance.randrange(256, 4097, 64), chance.randrange(200, 4097)])
    words["optimizer"] = chance.choice(["adamw_fused", "adamw_8bit", "paged_adamw_8bit", "adafactor", "lion_8bit"])
    if method != "full":
        words["lora"]["rank"] = chance.choice([4, 8, 16, 24, 32, 64, 128])
    return method, words


def any_model() -> tuple[str, ...]:
    """Every model of the catalogue whose step can be simulated."""
    return tuple(entry.id for entry in catalogue.models() if entry.id not in TOO_LONG)


def events(
    count: int,
    models: tuple[str, ...],
    seed: int = 1,
    draw: Callable[[random.Random], tuple[str, dict[str, Any]]] = drawn,
) -> Iterator[tuple[dict[str, Any], NamedRequest, str]]:
    """The set-up, the request that failed, and the message; what is refused is drawn again."""
    chance = random.Random(seed)
    while count:
        model, (method, words) = chance.choice(models), draw(chance)
        try:
            found = estimate_model(named(model), method, Recipe.from_mapping(words))
            requests = named_requests(found.model, method, found.recipe)
        except LoraLensError:
            continue
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


def write(count: int, seed: int, file: Path) -> None:
    """Events of any model, a line each."""
    with file.open("w", encoding="utf-8") as lines:
        for body, died, text in events(count, any_model(), seed):
            row = {"set_up": body, "name": died.label, "phase": died.phase, "bytes": died.bytes, "text": text}
            lines.write(json.dumps(row) + "\n")


def main(count: int, seed: int) -> None:
    """The shares, for models that are common, for any, and for any at lengths and with optimizers that are not usual."""
    print(f"seed {seed}")
    print("| messages | with the set-up: first | among three | without: first | among three | and its model |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    drawn_from = (
        ("common models", MODELS, drawn),
        ("any model", any_model(), drawn),
        ("any, freely", any_model(), drawn_freely),
    )
    for title, models, draw in drawn_from:
        told, guessed, model_too = [], [], 0
        for body, died, text in events(count, models, seed, draw):
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
    asked, drawn_by = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10_000)
    if len(sys.argv) > 3:
        write(asked, drawn_by, Path(sys.argv[3]))
    else:
        main(asked, drawn_by)
