"""One rank's model and recipe, from the whole ones, and its step said in the whole one's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.errors import InvalidInput
from loralens.core.partition import context, expert, pipeline, tensor
from loralens.core.question.versions import framework

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.question.recipe import Recipe


def is_cut(recipe: Recipe) -> bool:
    """Does a rank have a part of the model, or of the sequence?"""
    p = recipe.parallelism
    return p.tp * p.cp * p.pp * p.ep > 1


def cut(root: Root, recipe: Recipe) -> Recipe:
    """Leave one rank's part of a model; the recipe as that rank walks it."""
    p = recipe.parallelism
    if p.ep > 1:
        expert.cut(root, recipe)
    if p.tp > 1:
        tensor.cut(root, p)
    if p.cp > 1:
        context.cut(root, p)
        recipe = context.own_length(recipe)
    if p.pp > 1:
        pipeline.check(recipe)
        recipe = pipeline.walked(recipe)
        pipeline.cut(root, p)
    return recipe


def of_cut(recipe: Recipe) -> list[str]:
    """What the figures rest on where a rank has a part."""
    p, found = recipe.parallelism, []
    if p.tp > 1 and framework(recipe) == "megatron":
        found.append("tensor parallel as Megatron Core runs it: its loss works on each GPU's part of the vocabulary")
    elif p.tp > 1:
        stream = "cut along the sequence" if p.sequence_parallel else "whole on every GPU"
        found.append(f"tensor parallel as transformers 5.23 and DTensor run it: the residual stream is {stream}")
    if p.cp > 1:
        found.append("context parallel: what attention itself holds meanwhile is worked out, not traced (assumption)")
    if p.ep > 1:
        found.append(
            "expert parallel as transformers 5.23 runs it: every GPU is sent an equal share of the chosen rows (assumption)"
        )
    if p.pp > 1:
        many = pipeline.under_way(p, recipe.gradient_accumulation_steps, p.pipeline_rank or 0)
        found.append(f"up to {many} forward passes of a stage wait for their backward ({p.schedule})")
        if p.schedule == "1f1b" and p.strategy != "megatron" and recipe.gradient_accumulation_steps < p.pp:
            found.append(
                f"torch's 1F1B takes no fewer micro-batches (gradient_accumulation_steps, {recipe.gradient_accumulation_steps}) than "
                f"stages ({p.pp}): counted all the same"
            )
        if waiting := pipeline.halves_waiting(recipe):
            found.append(
                f"backward is cut in two: {waiting} passes at most wait for their weights' half, with all they kept and the "
                "gradients that arrived"
            )
        if pipeline.leaves_whole(recipe):
            found.append(
                "FSDP2 under a pipeline's schedule: weights stay gathered, and gradients whole, until the last micro-batch"
            )
    return found


def refuse_cut(recipe: Recipe) -> None:
    """For what walks whole models only.

    Raises:
        InvalidInput: a rank has a part.
    """
    if is_cut(recipe):
        raise InvalidInput(
            "requests one by one are not modelled for a rank that has a part of the model (tp, cp, pp or ep above 1)",
            field="allocator",
            hint="leave out allocator=simulated",
        )


def refuse_parted(recipe: Recipe) -> None:
    """For what walks all layers, whole or cut by width and length, and one forward pass at a time.

    Raises:
        InvalidInput: a rank has some layers, or some experts.
    """
    if recipe.parallelism.pp * recipe.parallelism.ep > 1:
        raise InvalidInput(
            "the allocator is not simulated for pipeline stages and divided experts (pp or ep above 1)",
            field="allocator",
            hint="leave out allocator=simulated",
        )
