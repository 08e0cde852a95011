"""The models of a step, built and prepared: the one that learns, and those that its objective puts beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from loralens.core import methods
from loralens.core.architecture.heads import REWARD
from loralens.core.architecture.registry import build, label_parameters
from loralens.core.errors import InvalidInput, UnknownModel, UnsupportedArchitecture
from loralens.core.methods.frozen import hold_frozen
from loralens.core.objectives.passes import Learner, Others
from loralens.core.objectives.table import objective_of
from loralens.core.partition.rank import is_cut
from loralens.core.question.model import resolve
from loralens.core.question.quantization import Quantization
from loralens.core.question.recipe import WORD
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
    """`recipe` names what the objective chose itself; `beside`: the models that its objective has beside it."""

    root: Root
    prepared: Prepared
    recipe: Recipe
    beside: Others


def assemble(config: Mapping[str, Any], method: str, recipe: Recipe, root: Root | None = None) -> Assembled:
    """Build and prepare the models of a step. `root`: the one that learns, where it has been built already.

    Raises:
        InvalidInput: the objective's words do not go together with the method.
        UnsupportedArchitecture: the objective is not modelled for this family.
    """
    objective = objective_of(recipe)
    recipe = _with_reference(objective, method, recipe)
    root = build_root(config, recipe) if root is None else root
    if recipe.objective.type != "sft" and is_cut(recipe):
        raise InvalidInput(
            f"{recipe.objective.type} is modelled with whole models on every GPU or sharded ones, not with a part of one (tp, cp or pp above 1)",
            field="parallelism",
            hint="try strategy=fsdp or zero3, which divide weights, gradients and states",
        )
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
    beside: dict[str, Root] = {}
    if objective.references and recipe.objective.reference == "copy":
        beside["reference"] = _frozen("reference", config, prepared.recipe)
    if objective.teaches:
        beside["teacher"] = _teacher(prepared.recipe)
    if objective.generates and recipe.reward_model.model is not None:
        beside["reward"] = _reward(prepared.recipe)
    value = _value(config, prepared.recipe) if objective.values else None
    return Assembled(root, prepared, recipe, Others(beside, value))


def refuse_two(recipe: Recipe) -> None:
    """For what walks one learner's micro batch, tensor by tensor.

    Raises:
        InvalidInput: a second model learns beside the first, or mini batches inside of the micro batch.
    """
    if recipe.objective.type == "contrastive" and recipe.objective.mini_batch_size is not None:
        raise InvalidInput(
            "tensors one by one are not modelled where a batch learns in mini batches (cached gradients)",
            field="objective.mini_batch_size",
            hint="leave mini_batch_size out, or see loralens memory for the peaks",
        )
    if objective_of(recipe).values:
        raise InvalidInput(
            f"one learner's micro-batch is walked here, and with {recipe.objective.type} two models learn",
            field="objective.type",
            hint="loralens memory has the peak of every phase; objective=grpo learns without a value model",
        )


def build_root(config: Mapping[str, Any], recipe: Recipe) -> Root:
    """The model that learns, before a method is applied."""
    head = objective_of(recipe).head or recipe.head  # a reward model has one label, whatever num_labels says
    return build(config, version(recipe, "transformers"), framework(recipe), head, recipe.num_labels)


@contextmanager
def _named_by(field: str, hint: str) -> Iterator[None]:
    """A refusal of a model beside the one that learns names the word that asked for it."""
    try:
        yield
    except UnknownModel as error:
        raise UnknownModel(str(error), field=field, hint=error.hint) from error
    except UnsupportedArchitecture as error:
        raise UnsupportedArchitecture(str(error), field=field, hint=hint) from error


def _teacher(recipe: Recipe) -> Root:
    teacher = recipe.teacher
    if teacher.model is None:
        raise InvalidInput(
            "distillation needs a teacher",
            field="teacher.model",
            hint="try teacher=llama-3.1-8b, or by POST its config.json",
        )
    packing = None if teacher.quantization is None else Quantization(type=teacher.quantization)
    with _named_by("teacher.model", "try teacher=llama-3.1-8b"):
        asked = resolve(WORD["teacher"].kind.shown(teacher.model))
        words = replace(recipe, weights_dtype=teacher.weights_dtype, quantization=packing)
        return _frozen("teacher", asked.config, words)


def _reward(recipe: Recipe) -> Root:
    asked = recipe.reward_model
    packing = None if asked.quantization is None else Quantization(type=asked.quantization)
    words = replace(recipe, weights_dtype=asked.weights_dtype, quantization=packing, head=REWARD, num_labels=None)
    with _named_by("reward_model.model", "try reward_model=qwen2.5-7b"):
        subject = resolve(WORD["reward_model"].kind.shown(asked.model))
        return _frozen("reward", subject.config, words)


def _value(config: Mapping[str, Any], recipe: Recipe) -> Learner:
    """One number for each position, by a head like a reward model's."""
    asked = recipe.value
    words = replace(
        recipe,
        weights_dtype=asked.weights_dtype or recipe.weights_dtype,
        quantization=None,
        head=REWARD,
        num_labels=None,
        trainable_layers=None,
    )
    with _named_by("value.model", "try value_model=qwen2.5-7b"):
        subject = config if asked.model is None else resolve(WORD["value_model"].kind.shown(asked.model)).config
        root = build_root(subject, words)
    prepared = methods.prepare(asked.trains, root, words)
    _named("value model", root)
    return Learner("value model", root, prepared)


def _frozen(name: str, config: Mapping[str, Any], recipe: Recipe) -> Root:
    root = build_root(config, recipe)
    hold_frozen(root, recipe)
    _named(name, root)
    return root


def _named(name: str, root: Root) -> None:
    """Its weights' labels begin with whose they are."""
    label_parameters(root)
    for _, module, _ in root.distinct():
        for _, parameter in module.owned():
            if not parameter.label.startswith(f"{name}: "):
                parameter.label = f"{name}: {parameter.label}"


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
