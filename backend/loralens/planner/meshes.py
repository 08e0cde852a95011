"""The ways in which a plan search shares a step out among GPUs, mildest first: every one causes one more kind of waiting.

Order and rules: more copies before shards, shards before the model is cut, checkpointing before that too; experts are divided
before layers are; a cut by width or length stays inside a machine, where links are fast; stages only where machines are several or nothing milder does. As
NVIDIA-NeMo Megatron-Bridge's performance guide and the Ultra-Scale Playbook advise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe

WIDTHS: Final = (2, 4, 8)
LENGTHS: Final = (2, 4)
STAGES: Final = (2, 4)
LONG: Final = 8192  # tokens from which the sequence may be cut (assumption)
MICRO_BATCHES_PER_STAGE: Final = 4  # of a pipeline, so that few of its steps are idle (assumption: the playbook's rule)


@dataclass(frozen=True, slots=True)
class Mesh:
    """One way: its level, from 1, and the recipe with it."""

    level: int
    recipe: Recipe


def meshes(recipe: Recipe, gpus: int, nodes: int, experts: int = 0) -> Iterator[Mesh]:
    """Every way of the search's space, in order. `recipe`: with the words of one GPU; `experts`: of a layer."""
    own = recipe.parallelism

    def shared(level: int, one: Recipe, strategy: str, **words: Any) -> Mesh:
        return Mesh(level, replace(one, parallelism=replace(own, gpus=gpus, strategy=strategy, **words)))

    if own.offload_device == "nvme":  # which ZeRO-3 alone swaps to
        yield from (shared(3, one, "zero3") for one in _checkpointed(recipe))
        return
    if gpus == 1:
        yield from (Mesh(1, one) for one in _checkpointed(recipe))
        return
    inside = gpus // nodes
    for one in _checkpointed(recipe):
        yield shared(1, one, "ddp")
        yield shared(2, one, "fsdp2", reshard_after_forward=False)
        yield shared(3, one, "fsdp2")
        if nodes > 1:
            yield shared(4, one, "fsdp2", dp_replicate=nodes)
    for owners in (size for size in WIDTHS if experts and experts % size == 0 and inside % size == 0):
        for one in _checkpointed(recipe):
            yield shared(5, one, "fsdp2", ep=owners)
    for width in (width for width in WIDTHS if width <= inside and inside % width == 0):
        for one in _checkpointed(recipe):
            yield shared(6, one, *_rest(gpus // width), tp=width, sequence_parallel=True, loss_parallel=True)
    kept = replace(recipe, gradient_checkpointing=True)
    if recipe.sequence_length >= LONG:
        for length in (length for length in LENGTHS if inside % length == 0):
            yield shared(7, kept, "fsdp2", cp=length)
    for stages in (stages for stages in STAGES if gpus % stages == 0 and nodes > 1):
        steps = max(recipe.gradient_accumulation_steps, MICRO_BATCHES_PER_STAGE * stages)
        piped = replace(kept, gradient_accumulation_steps=steps)
        width = min(8, gpus // stages, inside)
        yield shared(8, piped, *_rest(gpus // stages), pp=stages)
        yield shared(
            8, piped, *_rest(gpus // stages // width), pp=stages, tp=width, sequence_parallel=True, loss_parallel=True
        )


def _checkpointed(recipe: Recipe) -> list[Recipe]:
    """As asked; and with checkpointing where that was not asked for."""
    kept = replace(recipe, gradient_checkpointing=True)
    return [kept] if recipe.gradient_checkpointing else [recipe, kept]


def _rest(gpus: int) -> tuple[str]:
    return ("fsdp2" if gpus > 1 else "none",)
