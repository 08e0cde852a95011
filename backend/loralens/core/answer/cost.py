"""What an answer will cost to compute, known before it is computed.

The unit is a layer pass: one layer of one micro batch, walked or replayed in the allocator; about a millisecond.
A server sets a limit; the command line and Python have none.
"""

from __future__ import annotations

from typing import Final

from loralens.core.answer.lengths import BATCHES, DRAWS
from loralens.core.architecture.registry import build
from loralens.core.errors import InputTooLarge
from loralens.core.question.model import Model
from loralens.core.question.recipe import Recipe
from loralens.core.question.versions import framework, version
from loralens.core.step.simulate import STEPS, VARYING_STEPS

SEARCHES: Final = 4
"""Runs in which the least memory is found (assumption: one to six were seen, mostly three)."""
TURNS_PER_PASS: Final = 5
"""Turns of a loop inside a layer that make as many tensors as a layer (assumption: about twenty each, and a hundred)."""


WRITTEN: Final = 5
"""Layer passes that a layer's tensors take which are written down by name (assumption: 2 to 4 ms were seen)."""


def _layers(model: Model, recipe: Recipe) -> int:
    """Layers, each as many times as its loop over the sequence, or over experts, makes it longer.

    Raises:
        InvalidInput, UnsupportedArchitecture: as `build`.
    """
    root = build(model.config, version(recipe, "transformers"), framework(recipe), recipe.head, recipe.num_labels)
    turns = root.looped_experts if root.turn is None else -(-recipe.sequence_length // root.turn)
    return sum(len(stack) for _, stack in root.stacks()) * (1 + turns // TURNS_PER_PASS)


def simulation_passes(model: Model, methods: tuple[str, ...], recipe: Recipe, *, lengths: bool = False) -> int:
    """Layer passes of `allocator=simulated`: recorded once, run for one length, for varying ones, and for the least memory.

    `lengths`: and for drawn batches of given lengths.

    Raises:
        InvalidInput, UnsupportedArchitecture: as `build`.
    """
    micro_batches = 2 if recipe.gradient_accumulation_steps > 1 else 1
    steps = 1 + STEPS + (VARYING_STEPS if recipe.padded else 0) + SEARCHES * (5 if recipe.padded else STEPS)
    steps += 1 + DRAWS * BATCHES if lengths else 0
    return len(methods) * _layers(model, recipe) * micro_batches * steps


def check_simulation(
    model: Model, methods: tuple[str, ...], recipe: Recipe, most: int, *, lengths: bool = False
) -> None:
    """Raise `InputTooLarge` where a simulation needs more than `most` layer passes."""
    passes = simulation_passes(model, methods, recipe, lengths=lengths)
    if passes > most:
        raise InputTooLarge(
            f"this simulation needs {passes:,} layer passes, a request may have {most:,}",
            field="allocator",
            hint="ask for one method at a time, leave out allocator=simulated, or run "
            "`loralens memory … --allocator simulated`, which has no limit",
        )


def check_written(model: Model, methods: int, recipe: Recipe, most: int, ask: str) -> None:
    """Raise `InputTooLarge` where to write down every tensor of a step needs more than `most` layer passes. `ask`: what to do."""
    passes = WRITTEN * methods * _layers(model, recipe)
    if passes > most:
        raise InputTooLarge(
            f"to write down every tensor of this step needs {passes:,} layer passes, a request may have {most:,}",
            field="model",
            hint=ask,
        )
