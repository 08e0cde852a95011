"""The answers that API, command line and Python share: dictionaries in, the contract's JSON out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from loralens.core import catalogue
from loralens.core.answer.by_trainer import by_trainer
from loralens.core.answer.estimate import ALLOCATORS, SHOWN_GPUS, Estimate, estimate_model
from loralens.core.answer.lengths import Lengths, of_lengths
from loralens.core.answer.plan import plan_for
from loralens.core.answer.remarks import remarks
from loralens.core.answer.trainer import trained
from loralens.core.architecture.module import Linear
from loralens.core.architecture.multimodal import left_out_note
from loralens.core.architecture.registry import Count, build, count_parameters, is_known
from loralens.core.errors import InvalidInput, LoraLensError, UnsupportedArchitecture
from loralens.core.methods import COMPARED, check
from loralens.core.question.accelerator import accelerator_of
from loralens.core.question.bodies import request_body
from loralens.core.question.model import Model, resolve
from loralens.core.question.presets import said_of_trainer
from loralens.core.question.recipe import TRAINERS, Recipe
from loralens.core.step.counts import Counts, counts_for

if TYPE_CHECKING:
    from loralens.core.answer.plan_shapes import Plan as PlanObject
    from loralens.core.answer.plan_shapes import PlanAnswer
    from loralens.core.answer.shapes import Allocator, Comparison, MemoryAnswer, ParametersAnswer, TensorRow
    from loralens.core.question.shapes import ModelSummary


ONLY_COUNTED = "only counted: the training step of this family is not modelled"
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_BODY = ("config", "gpu", "method", "methods", "model", "recipe")


def read_body(body: Any) -> tuple[Model, tuple[str, ...], Recipe, tuple[str, ...]]:
    """Model, methods, recipe and GPUs of a request body.

    Raises:
        InvalidInput: the body is not an object, or a field of it is unknown or malformed.
        UnknownModel, UnknownGpu: nothing has that name.
    """
    body = request_body(body, _BODY, '{"model": "7B"}', "; everything else belongs into recipe")
    model = resolve(body.get("model"), body.get("config"))
    gpu = body.get("gpu")
    gpus = SHOWN_GPUS if gpu is None else (catalogue.gpu(gpu).id,)
    methods = _methods(body, COMPARED if model.traced is None else model.traced.methods)
    recipe = on_card(Recipe.from_mapping(body.get("recipe")), body.get("recipe"), gpu)
    return model, methods, model.packed(recipe, methods), gpus


def on_card(recipe: Recipe, said: Any, gpu: Any) -> Recipe:
    """The recipe with the accelerator that a named card is, unless the recipe says one itself."""
    known = None if gpu is None else accelerator_of(catalogue.gpu(gpu).compute_capability)
    if known is None or (isinstance(said, Mapping) and said.get("accelerator") is not None):
        return recipe
    return replace(recipe, accelerator=known)


def _methods(body: Mapping[str, Any], usual: tuple[str, ...]) -> tuple[str, ...]:
    one, several = body.get("method"), body.get("methods")
    if one is not None and several is not None:
        raise InvalidInput("give either method or methods, not both", field="methods")
    if one is not None:
        return (check(one),)
    if several is None:
        return tuple(check(name) for name in usual)
    if not isinstance(several, (list, tuple)) or not 0 < len(several) <= 16:
        raise InvalidInput("methods must be a list of 1 to 16 names", field="methods", hint='try ["full", "lora"]')
    return tuple(check(name) for name in several)


def memory_answer(body: Any, *, most_passes: int | None = None, verdicts: bool = True) -> MemoryAnswer:
    """`POST /api/memory`: one estimate per method, and what LoRA saves against full fine-tuning.

    `trainers`: true, or names: what the same words come to with each trainer's defaults, see `by_trainer`.

    `lengths`: pairs of tokens and samples: what batches of such samples take, see `lengths.of_lengths`.

    `allocator`: `rule` (the default) or `simulated`, see `core.answer.overhead`; `most_passes` bounds what the latter may
    cost, see `core.answer.cost`. `verdicts`: false leaves `fits` empty, for who shows none: an older card among those shown has
    attention kernels of its own, and so a walk.
    """
    allocator, body = _allocator(body)
    trainers, body = _trainers(body)
    lengths, body = _lengths(body)
    if lengths is not None and allocator == "expandable":
        raise InvalidInput(
            "lengths are not simulated with expandable segments",
            field="allocator",
            hint="try allocator=simulated",
        )
    model, names, recipe, gpus = read_body(body)
    gpus = gpus if verdicts else ()
    if allocator != "rule" and most_passes is not None:
        from loralens.core.answer.cost import check_simulation  # with the allocator, which few ask for

        check_simulation(model, names, recipe, most_passes, lengths=lengths is not None)
    several = len(gpus) > 1 and allocator == "rule"
    estimates = [estimate_model(model, name, recipe, several_cards=several) for name in names]
    by_method = {item.method: item for item in estimates}
    both = "full" in by_method and "lora" in by_method
    answer: MemoryAnswer = {
        "model": model_object(model, estimates[0].plan.base_parameters),
        "estimates": [item.to_dict(gpus, allocator) for item in estimates],
        "comparison": _comparison(by_method["full"], by_method["lora"]) if both else None,
    }
    if lengths is not None:
        cards = [catalogue.gpu(name) for name in gpus]
        for item, row in zip(estimates, answer["estimates"], strict=True):
            row["lengths"] = of_lengths(item, lengths, cards, simulated=allocator == "simulated")
    if trainers:
        answer["trainers"] = by_trainer(model, names, body.get("recipe"), trainers, gpus)
    return answer


def _allocator(body: Any) -> tuple[Allocator, Any]:
    """The word that only this answer knows, and the body without it."""
    if not isinstance(body, Mapping) or "allocator" not in body:
        return "rule", body
    allocator = body["allocator"]
    if allocator not in ALLOCATORS:
        raise InvalidInput(
            f"allocator must be one of {', '.join(ALLOCATORS)}, got {allocator!r:.40}",
            field="allocator",
            hint="leave it out for bands by rule; simulated runs the step through PyTorch's caching allocator",
        )
    return allocator, {name: value for name, value in body.items() if name != "allocator"}


def _lengths(body: Any) -> tuple[Lengths | None, Any]:
    """The samples' lengths, and the body without the word."""
    if not isinstance(body, Mapping) or body.get("lengths") is None:
        return None, body
    return Lengths.read(body["lengths"]), {name: value for name, value in body.items() if name != "lengths"}


