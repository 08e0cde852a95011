"""The models of a step, built and prepared: the one that learns, and those that its objective puts beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from loralens.core import methods
from loralens.core.architecture.registry import build, label_parameters
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.methods.frozen import hold_frozen
from loralens.core.objectives.table import objective_of
from loralens.core.partition.rank import refuse_cut
from loralens.core.question.model import resolve
from loralens.core.question.recipe import WORD, Quantization
from loralens.core.question.versions import framework, version

MODELLED: Final = ("full", "kernel", "fused_head")
"""Losses whose head objectives beyond supervised fine-tuning have too."""

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.methods.base import Prepared
    from loralens.core.objectives.objective import BaseObjective
    from loralens.core.question.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Assembled:
    """`recipe` names what the objective chose itself; `beside`: models without gradients, by what they are to it."""

    root: Root
    prepared: Prepared
    recipe: Recipe
    beside: Mapping[str, Root]


def assemble(config: Mapping[str, Any], method: str, recipe: Recipe, root: Root | None = None) -> Assembled:
    """Build and prepare the models of a step. `root`: the one that learns, where it has been built already.

    Raises:
        InvalidInput: the objective's words do not go together with the method.
        UnsupportedArchitecture: the objective is not modelled for this family.
    """
    objective = objective_of(recipe)
    recipe = _with_reference(objective, method, recipe)
    root = build_root(config, recipe) if root is None else root
    if recipe.objective.type != "sft":
        refuse_cut(recipe)
    if objective.reads_head and (root.own_loss or root.framework):
        raise UnsupportedArchitecture(
            f"{recipe.objective.type} is modelled for causal language models of transformers alone",
            field="objective.type",
            hint="objective=sft computes the step of supervised fine-tuning",
        )
    if objective.reads_head and recipe.loss not in MODELLED:
        raise InvalidInput(
            f"loss={recipe.loss} is modelled for supervised fine-tuning alone, not for {recipe.objective.type}",
            field="loss",
            hint="try loss=fused_head, as TRL has it since 1.15, or loss=full for whole logits",
        )
    prepared = methods.prepare(method, root, recipe)
    beside = {}
    if objective.references and recipe.objective.reference == "copy":
        beside["reference"] = _frozen("reference", config, prepared.recipe)
    if objective.teaches:
        beside["teacher"] = _teacher(prepared.recipe)
    return Assembled(root, prepared, recipe, beside)


def build_root(config: Mapping[str, Any], recipe: Recipe) -> Root:
    """The model that learns, before a method is applied."""
    head = objective_of(recipe).head or recipe.head  # a reward model has one label, whatever num_labels says
    return build(config, version(recipe, "transformers"), framework(recipe), head, recipe.num_labels)


def _teacher(recipe: Recipe) -> Root:
    teacher = recipe.teacher
    if teacher.model is None:
        raise InvalidInput(
            "distillation needs a teacher",
            field="teacher.model",
            hint="try teacher=llama-3.1-8b, or by POST its config.json",
        )
    packing = None if teacher.quantization is None else Quantization(type=teacher.quantization)
    asked = resolve(WORD["teacher"].kind.shown(teacher.model))
    return _frozen("teacher", asked.config, replace(recipe, weights_dtype=teacher.weights_dtype, quantization=packing))


def _frozen(name: str, config: Mapping[str, Any], recipe: Recipe) -> Root:
    root = build_root(config, recipe)
    hold_frozen(root, recipe)
    label_parameters(root)
    for _, module, _ in root.distinct():
        for _, parameter in module.own_parameters():
            if not parameter.label.startswith(name):
                parameter.label = f"{name}: {parameter.label}"
    return root


def _with_reference(objective: BaseObjective, method: str, recipe: Recipe) -> Recipe:
    if not objective.references:
        return recipe  # a word that is set all the same is remarked upon
    allowed = [name for name in objective.references if method != "full" or name != "adapter"]
    asked = recipe.objective.reference
    if asked is None:
        chosen = allowed[0] if allowed and objective.needs_reference else None
    elif asked in allowed:
        return recipe
    else:
        why = ": full fine-tuning has no adapter to switch off" if asked in objective.references else ""
        raise InvalidInput(
            f"objective.reference must be one of {', '.join(allowed)} for {recipe.objective.type}, got {asked!r}{why}",
            field="objective.reference",
            hint=f"try reference={allowed[0]}",
        )
    return replace(recipe, objective=replace(recipe.objective, reference=chosen))