def _trainers(body: Any) -> tuple[tuple[str, ...], Any]:
    """The trainers to compare, and the body without the word."""
    if not isinstance(body, Mapping) or "trainers" not in body:
        return (), body
    asked = body["trainers"]
    names = TRAINERS if asked is True else asked if isinstance(asked, (list, tuple)) else None
    if asked is False or asked is None:  # 0 is neither
        names = ()
    if names is None or len(names) > len(TRAINERS) or any(name not in TRAINERS for name in names):
        raise InvalidInput(
            f"trainers must be true or a list of names, got {asked!r:.60}",
            field="trainers",
            hint=f"names: {', '.join(TRAINERS)}",
        )
    return tuple(dict.fromkeys(names)), {name: value for name, value in body.items() if name != "trainers"}


def model_object(model: Model, parameters: int | None = None) -> ModelSummary:
    """The contract's `model` object; `parameters`: the count, where the caller has it already."""
    return model.to_dict(base_parameters(model) if parameters is None else parameters, left_out_note(model.config))


def base_parameters(model: Model) -> int:
    """The model's own parameters, exactly.

    Raises:
        InvalidInput, UnsupportedArchitecture: what is wrong with the model itself.
    """
    if model.traced is None:
        build(model.config)
    return _own(model)


def parameters_answer(body: Any) -> ParametersAnswer:
    """`GET /api/parameters`: exact counts, tensor by tensor, for one method (LoRA when none is named).

    Layers of a kind share a row; `count` says how many there are. Also for families whose step is not walked.
    """
    model, names, recipe, _ = read_body(body)
    name = names[0] if len(names) == 1 else "lora"
    if model.traced is not None and name not in model.traced.methods:
        return _counted(model, Count(model.traced.parameters, True, f"{name} was not traced"))
    counts, notes = _counts(model, name, recipe)
    if counts is None:
        return _counted(model, count_parameters(model.config))
    rank = recipe.lora.rank
    total, trainable = (size.at(1, 1, rank) for size in (counts.total, counts.trainable))
    return {
        "exact": True,
        "note": "; ".join([*model.assumptions(name, recipe), *notes, *left_out_note(model.config)]),
        "model": model_object(model, _own(model)),
        "method": name,
        "parameters": {
            "total": total,
            "trainable": trainable,
            "trainable_percent": round(100 * trainable / total, 4) if total else 0.0,
        },
        "tensors": _tensors(counts, rank),
        "target_modules_available": _linear_names(model) if model.traced is None else [],
        "by_rank": [
            {
                "rank": r,
                "trainable": counts.trainable.at(1, 1, r),
                "adapter_file_bytes": counts.adapter_bytes.at(1, 1, r),
            }
            for r in RANKS
        ],
    }


def _counts(model: Model, method: str, recipe: Recipe) -> tuple[Counts | None, list[str]]:
    """The counts, and what is to be said about them; None where the model type is not known."""
    try:
        plan = estimate_model(model, method, recipe).plan
    except UnsupportedArchitecture as refused:
        if not is_known(model.config):
            return None, []
        why = refused.message if refused.field == "lora.target_modules" else ONLY_COUNTED
        return counts_for(model, method, recipe), [why]
    return Counts.of(plan.held, recipe.weights_dtype), []


def _tensors(counts: Counts, rank: int) -> list[TensorRow]:
    """One row for the tensors of a name, a shape and a state."""
    rows: dict[str, TensorRow] = {}
    for item in counts.held:
        parameter = item.parameter
        shape = [dim if isinstance(dim, int) else dim.at(1, 1, rank) for dim in parameter.shape]
        row = rows.setdefault(
            f"{parameter.label} {shape} {parameter.trainable}",
            {
                "name": parameter.label,
                "role": parameter.role,
                "shape": shape,
                "count": 0,
                "parameters": 0,
                "dtype": parameter.dtype if parameter.packing is None else type(parameter.packing).__name__,
                "bytes": 0,
                "trainable": parameter.trainable,
            },
        )
        row["count"] += item.count
        row["parameters"] += parameter.numel.at(1, 1, rank) * item.count
        row["bytes"] += parameter.bytes.at(1, 1, rank) * item.count
    return list(rows.values())


def _own(model: Model) -> int:
    return count_parameters(model.config).total if model.traced is None else model.traced.parameters


def _counted(model: Model, count: Count) -> ParametersAnswer:
    """The count alone, of an unknown model type or a method that was not traced."""
    return {
        "model": model_object(model, count.total),
        "method": "full",
        "parameters": {"total": count.total, "trainable": count.total, "trainable_percent": 100.0},
        "tensors": [],
        "target_modules_available": [],
        "by_rank": [],
        "exact": count.exact,
        "note": "; ".join([*model.read_as, count.note, *left_out_note(model.config)]),
    }


def _linear_names(model: Model) -> list[str]:
    root = build(model.config)
    names = {
        name.rsplit(".", 1)[-1]: None
        for name, module in root.walk()
        if isinstance(module, Linear) and not root.is_head(module)
    }
    return list(names)


def _comparison(full: Estimate, lora: Estimate) -> Comparison:
    file_bytes = lora.adapter_file_bytes
    return {
        "parameters_ratio": round(full.trainable_parameters / lora.trainable_parameters, 4),
        "memory_ratio": round(full.allocated_bytes / lora.allocated_bytes, 4),
        "storage_ratio": round(full.checkpoint_bytes / file_bytes, 4) if file_bytes else None,
        "switch_ratio": None,  # only ever measured
    }


def plan_answer(body: Any) -> PlanAnswer:
    """`GET /api/plan`: one plan per method."""
    model, names, recipe, _ = read_body(body)
    try:
        asked = {name: trained(model, name, recipe) for name in names}
        found = {name: (asked[name], plan_for(model, name, asked[name])) for name in names}
        for name in names:
            estimate_model(model, name, recipe).check_beside()
    except LoraLensError:
        base_parameters(model)  # what is wrong with the model itself is said first
        raise
    own = model_object(model, found[names[0]][1].base_parameters)
    plans: list[PlanObject] = []
    for name in names:
        used, plan = found[name]
        used = plan.used(used)
        plans.append(
            {
                "model": own,
                "method": name,
                "regime": plan.regime,
                "recipe": used.to_dict(),
                "assumptions": [
                    *model.assumptions(name, used),
                    *plan.assumptions,
                    *remarks(plan, used),
                    *said_of_trainer(used, name),
                ],
                **plan.to_dict(),
            }
        )
    return {"plans": plans}
